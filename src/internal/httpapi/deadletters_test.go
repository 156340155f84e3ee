package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// deadLetter writes a dead letter of a user's activation of function tool, as a worker does.
func (p *platform) deadLetter(user, id string, change ...func(*faena.DeadLetter)) {
	p.t.Helper()
	d := faena.DeadLetter{Schema: faena.SchemaVersion, ID: id, User: user, Group: group, Function: "tool", Revision: 1, Reason: faena.ReasonExitNonzero,
		Message: "It failed.", Attempts: 3, Worker: "w1", Parameter: faena.Blob{Size: 4, Inline: []byte("of " + id[len(id)-1:])}, At: time.Now().UTC()}
	for _, c := range change {
		c(&d)
	}
	noError(p.t, p.bus.PutDeadLetter(p.t.Context(), &d))
}

// deadLetters reads the list to its end.
func (s *site) deadLetters(query string, with ...option) []DeadLetter {
	s.t.Helper()
	return all[DeadLetter](s, "/v1/deadletters?"+query, 2, with...)
}

// letterIDs are ids of activations, the oldest first.
func letterIDs(n int) (ids []string) {
	at := time.Now().UnixMilli()
	for i := range n {
		ids = append(ids, fmt.Sprintf("%08x-%04x-7000-8000-%012x", (at+int64(i))>>16, (at+int64(i))&0xffff, i+1))
	}
	return ids
}

// Dead letters are listed in pages, one's own, and for an admin anybody's.
func TestDeadLetters_List(t *testing.T) {
	s := start(t).serve(t)
	ids := letterIDs(6)
	for i, id := range ids[:5] {
		s.deadLetter("ann", id, func(d *faena.DeadLetter) { d.Function = []string{"tool", "other"}[i%2] })
	}
	s.deadLetter("bob", ids[5])
	shown := func(query string, with ...option) (got []string) {
		t.Helper()
		for _, d := range s.deadLetters(query, with...) {
			got = append(got, d.ActivationID)
			if d.Parameter.Size != 4 || d.Parameter.Text != "" {
				t.Errorf("the parameter in the list is %+v", d.Parameter)
			}
		}
		return got
	}
	reversed := slices.Clone(ids)
	slices.Reverse(reversed)
	for name, c := range map[string]struct {
		user, query string
		want        []string
	}{
		"own":                     {"ann", "", reversed[1:]},
		"another's own":           {"bob", "", reversed[:1]},
		"an admin's own":          {"root", "", nil},
		"a user's, for an admin":  {"root", "user=ann", reversed[1:]},
		"everybody's":             {"root", "user=*", reversed},
		"own by name":             {"ann", "user=ann", reversed[1:]},
		"nobody's":                {"root", "user=nobody", nil},
		"of a function":           {"ann", "function=other", []string{ids[3], ids[1]}},
		"of a function of nobody": {"ann", "function=none", nil},
	} {
		if got := shown(c.query, as(c.user)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for query, want := range map[string]struct {
		user   string
		status int
		reason string
	}{
		"user=bob":     {"ann", http.StatusForbidden, "forbidden"},
		"user=*":       {"ann", http.StatusForbidden, "forbidden"},
		"user=a%2fb":   {"root", http.StatusUnprocessableEntity, "invalid"},
		"function=A_B": {"ann", http.StatusUnprocessableEntity, "invalid"},
		"cursor=xx":    {"ann", http.StatusBadRequest, "malformed"},
		"limit=201":    {"ann", http.StatusUnprocessableEntity, "invalid"},
	} {
		s.call(http.MethodGet, "/v1/deadletters?"+query, as(want.user)).problem(want.status, want.reason)
	}
	for _, c := range []struct{ method, path string }{{"DELETE", ""}, {"POST", "/redrive"}, {"GET", "/" + ids[0]}, {"DELETE", "/" + ids[0]}, {"POST", "/" + ids[0] + "/redrive"}} {
		s.call(c.method, "/v1/deadletters"+c.path+"?user=ann", as("bob")).problem(http.StatusForbidden, "forbidden")
	}
}

// A dead letter says what happened, and its own user what it was called with.
func TestDeadLetters_Get(t *testing.T) {
	s := start(t).serve(t)
	ids := letterIDs(2)
	s.deadLetter("ann", ids[0])
	s.deadLetter("ann", ids[1], func(d *faena.DeadLetter) { d.Function, d.Revision, d.Raw = "", 0, []byte("?") })
	d := decoded[DeadLetter](s.call(http.MethodGet, "/v1/deadletters/"+ids[0], as("ann")).is(http.StatusOK))
	if d.ActivationID != ids[0] || d.User != "ann" || d.Group != group || d.Function != "tool" || d.Revision != 1 || d.Reason != "exit_nonzero" ||
		d.Message == "" || d.Attempts != 3 || d.Worker != "w1" || d.Parameter.Text != "of 1" || d.Unreadable || d.At.IsZero() {
		t.Errorf("it is %+v", d)
	}
	if d := decoded[DeadLetter](s.call(http.MethodGet, "/v1/deadletters/"+ids[0]+"?user=ann", as("root")).is(http.StatusOK)); d.Parameter.Text != "" || d.Parameter.Size != 4 {
		t.Errorf("an admin sees the parameter %+v", d.Parameter)
	}
	if d := decoded[DeadLetter](s.call(http.MethodGet, "/v1/deadletters/"+ids[1], as("ann")).is(http.StatusOK)); !d.Unreadable {
		t.Errorf("one that cannot be read is %+v", d)
	}
	s.call(http.MethodGet, "/v1/deadletters/"+ids[0]+"?user=*", as("root")).problem(http.StatusUnprocessableEntity, "invalid")
	s.call(http.MethodGet, "/v1/deadletters/none", as("ann")).problem(http.StatusNotFound, "dead_letter_not_found")
}

// A dead letter is run again as a new activation, once, and is gone then.
func TestDeadLetters_Redrive(t *testing.T) {
	s := start(t).serve(t)
	s.worker(1, echo)
	s.deploy("ann", "tool")
	ids := letterIDs(4)
	for _, id := range ids[:3] {
		s.deadLetter("ann", id)
	}
	s.deadLetter("ann", ids[3], func(d *faena.DeadLetter) { d.Function = "gone" })
	a := s.call(http.MethodPost, "/v1/deadletters/"+ids[0]+"/redrive", as("ann"), header("X-Request-Id", "again")).is(http.StatusAccepted)
	made := decoded[Accepted](a)
	if a.has("Location", "/v1/activations/"+made.ActivationID); made.ActivationID == ids[0] || made.Location != a.header.Get("Location") {
		t.Errorf("it is accepted as %+v", made)
	}
	s.becomes(made.ActivationID, "succeeded")
	rec := decoded[Activation](s.call(http.MethodGet, made.Location, as("ann")).is(http.StatusOK))
	if rec.RedrivenFrom != ids[0] || rec.RequestID != "again" || rec.Revision != 1 {
		t.Errorf("the new one is %+v", rec)
	}
	if p := s.call(http.MethodGet, made.Location+"/result", as("ann")).is(http.StatusOK); string(p.body) != "of 1" {
		t.Errorf("its result is %q", p.body)
	}
	s.call(http.MethodPost, "/v1/deadletters/"+ids[0]+"/redrive", as("ann")).problem(http.StatusNotFound, "dead_letter_not_found")

	s.call(http.MethodPost, "/v1/deadletters/"+ids[3]+"/redrive", as("ann")).problem(http.StatusGone, "revision_gone")
	rest := decoded[Redriven](s.call(http.MethodPost, "/v1/deadletters/redrive?user=*", as("root")).is(http.StatusOK))
	if len(rest.Redriven) != 2 || rest.Redriven[0].From != ids[1] || rest.Redriven[1].From != ids[2] || rest.Next != "" {
		t.Errorf("run again are %+v", rest.Redriven)
	}
	if len(rest.Refused) != 1 || rest.Refused[0].From != ids[3] || rest.Refused[0].Reason != "revision_gone" || rest.Refused[0].Retryable || rest.Refused[0].Message == "" {
		t.Errorf("refused are %+v", rest.Refused)
	}
	if list := s.deadLetters("", as("ann")); len(list) != 1 || list[0].ActivationID != ids[3] {
		t.Errorf("left are %+v", list)
	}
}

func TestDeadLetters_Purge(t *testing.T) {
	s := start(t).serve(t)
	ids := letterIDs(6)
	for i, id := range ids[:5] {
		s.deadLetter("ann", id, func(d *faena.DeadLetter) { d.Function = []string{"tool", "other"}[i%2] })
	}
	s.deadLetter("bob", ids[5])
	s.call(http.MethodDelete, "/v1/deadletters/"+ids[0], as("ann")).is(http.StatusNoContent)
	s.call(http.MethodDelete, "/v1/deadletters/"+ids[0], as("ann")).problem(http.StatusNotFound, "dead_letter_not_found")
	s.call(http.MethodDelete, "/v1/deadletters/"+ids[2]+"?user=ann", as("root")).is(http.StatusNoContent)
	for _, c := range []struct {
		user, query string
		want        int
	}{{"ann", "?function=other", 2}, {"ann", "", 1}, {"root", "", 0}, {"root", "?user=*", 1}} {
		if got := decoded[Purged](s.call(http.MethodDelete, "/v1/deadletters"+c.query, as(c.user)).is(http.StatusOK)); got.Purged != c.want {
			t.Errorf("%s purges %d with %q, want %d", c.user, got.Purged, c.query, c.want)
		}
	}
}

// A worker is drained and resumed, and its heartbeat says so; one that is not there, or does not hear, is an error.
func TestWorkers_Drain(t *testing.T) {
	s := start(t).serve(t)
	beat := func(id string, draining bool) {
		now := time.Now().UTC()
		noError(t, s.bus.Heartbeat(t.Context(), faena.Worker{Schema: faena.SchemaVersion, ID: id, Group: group, Places: 1, Draining: draining, StartedAt: now, SeenAt: now}))
	}
	beat("hears", false)
	beat("deaf", false)
	asked := 0
	stop, err := s.bus.Drains("hears", func(drain bool) {
		if asked++; asked%2 == 0 { // the first word is lost
			beat("hears", drain)
		}
	})
	noError(t, err)
	defer stop()
	for verb, draining := range map[string]bool{"drain": true, "resume": false} {
		if w := decoded[Worker](s.call(http.MethodPost, "/v1/workers/hears/"+verb, as("root")).is(http.StatusOK)); w.ID != "hears" || w.Draining != draining {
			t.Errorf("%s: it is %+v", verb, w)
		}
	}
	s.call(http.MethodPost, "/v1/workers/none/drain", as("root")).problem(http.StatusNotFound, "worker_not_found")
	p := s.call(http.MethodPost, "/v1/workers/deaf/drain", as("root")).problem(http.StatusServiceUnavailable, "worker_does_not_answer")
	if !p.Retryable || p.Component != ComponentWorker || !strings.Contains(p.Detail, "deaf") {
		t.Errorf("the problem is %+v", p)
	}
}
