package httpapi

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"faena.dev/faena/internal/faena"
)

const replay = "Faena-Idempotent-Replay"

// The same call with the same key gives the same activation, in the same form, also from history; with other things it is refused.
func TestActivate_IdempotencyKey(t *testing.T) {
	s := start(t).serve(t)
	w := s.worker(2, echo)
	s.deploy("ann", "tool")
	s.deploy("ann", "other")
	s.deploy("bob", "tool")
	key := func(k string) option { return header("Idempotency-Key", k) }
	first := s.activate(body("x"), key("k")).is(http.StatusOK).has(replay, "")
	id := first.header.Get("Faena-Activation-Id")
	again := s.activate(body("x"), key("k")).is(http.StatusOK).has(replay, "true").has("Faena-Activation-Id", id)
	if string(again.body) != "x" {
		t.Errorf("the replay answers %q", again.body)
	}
	s.becomes(id, "succeeded")
	s.activate(body("x"), key("k")).is(http.StatusOK).has(replay, "true").has("Faena-Activation-Id", id)
	if rec := decoded[Activation](s.activate(body("x"), key("k"), header("Accept", "application/json")).is(http.StatusOK)); rec.ActivationID != id || rec.Result.Text != "x" {
		t.Errorf("the replay's record is %+v", rec)
	}
	s.activate(body("x"), key("k"), header("Prefer", "respond-async")).is(http.StatusAccepted).has(replay, "true").has("Location", "/v1/activations/"+id)

	for name, call := range map[string]func() reply{
		"another parameter": func() reply { return s.activate(body("y"), key("k")) },
		"another function": func() reply {
			return s.call(http.MethodPost, "/v1/functions/other/activations", as("ann"), body("x"), key("k"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := call().has(replay, "")
			if p := a.problem(http.StatusUnprocessableEntity, "idempotency_mismatch"); p.Retryable || p.ActivationID != id || len(p.Errors) != 1 || p.Errors[0].Field != "Idempotency-Key" {
				t.Errorf("the problem is %+v", p)
			}
		})
	}
	if a := s.call(http.MethodPost, "/v1/functions/tool/activations", as("bob"), body("x"), key("k")).is(http.StatusOK).has(replay, ""); a.header.Get("Faena-Activation-Id") == id {
		t.Error("bob's key is ann's")
	}
	t.Run("asynchronous first", func(t *testing.T) {
		s := s.in(t)
		made := s.activate(body("x"), key("a"), header("Prefer", "respond-async")).is(http.StatusAccepted).has(replay, "")
		s.activate(body("x"), key("a"), header("Prefer", "respond-async")).is(http.StatusAccepted).has(replay, "true").has("Location", made.header.Get("Location"))
		s.activate(body("x"), key("a")).is(http.StatusOK).has(replay, "true").has("Faena-Activation-Id", made.header.Get("Faena-Activation-Id"))
	})
	t.Run("a function that failed", func(t *testing.T) {
		s := s.in(t)
		w.does(func(*job) ([]byte, faena.Reason) { return nil, faena.ReasonExitNonzero })
		failed := s.activate(body("x"), key("f"))
		failed.problem(http.StatusBadGateway, "exit_nonzero")
		w.does(echo)
		s.activate(body("x"), key("f")).has(replay, "true").has("Faena-Activation-Id", failed.header.Get("Faena-Activation-Id")).problem(http.StatusBadGateway, "exit_nonzero")
	})
}

// A key is 1 to 255 printable ASCII characters.
func TestActivate_IdempotencyKey_Malformed(t *testing.T) {
	s := start(t).serve(t)
	s.worker(1, echo)
	s.deploy("ann", "tool")
	for name, c := range map[string]struct {
		keys []string
		good bool
	}{
		"one character": {[]string{"k"}, true}, "all that is printable": {[]string{"a !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~z"}, true},
		"255 characters": {[]string{strings.Repeat("k", 255)}, true},
		"empty":          {[]string{""}, false}, "256 characters": {[]string{strings.Repeat("k", 256)}, false},
		"not ASCII": {[]string{"clé"}, false}, "a tab": {[]string{"a\tb"}, false}, "two": {[]string{"a", "b"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.in(t).activate(body("x"), func(r *http.Request) { r.Header["Idempotency-Key"] = c.keys })
			if c.good {
				a.is(http.StatusOK)
				return
			}
			a.problem(http.StatusBadRequest, "malformed").names(t, "Idempotency-Key")
		})
	}
}

// A call that is refused does not use its key up.
func TestActivate_IdempotencyKey_Refused(t *testing.T) {
	s := start(t).serve(t)
	s.user("ann", faena.RoleUser, 1)
	s.deploy("ann", "tool", func(spec *faena.Spec) { spec.Input = faena.InputArg })
	g := newGate()
	w := s.worker(1, g.run)
	s.activate(body("busy"), header("Prefer", "respond-async")).is(http.StatusAccepted)
	<-g.running
	key := header("Idempotency-Key", "k")
	s.activate(body("a\x00b"), key).problem(http.StatusUnprocessableEntity, "invalid")
	s.activate(body("x"), key).problem(http.StatusTooManyRequests, "limit_reached")
	s.call(http.MethodPost, "/v1/functions/none/activations", as("ann"), body("x"), key).problem(http.StatusNotFound, "function_not_found")
	close(g.open)
	w.does(echo)
	s.eventually("there is room", func() bool { return s.usage().Active == 0 })
	s.activate(body("y"), key).is(http.StatusOK).has(replay, "")
}

// However many calls come at once with a key, at whichever instance, the function runs once.
func TestActivate_IdempotencyKey_AtOnce(t *testing.T) {
	p := start(t)
	s := p.serve(t)
	s.worker(4, func(j *job) ([]byte, faena.Reason) { return []byte(j.record.ID), "" })
	s.deploy("ann", "tool")
	const calls = 50
	var wg sync.WaitGroup
	answers := make([]reply, calls)
	for i := range calls {
		with := []option{as("ann"), body("x"), header("Idempotency-Key", "k")}
		if i%3 == 0 {
			with = append(with, header("Prefer", "respond-async"))
		}
		answer := s.background(http.MethodPost, "/v1/functions/tool/activations", with...)
		wg.Go(func() { answers[i] = answer() })
	}
	wg.Wait()
	for i := range answers { // a busy machine may want them again
		for answers[i].status == http.StatusServiceUnavailable || answers[i].status == http.StatusConflict {
			answers[i] = s.activate(body("x"), header("Idempotency-Key", "k"))
		}
	}
	made, id := 0, answers[0].header.Get("Faena-Activation-Id")
	for i, a := range answers {
		if a.status != http.StatusOK && a.status != http.StatusAccepted || a.header.Get("Faena-Activation-Id") != id {
			t.Errorf("call %d is answered %d with %s, not %s: %s", i, a.status, a.header.Get("Faena-Activation-Id"), id, a.body)
		}
		if a.status == http.StatusOK && string(a.body) != id {
			t.Errorf("call %d gives %q", i, a.body)
		}
		if a.header.Get(replay) == "" {
			made++
		}
	}
	if made > 1 { // who made it may not have been told
		t.Errorf("%d calls say that they made it", made)
	}
	s.becomes(id, "succeeded")
	s.eventually("it is counted", func() bool { return s.usage().Completed > 0 })
	if u := s.usage(); u.Completed != 1 || u.Active != 0 {
		t.Errorf("the usage is %+v", u)
	}
}
