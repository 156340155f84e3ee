package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"faena.dev/faena/internal/faena"
)

// activate calls ann's function tool.
func (s *site) activate(with ...option) reply {
	s.t.Helper()
	return s.call(http.MethodPost, "/v1/functions/tool/activations", append([]option{as("ann")}, with...)...)
}

// usage is what ann has active and has had.
func (s *site) usage() Usage {
	s.t.Helper()
	return decoded[Usage](s.call(http.MethodGet, "/v1/users/ann/usage", as("ann")).is(http.StatusOK))
}

// Bytes out are bytes in, on both sides of every limit.
func TestActivate_BytesAreKept(t *testing.T) {
	s := start(t).serve(t)
	s.worker(1, echo)
	s.deploy("ann", "tool")
	piece := "\x00\xff\r\n"
	for i, size := range []int{0, 1, faena.MaxInlineBytes, faena.MaxInlineBytes + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, faena.DefaultMaxParameterBytes} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			parameter := strings.Repeat(piece, size/len(piece)+1)[:size]
			sent := body(parameter)
			if i%2 == 1 {
				sent = chunked(parameter) // its length is not said in advance
			}
			a := s.in(t).activate(sent).is(http.StatusOK).has("Content-Type", "application/octet-stream").
				has("Content-Length", fmt.Sprint(size)).has("Faena-Duration", "1.234").has("Faena-Warm", "true")
			if sha256.Sum256(a.body) != sha256.Sum256([]byte(parameter)) {
				t.Errorf("%d other bytes came back", len(a.body))
			}
			again := s.in(t).call(http.MethodGet, "/v1/activations/"+a.header.Get("Faena-Activation-Id")+"/result", as("ann")).is(http.StatusOK)
			if !bytes.Equal(again.has("Faena-State", "succeeded").body, a.body) {
				t.Error("the result that is read later differs")
			}
		})
	}
}

// What a call asks for in Accept decides whether it gets the bytes or the record.
func TestActivate_Negotiation(t *testing.T) {
	s := start(t).serve(t)
	s.worker(1, func(j *job) ([]byte, faena.Reason) {
		j.say("log of " + string(j.parameter))
		return j.parameter, ""
	})
	s.deploy("ann", "tool")
	for _, c := range []struct {
		accept []string
		record bool
	}{
		{nil, false}, {[]string{"*/*"}, false}, {[]string{"application/octet-stream"}, false}, {[]string{"text/html"}, false},
		{[]string{"application/json"}, true}, {[]string{"Application/JSON; q=0.5"}, true}, {[]string{"text/html, application/json"}, true},
		{[]string{"application/json;q=0"}, false}, {[]string{"application/json;q=0.4, application/octet-stream;q=0.5"}, false},
		{[]string{"application/octet-stream", "application/json"}, true}, {[]string{"application/json;q=high"}, false}, {[]string{""}, false},
	} {
		t.Run(strings.Join(c.accept, "|"), func(t *testing.T) {
			with := []option{body("x")}
			for _, line := range c.accept {
				with = append(with, header("Accept", line))
			}
			a := s.in(t).activate(with...).is(http.StatusOK)
			if !c.record {
				if a.has("Content-Type", "application/octet-stream"); string(a.body) != "x" {
					t.Errorf("the bytes are %q", a.body)
				}
				return
			}
			rec := decoded[Activation](a.has("Content-Type", "application/json"))
			if rec.Result.Text != "x" || rec.Result.Size != 1 || rec.Log.Text != "log of x" || rec.State != "succeeded" || rec.Timings.RunUs != 1234 {
				t.Errorf("the record is %+v", rec)
			}
		})
	}
	t.Run("not UTF-8", func(t *testing.T) {
		rec := decoded[Activation](s.in(t).activate(body("\xff\x00"), header("Accept", "application/json")).is(http.StatusOK))
		if rec.Result.Text != "" || base64.StdEncoding.EncodeToString(rec.Result.Base64) != "/wA=" || rec.Result.Size != 2 {
			t.Errorf("the result is %+v", rec.Result)
		}
	})
}

// A function that failed is a 502 that says why, with the end of its log, and the next call is not affected.
func TestActivate_Failed(t *testing.T) {
	s := start(t).serve(t)
	w := s.worker(1, echo)
	s.deploy("ann", "tool")
	log := strings.Repeat("a line of the log\n", 1000) + "the end \xff\n"
	for _, reason := range []faena.Reason{faena.ReasonExitNonzero, faena.ReasonKilledBySignal, faena.ReasonOOMKilled, faena.ReasonTimeout,
		faena.ReasonResultTooLarge, faena.ReasonImageNotFound, faena.ReasonStartFailed, faena.ReasonWorkerLost, faena.ReasonExecFormat} {
		t.Run(string(reason), func(t *testing.T) {
			w.does(func(j *job) ([]byte, faena.Reason) {
				j.say(log)
				three := 3
				j.change = func(r *faena.Record) { r.ExitCode = &three }
				return []byte("half of it"), reason
			})
			s := s.in(t)
			a := s.activate(body("x"))
			p := a.problem(http.StatusBadGateway, string(reason))
			explained, _ := faena.Explain(reason)
			if p.Component != Component(explained.Component) || p.Retryable != explained.Retryable || p.ActivationID != a.header.Get("Faena-Activation-Id") {
				t.Errorf("component, retryable or activation_id is wrong: %s", a.body)
			}
			if p.ExitCode == nil || *p.ExitCode != 3 || !p.LogTruncated || !strings.HasSuffix(p.LogTail, "the end \uFFFD\n") || len(p.LogTail) > faena.LogTailBytes+3 {
				t.Errorf("exit code %v, log_truncated %v, %d bytes of log: %q", p.ExitCode, p.LogTruncated, len(p.LogTail), clip(p.LogTail))
			}
			if p.Activation != nil {
				t.Error("the record is there although nobody asked for it")
			}
			p = s.activate(body("x"), header("Accept", "application/json")).problem(http.StatusBadGateway, string(reason))
			if p.Activation == nil || p.Activation.Result.Text != "half of it" || p.Activation.Log.Size != int64(len(log)) {
				t.Errorf("the record is %+v", p.Activation)
			}
			w.does(echo)
			if next := s.activate(body("next")).is(http.StatusOK); string(next.body) != "next" {
				t.Errorf("the next call gives %q", next.body)
			}
		})
	}
	if u := s.usage(); u.Active != 0 {
		t.Errorf("%d are still active", u.Active)
	}
}

// respond-async is answered as soon as the activation is accepted, however the header is spelt.
func TestActivate_Async(t *testing.T) {
	s := start(t).serve(t)
	g := newGate()
	s.worker(1, g.run)
	s.deploy("ann", "tool")
	var ids []string
	for _, with := range [][]option{
		{header("Prefer", "respond-async")},
		{header("Prefer", "wait=5, Respond-Async")},
		{header("Prefer", "handling=lenient"), header("Prefer", "respond-async; foo=1")},
	} {
		a := s.activate(append(with, body("later"))...).is(http.StatusAccepted).has("Preference-Applied", "respond-async")
		accepted := decoded[Accepted](a)
		a.has("Location", "/v1/activations/"+accepted.ActivationID).has("Faena-Activation-Id", accepted.ActivationID)
		if accepted.Location != a.header.Get("Location") || accepted.State != "queued" {
			t.Errorf("the answer is %+v", accepted)
		}
		ids = append(ids, accepted.ActivationID)
	}
	if u := s.usage(); u.Active != 3 || u.Limit != 10 {
		t.Errorf("the usage is %+v, want 3 active of 10", u)
	}
	early := s.call(http.MethodGet, "/v1/activations/"+ids[0]+"/result", as("ann")).has("Retry-After", "1")
	if p := early.problem(http.StatusConflict, "not_ended"); !p.Retryable || p.ActivationID != ids[0] {
		t.Errorf("the result of one that runs is %s", early.body)
	}
	close(g.open)
	for _, id := range ids {
		s.becomes(id, "succeeded")
		if a := s.call(http.MethodGet, "/v1/activations/"+id+"/result", as("ann")).is(http.StatusOK); string(a.body) != "later" {
			t.Errorf("the result is %q", a.body)
		}
	}
}

// becomes waits until one of ann's activations is in a state.
func (s *site) becomes(id string, want State) (rec Activation) {
	s.t.Helper()
	s.eventually("activation "+id+" is "+string(want), func() bool {
		rec = decoded[Activation](s.call(http.MethodGet, "/v1/activations/"+id, as("ann")).is(http.StatusOK))
		return rec.State == want
	})
	return rec
}

// A call that waits when the instance stops is told where to look.
func TestActivate_BecomesAsynchronousWhenTheInstanceStops(t *testing.T) {
	s := start(t).serve(t)
	g := newGate()
	s.worker(1, g.run)
	s.deploy("ann", "tool")
	answer := s.background(http.MethodPost, "/v1/functions/tool/activations", as("ann"), body("x"))
	id := <-g.running
	s.Drain(t.Context())
	a := answer().is(http.StatusAccepted).has("Location", "/v1/activations/"+id).has("Preference-Applied", "")
	if got := decoded[Accepted](a); got.ActivationID != id {
		t.Errorf("the answer is %+v", got)
	}
	close(g.open)
	s.becomes(id, "succeeded")
}

// A caller that goes away changes nothing.
func TestActivate_CallerGoesAway(t *testing.T) {
	s := start(t).serve(t)
	g := newGate()
	s.worker(1, g.run)
	s.deploy("ann", "tool")
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	s.background(http.MethodPost, "/v1/functions/tool/activations", as("ann"), body("x"), until(ctx))
	id := <-g.running
	leave()
	s.eventually("the call is over for the API", func() bool {
		return s.observer.count(request{http.MethodPost, "/v1/functions/{name}/activations", http.StatusServiceUnavailable}) == 1
	})
	if u := s.usage(); u.Active != 1 {
		t.Errorf("%d are active, want 1: it holds its slot", u.Active)
	}
	close(g.open)
	s.becomes(id, "succeeded")
	s.eventually("the slot is free", func() bool { return s.usage().Active == 0 })
}
