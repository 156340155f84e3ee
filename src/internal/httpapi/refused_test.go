package httpapi

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// What cannot become a function's parameter is refused, and nothing is started or left of it.
func TestActivate_Refused(t *testing.T) {
	s := start(t).serve(t)
	s.worker(1, echo)
	s.deploy("ann", "tool", func(spec *faena.Spec) { spec.Input = faena.InputArg })
	s.deploy("ann", "both", func(spec *faena.Spec) { spec.Input = faena.InputBoth })
	s.deploy("ann", "stdin")
	long, large := strings.Repeat("a", faena.MaxArgBytes+1), strings.Repeat("a", faena.DefaultMaxParameterBytes+1)
	for _, c := range []struct {
		name, function string
		with           []option
		status         int
		reason, field  string
		says           string
	}{
		{"unknown function", "missing", nil, 404, "function_not_found", "", "missing"},
		{"no name of a function", "No%20Name", nil, 404, "function_not_found", "", ""},
		{"longer than an argument", "tool", []option{body(long)}, 413, "parameter_too_large", "", "131071"},
		{"longer than an argument, in chunks", "tool", []option{chunked(long)}, 413, "parameter_too_large", "", "input: stdin"},
		{"longer than an argument, both", "both", []option{body(long)}, 413, "parameter_too_large", "", "131071"},
		{"a NUL", "tool", []option{body("ab\x00c")}, 422, "invalid", "parameter", "position 2"},
		{"a NUL, both", "both", []option{body("\x00")}, 422, "invalid", "parameter", "position 0"},
		{"over the limit of all", "stdin", []option{body(large)}, 413, "parameter_too_large", "", "6291456"},
		{"over the limit of all, in chunks", "stdin", []option{chunked(large)}, 413, "parameter_too_large", "", "6291456"},
		{"expires at once", "stdin", []option{header("Faena-Expires", "0")}, 422, "invalid", "Faena-Expires", "from 1 to 604800"},
		{"expires in more than a week", "stdin", []option{header("Faena-Expires", "604801")}, 422, "invalid", "Faena-Expires", "from 1 to 604800"},
		{"expires some time", "stdin", []option{header("Faena-Expires", "soon")}, 400, "malformed", "Faena-Expires", "Faena-Expires"},
		{"expires twice", "stdin", []option{header("Faena-Expires", "1"), header("Faena-Expires", "2")}, 400, "malformed", "Faena-Expires", "more than once"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.in(t).call(http.MethodPost, "/v1/functions/"+c.function+"/activations", append(c.with, as("ann"))...)
			p := a.problem(c.status, c.reason)
			if c.field != "" {
				p.names(t, c.field)
			}
			if !strings.Contains(p.Detail, c.says) || p.Retryable || p.Component != ComponentCaller || p.ActivationID != "" {
				t.Errorf("it does not say %q, or is not the caller's: %s", c.says, a.body)
			}
		})
	}
	if list := decoded[ActivationPage](s.call(http.MethodGet, "/v1/activations", as("ann")).is(http.StatusOK)); len(list.Items) > 0 {
		t.Errorf("there are activations: %+v", list.Items)
	}
	if u := s.usage(); u.Active+u.Completed+u.Failed != 0 {
		t.Errorf("the usage is %+v", u)
	}
	for function, parameter := range map[string]string{"tool": long[1:], "both": long[1:], "stdin": "\x00" + long} {
		a := s.call(http.MethodPost, "/v1/functions/"+function+"/activations", as("ann"), body(parameter)).is(http.StatusOK)
		if string(a.body) != parameter {
			t.Errorf("%s gives %d other bytes", function, len(a.body))
		}
	}
}

// A query, header or path that cannot be read is a 400, one that breaks a rule a 422; both name it.
func TestParameters_Refused(t *testing.T) {
	s := start(t).serve(t)
	s.deploy("ann", "tool")
	none := "0198c5a1-7f0e-7cc3-98c4-dc0c0c07398f"
	for _, c := range []struct {
		method, path  string
		with          []option
		status        int
		reason, field string
	}{
		{"GET", "/v1/functions?limit=0", nil, 422, "invalid", "limit"},
		{"GET", "/v1/functions?limit=201", nil, 422, "invalid", "limit"},
		{"GET", "/v1/functions?limit=-1", nil, 422, "invalid", "limit"},
		{"GET", "/v1/functions?limit=many", nil, 400, "malformed", "limit"},
		{"GET", "/v1/functions?limit=99999999999999999999", nil, 400, "malformed", "limit"},
		{"GET", "/v1/functions?limit=5&limit=6", nil, 400, "malformed", "limit"},
		{"GET", "/v1/functions?cursor=abc", nil, 400, "malformed", ""},
		{"GET", "/v1/functions?cursor=!", nil, 400, "malformed", ""},
		{"GET", "/v1/functions?cursor=" + cursor("Not A Name"), nil, 400, "malformed", ""},
		{"GET", "/v1/functions/tool/revisions?cursor=" + cursor("-1"), nil, 400, "malformed", ""},
		{"GET", "/v1/functions/tool/revisions?cursor=" + cursor("tool"), nil, 400, "malformed", ""},
		{"GET", "/v1/activations?cursor=" + cursor("tool"), nil, 400, "malformed", ""},
		{"GET", "/v1/activations?state=done", nil, 422, "invalid", "state"},
		{"GET", "/v1/activations/" + none + "/logs?follow=maybe", nil, 422, "invalid", "follow"},
		{"GET", "/v1/activations/" + none + "/logs?follow", []option{header("Last-Event-ID", "-1")}, 422, "invalid", "Last-Event-ID"},
		{"GET", "/v1/activations/" + none + "/logs?follow", []option{header("Last-Event-ID", "x")}, 400, "malformed", "Last-Event-ID"},
		{"PUT", "/v1/functions/tool", []option{s.put(""), header("If-None-Match", `"x"`)}, 422, "invalid", "If-None-Match"},
		{"PUT", "/v1/functions/tool", []option{s.put(""), header("If-Match", `"a"`), header("If-Match", `"b"`)}, 400, "malformed", "If-Match"},
		{"POST", "/v1/functions/tool/rollback", []option{body(`{"revision":-1}`)}, 422, "invalid", "revision"},
		{"POST", "/v1/functions/tool/rollback", []option{body(`{"to":1}`)}, 422, "invalid", "to"},
		{"POST", "/v1/functions/tool/rollback", []option{body(`{"revision"`)}, 400, "malformed", ""},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			p := s.in(t).call(c.method, c.path, append(c.with, as("ann"))...).problem(c.status, c.reason)
			if c.field != "" {
				p.names(t, c.field)
			}
		})
	}
}

// A path that is none of ours is a 404, a method that a path does not have a 405 that names those it has. Nobody is
// redirected: a path is taken as it came.
func TestRoutes_NoneOfOurs(t *testing.T) {
	s := start(t).serve(t)
	s.deploy("ann", "tool")
	for _, path := range []string{"/", "/v1", "/v1/", "/v2/functions", "/v1/functions/", "//v1/functions", "/v1//functions", "/v1/functions/tool/",
		"/v1/functions/../functions", "/v1/./functions", "/V1/functions", "/v1/functions/tool/activations/x", "/metrics", "/v1/functions;x"} {
		t.Run(path, func(t *testing.T) {
			p := s.in(t).call(http.MethodGet, path, as("ann")).problem(http.StatusNotFound, "no_route")
			if p.Component != ComponentCaller || p.Retryable {
				t.Errorf("component %s, retryable %v", p.Component, p.Retryable)
			}
		})
	}
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/v1/functions", "GET, HEAD"},
		{"PATCH", "/v1/functions/tool", "GET, HEAD, PUT, DELETE"},
		{"OPTIONS", "/v1/functions/tool", "GET, HEAD, PUT, DELETE"},
		{"GET", "/v1/functions/tool/activations", "POST"},
		{"HEAD", "/v1/functions/tool/rollback", "POST"},
		{"TRACE", "/healthz", "GET, HEAD"},
		{"DELETE", "/v1/activations/x/result", "GET, HEAD"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			a := s.in(t).call(c.method, c.path, as("ann")).is(http.StatusMethodNotAllowed).has("Allow", c.allow)
			if c.method != http.MethodHead {
				a.problem(http.StatusMethodNotAllowed, "method_not_allowed")
			}
		})
	}
}

// HEAD is GET without the body, with the same headers.
func TestRoutes_Head(t *testing.T) {
	s := start(t).serve(t)
	s.worker(1, echo)
	s.deploy("ann", "tool")
	id := s.activate(body("twelve bytes")).is(http.StatusOK).header.Get("Faena-Activation-Id")
	s.becomes(id, "succeeded")
	for _, path := range []string{"/healthz", "/v1/openapi.yaml", "/v1/functions", "/v1/functions/tool", "/v1/functions/none", "/v1/activations/" + id,
		"/v1/activations/" + id + "/result", "/v1/activations/" + id + "/logs", "/v1/activations/" + id + "/logs?follow", "/v1/none"} {
		t.Run(path, func(t *testing.T) {
			s := s.in(t)
			get, head := s.call(http.MethodGet, path, as("ann")), s.call(http.MethodHead, path, as("ann"))
			if len(head.body) > 0 || len(get.body) == 0 && !strings.HasSuffix(path, "/logs") {
				t.Errorf("HEAD has %d bytes of body, GET %d", len(head.body), len(get.body))
			}
			head.is(get.status)
			for _, name := range []string{"Content-Type", "Content-Length", "ETag", "Faena-State", "Faena-Activation-Id", "Faena-Duration"} {
				head.has(name, get.header.Get(name))
			}
		})
	}
}

// At the limit a call is refused at once with when to come again, and holds nothing.
func TestActivate_AtTheLimit(t *testing.T) {
	s := start(t).serve(t)
	g := newGate()
	s.worker(4, g.run)
	s.user("ann", faena.RoleUser, 2)
	s.deploy("ann", "tool")
	s.deploy("bob", "tool")
	first := s.background(http.MethodPost, "/v1/functions/tool/activations", as("ann"), body("1"))
	second := s.background(http.MethodPost, "/v1/functions/tool/activations", as("ann"), body("2"))
	<-g.running
	<-g.running
	for _, with := range []option{header("Prefer", "respond-async"), header("Prefer", "wait=1")} {
		a := s.activate(with, body("3"))
		p := a.problem(http.StatusTooManyRequests, "limit_reached")
		if after := a.header.Get("Retry-After"); after == "" || after == "0" || !p.Retryable || p.ActivationID != "" {
			t.Errorf("Retry-After is %q: %s", after, a.body)
		}
	}
	if u := s.usage(); u.Active != 2 || u.Limit != 2 {
		t.Errorf("the usage is %+v, want 2 active of 2", u)
	}
	others := s.background(http.MethodPost, "/v1/functions/tool/activations", as("bob"), body("bob's"))
	close(g.open)
	for _, answer := range []func() reply{first, second, others} {
		answer().is(http.StatusOK)
	}
	s.activate(body("4")).is(http.StatusOK)
	if list := decoded[ActivationPage](s.call(http.MethodGet, "/v1/activations", as("ann")).is(http.StatusOK)); len(list.Items) != 3 {
		t.Errorf("there are %d activations, want the 3 that were accepted", len(list.Items))
	}
}

// Without its queue the API answers within 5 s that the call may be made again, and says at /readyz what is missing.
func TestActivate_WithoutTheQueue(t *testing.T) {
	s := start(t).serve(t)
	s.deploy("ann", "tool")
	s.call(http.MethodGet, "/v1/functions", as("ann")).is(http.StatusOK)
	s.nats.Shutdown()
	for name, with := range map[string]option{"waits": header("Prefer", "wait=5"), "asynchronous": header("Prefer", "respond-async")} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			a := s.in(t).activate(with, body("x"), until(ctx))
			p := a.problem(http.StatusServiceUnavailable, "queue_unavailable")
			if !p.Retryable || p.OutcomeUnknown || p.Component != ComponentQueue || a.header.Get("Retry-After") == "" {
				t.Errorf("Retry-After is %q: %s", a.header.Get("Retry-After"), a.body)
			}
		})
	}
	s.call(http.MethodGet, "/v1/activations", as("ann")).problem(http.StatusServiceUnavailable, "queue_unavailable")
	s.call(http.MethodGet, "/v1/functions/tool", as("ann")).is(http.StatusOK) // the documents are there
	p := s.call(http.MethodGet, "/readyz").problem(http.StatusServiceUnavailable, "not_ready")
	if !strings.Contains(strings.Join(p.Missing, "\n"), "NATS") || !p.Retryable {
		t.Errorf("missing are %q", p.Missing)
	}
	s.call(http.MethodGet, "/healthz").is(http.StatusOK)
}

// resultAway has an activation that has succeeded, and whose result cannot be read now.
type resultAway struct{ useCases }

const endedID = "0198c5a1-7f0e-7cc3-98c4-dc0c0c07398f"

func (resultAway) Activate(context.Context, faena.ActivationRequest) (faena.Record, error) {
	return faena.Record{ID: endedID, User: "ann", State: faena.StateSucceeded, Result: faena.Blob{Size: 300 << 10, Object: "out." + endedID + ".1"}}, nil
}

func (resultAway) ResultOf(context.Context, *faena.Record) ([]byte, error) {
	return nil, faena.Unavailable(faena.ComponentQueue, "queue_unavailable", "The queue is away.", nil)
}

// What was run is never answered as if nothing had been accepted: its result is there later.
func TestActivate_ResultAway(t *testing.T) {
	s := start(t).serve(t, func(s *site) { s.api.o.Activations = resultAway{s.api.o.Activations} })
	for _, accept := range []string{"*/*", "application/json"} {
		a := s.activate(body("x"), header("Accept", accept)).is(http.StatusAccepted)
		says := decoded[Accepted](a)
		if says.ActivationID != endedID || says.State != StateSucceeded || a.header.Get("Location") != "/v1/activations/"+endedID {
			t.Errorf("with %s it answers %+v, Location %q", accept, says, a.header.Get("Location"))
		}
	}
}
