package httpapi

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// A list has what is live and what has ended, newest first, in pages that lose and repeat nothing while new ones come.
func TestActivations_List(t *testing.T) {
	s := start(t).serve(t)
	g := newGate()
	w := s.worker(2, echo)
	s.deploy("ann", "tool")
	s.deploy("ann", "other")
	var ids []string
	for i := range 7 {
		name := []string{"tool", "other"}[i%2]
		a := s.call(http.MethodPost, "/v1/functions/"+name+"/activations", as("ann"), body("a result")).is(http.StatusOK)
		ids = append(ids, a.header.Get("Faena-Activation-Id"))
	}
	w.does(func(*job) ([]byte, faena.Reason) { return nil, faena.ReasonTimeout })
	ids = append(ids, s.activate().problem(http.StatusBadGateway, "timeout").ActivationID)
	w.does(g.run)
	for range 3 { // two run, one is queued
		ids = append(ids, s.accepted("x"))
	}
	<-g.running
	<-g.running
	slices.Reverse(ids)
	idsOf := func(list []Activation) (out []string) {
		for _, rec := range list {
			if out = append(out, rec.ActivationID); rec.Result.Text != "" || len(rec.Result.Base64) > 0 || rec.AdmittedAt.IsZero() {
				t.Errorf("a list has the bytes of a result, or not when it was admitted: %+v", rec)
			}
		}
		return out
	}
	for _, size := range []int{1, 3, 4, 11, 200} {
		if got := idsOf(all[Activation](s, "/v1/activations?", size, as("ann"))); !slices.Equal(got, ids) {
			t.Errorf("in pages of %d there are %q, want %q", size, got, ids)
		}
	}
	for query, want := range map[string][]string{
		"state=queued": ids[:1], "state=running": {ids[1], ids[2]}, "state=timed_out": {ids[3]}, "state=lost": nil,
		"function=other": {ids[5], ids[7], ids[9]}, "function=none": nil, "function=other&state=failed": nil,
		"function=tool&state=succeeded": {ids[4], ids[6], ids[8], ids[10]},
	} {
		if got := idsOf(all[Activation](s, "/v1/activations?"+query, 2, as("ann"))); !slices.Equal(got, want) {
			t.Errorf("with %s there are %q, want %q", query, got, want)
		}
	}
	first := decoded[ActivationPage](s.call(http.MethodGet, "/v1/activations?limit=5", as("ann")).is(http.StatusOK))
	s.accepted("x") // comes while somebody reads
	close(g.open)
	s.becomes(ids[0], "succeeded")
	rest := all[Activation](s, "/v1/activations?", 5, as("ann"))
	second := decoded[ActivationPage](s.call(http.MethodGet, "/v1/activations?cursor="+first.Next, as("ann")).is(http.StatusOK))
	if got := append(idsOf(first.Items), idsOf(second.Items)...); !slices.Equal(got, ids) || len(rest) != 12 || second.Next != "" {
		t.Errorf("pages that were read while one more came are %q, want %q", got, ids)
	}
}

// A cancelled activation ends, frees its slot, and may be cancelled again; one that has ended is answered as it is.
func TestActivations_Cancel(t *testing.T) {
	s := start(t).serve(t)
	g := newGate()
	w := s.worker(1, g.run)
	s.deploy("ann", "tool")
	waiting := s.background(http.MethodPost, "/v1/functions/tool/activations", as("ann"), body("x"))
	running := <-g.running
	queued := s.background(http.MethodPost, "/v1/functions/tool/activations", as("ann"), body("x"))
	var second string
	s.eventually("the second one is queued", func() bool {
		list := decoded[ActivationPage](s.call(http.MethodGet, "/v1/activations?state=queued", as("ann")).is(http.StatusOK)).Items
		if len(list) == 1 {
			second = list[0].ActivationID
		}
		// Its record is there before its message; one that is cancelled in between holds its slot until it is swept.
		return second != "" && s.usage().Active == 2
	})
	rec := decoded[Activation](s.call(http.MethodDelete, "/v1/activations/"+second, as("ann")).is(http.StatusOK).has("Location", ""))
	if rec.State != "cancelled" || rec.Reason != "cancelled" || rec.EndedAt == nil || rec.Attempt != 0 {
		t.Errorf("the queued one is %+v", rec)
	}
	if p := queued().problem(http.StatusBadGateway, "cancelled"); p.ActivationID != second || p.State != "cancelled" {
		t.Errorf("its caller gets %+v", p)
	}
	if u := s.usage(); u.Active != 1 {
		t.Errorf("%d are active, want the one that runs", u.Active)
	}
	path := "/v1/activations/" + running
	rec = decoded[Activation](s.call(http.MethodDelete, path, as("ann")).is(http.StatusAccepted).has("Location", path))
	if rec.State != "running" || !rec.CancelRequested || rec.Attempt != 1 || rec.Worker != "w1" || rec.StartedAt == nil {
		t.Errorf("the running one is %+v", rec)
	}
	if p := waiting().problem(http.StatusBadGateway, "cancelled"); p.ActivationID != running {
		t.Errorf("its caller gets %+v", p)
	}
	for range 2 {
		if rec := decoded[Activation](s.call(http.MethodDelete, path, as("ann")).is(http.StatusOK)); rec.State != "cancelled" {
			t.Errorf("cancelled again it is %s", rec.State)
		}
	}
	w.does(echo)
	ended := s.activate(body("x")).is(http.StatusOK).header.Get("Faena-Activation-Id")
	if rec := decoded[Activation](s.call(http.MethodDelete, "/v1/activations/"+ended, as("ann")).is(http.StatusOK)); rec.State != "succeeded" {
		t.Errorf("one that had ended is %s", rec.State)
	}
	s.eventually("no slot is held", func() bool { return s.usage().Active == 0 })
}

// What waits in the backlog is shown as waiting there, and once it is cancelled not any more.
func TestActivations_Cancel_Backlog(t *testing.T) {
	s := start(t).serve(t)
	id := letterIDs(1)[0]
	_, err := s.bus.CreateRecord(t.Context(), &faena.Record{Schema: faena.SchemaVersion, ID: id, User: "ann", Group: group, Function: "tool", Revision: 1,
		State: faena.StateQueued, Backlogged: true, StartWithinMS: time.Hour.Milliseconds(), AdmittedAt: time.Now().UTC()})
	noError(t, err)
	for _, c := range []struct {
		method, state string
		backlogged    bool
	}{{http.MethodGet, "queued", true}, {http.MethodDelete, "cancelled", false}, {http.MethodGet, "cancelled", false}} {
		rec := decoded[Activation](s.call(c.method, "/v1/activations/"+id, as("ann")).is(http.StatusOK))
		if string(rec.State) != c.state || rec.Backlogged != c.backlogged {
			t.Errorf("%s: it is %s, in the backlog: %v; want %+v", c.method, rec.State, rec.Backlogged, c)
		}
	}
}

// One that could not start by Faena-Expires, or for which there is no worker, is a 503: it was not run.
func TestActivations_NotStarted(t *testing.T) {
	s := start(t).serve(t)
	s.deploy("ann", "tool")
	began := time.Now()
	a := s.activate(body("x"))
	p := a.problem(http.StatusServiceUnavailable, "no_worker")
	if took := time.Since(began); took > 5*time.Second || !p.Retryable || p.ActivationID == "" || a.header.Get("Retry-After") == "" {
		t.Errorf("after %v comes %s", took, a.body)
	}
	s.becomes(p.ActivationID, "failed")
	if u := s.usage(); u.Active != 0 {
		t.Errorf("it holds a slot: %+v", u)
	}
	id := decoded[Accepted](s.activate(body("x"), header("Prefer", "respond-async"), header("Faena-Expires", "1")).is(http.StatusAccepted)).ActivationID
	rec, _, err := s.bus.Record(t.Context(), group, "ann", id)
	noError(t, err)
	if rec.StartWithinMS != 1000 {
		t.Errorf("it may start within %d ms, want 1000", rec.StartWithinMS)
	}
	s.call(http.MethodDelete, "/v1/activations/"+id, as("ann")).is(http.StatusOK)
	w := s.worker(1, func(*job) ([]byte, faena.Reason) { return nil, faena.ReasonExpired })
	a = s.activate(body("x"))
	if p := a.problem(http.StatusServiceUnavailable, "expired"); a.header.Get("Retry-After") == "" || p.State != "failed" {
		t.Errorf("one that expired is %s", a.body)
	}
	w.does(echo)
	s.activate(body("x")).is(http.StatusOK)
}
