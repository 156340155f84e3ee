package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"faena.dev/faena/internal/faena"
)

// An id that the caller gives is kept where it is safe, and is in the answer, the record and the log.
func TestCalls_RequestID(t *testing.T) {
	s := start(t).serve(t)
	s.worker(1, echo)
	s.deploy("ann", "tool")
	for name, c := range map[string]struct {
		given string
		kept  bool
	}{
		"a word": {"order-4711", true}, "all that is allowed": {"aZ09-._:/+=@", true}, "128 bytes": {strings.Repeat("a", 128), true},
		"none": {"", false}, "129 bytes": {strings.Repeat("a", 129), false}, "a space": {"a b", false}, "a quote": {`a"b`, false},
		"not ASCII": {"café", false}, "a tab": {"a\tb", false}, "an angle bracket": {"a<b", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			a := s.activate(header("X-Request-Id", c.given), header("Accept", "application/json")).is(http.StatusOK)
			id := a.header.Get("X-Request-Id")
			if (id == c.given) != c.kept || id == "" || len(id) > 128 {
				t.Errorf("%q becomes %q, kept is to be %v", c.given, id, c.kept)
			}
			if rec := decoded[Activation](a); rec.RequestID != id {
				t.Errorf("the record has the request id %q, want %q", rec.RequestID, id)
			}
			if len(s.logged("request_id", id)) == 0 {
				t.Errorf("no line of the log has the request id %q", id)
			}
			s.call(http.MethodGet, "/v1/none", header("X-Request-Id", c.given)).problem(http.StatusNotFound, "no_route") // checks its request_id
		})
	}
	if a, b := s.call(http.MethodGet, "/healthz"), s.call(http.MethodGet, "/healthz"); a.header.Get("X-Request-Id") == b.header.Get("X-Request-Id") {
		t.Error("two calls have the same id")
	}
}

// logged are the lines of the log that have an attribute.
func (p *platform) logged(key, value string) (lines []string) {
	for line := range strings.Lines(p.log.String()) {
		var attrs map[string]any
		if json.Unmarshal([]byte(line), &attrs) == nil && attrs[key] == value {
			lines = append(lines, line)
		}
	}
	return lines
}

// Who failed to log in, and who changed what, is in the log at its default level; who looked is not.
func TestCalls_WhatAnOperatorAsksFor(t *testing.T) {
	s := start(t).serve(t)
	for id, c := range map[string]struct {
		method, path string
		with         []option
		want         []string // nothing: no line at that level
	}{
		"a-change":   {http.MethodPut, "/v1/users/eve", []option{as("root"), body(`{"role":"user"}`)}, []string{"/v1/users/eve", `"user":"root"`, `"status":201`}},
		"a-refusal":  {http.MethodDelete, "/v1/users/bob", []option{as("ann")}, []string{"/v1/users/bob", `"user":"ann"`, `"status":403`}},
		"a-failure":  {http.MethodGet, "/v1/functions", []option{header("Authorization", "Basic eDp5")}, []string{`"status":401`, `"user":"x"`, `"from":"127.0.0.1:`}},
		"a-stranger": {http.MethodDelete, "/v1/functions/f", []option{func(r *http.Request) { r.Header.Del("Authorization") }}, nil},
		"a-function": {http.MethodDelete, "/v1/functions/activations", []option{as("ann")}, []string{`"user":"ann"`, `"status":404`}},
		"a-look":     {http.MethodGet, "/v1/functions", []option{as("ann")}, nil},
	} {
		s.call(c.method, c.path, append(c.with, header("X-Request-Id", id))...)
		lines := ""
		for _, line := range s.logged("request_id", id) {
			if strings.Contains(line, `"level":"INFO"`) {
				lines += line
			}
		}
		if (lines == "") != (len(c.want) == 0) {
			t.Errorf("%s: at the default level are %q", id, lines)
		}
		for _, want := range c.want {
			if !strings.Contains(lines, want) {
				t.Errorf("%s: %s is not in %q", id, want, lines)
			}
		}
	}
}

// A valid trace context is kept, and is in the record that the worker hands to the function, and in the log.
func TestCalls_Traceparent(t *testing.T) {
	s := start(t).serve(t)
	given := make(chan string, 100)
	s.worker(1, func(j *job) ([]byte, faena.Reason) {
		given <- j.record.Traceparent
		return nil, ""
	})
	s.deploy("ann", "tool")
	const trace, valid = "4bf92f3577b34da6a3ce929d0e0e4736", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for name, c := range map[string]struct {
		given []string
		kept  bool
	}{
		"valid": {[]string{valid}, true}, "a later version": {[]string{"cc" + valid[2:] + "-more"}, true},
		"none": {nil, false}, "empty": {[]string{""}, false}, "two": {[]string{valid, valid}, false}, "upper case": {[]string{strings.ToUpper(valid)}, false},
		"too short": {[]string{valid[:54]}, false}, "too long for its version": {[]string{valid + "-more"}, false},
		"version ff": {[]string{"ff" + valid[2:]}, false}, "no trace": {[]string{"00-" + strings.Repeat("0", 32) + valid[35:]}, false},
		"no span": {[]string{valid[:36] + strings.Repeat("0", 16) + "-01"}, false}, "no digits": {[]string{valid[:34] + "g" + valid[35:]}, false},
		"over 512 bytes": {[]string{"cc" + valid[2:] + "-" + strings.Repeat("a", 512)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			before := len(s.logged("trace_id", trace))
			with := []option{header("Accept", "application/json")}
			for _, line := range c.given {
				with = append(with, header("Traceparent", line))
			}
			rec := decoded[Activation](s.activate(with...).is(http.StatusOK))
			if kept := strings.Contains(rec.Traceparent, trace); kept != c.kept || !validTraceparent(rec.Traceparent) || kept && rec.Traceparent != c.given[0][:55] {
				t.Errorf("%q becomes %q, kept is to be %v", c.given, rec.Traceparent, c.kept)
			}
			if got := <-given; got != rec.Traceparent {
				t.Errorf("the worker got %q, the record has %q", got, rec.Traceparent)
			}
			if logged := len(s.logged("trace_id", trace)) > before; logged != c.kept || len(s.logged("trace_id", rec.Traceparent[3:35])) == 0 {
				t.Errorf("the trace of the caller is logged: %v, want %v", logged, c.kept)
			}
		})
	}
}

// useCases are activations under a name that is no method of theirs, so that they can be embedded.
type useCases = Activations

// broken are activations of which some calls fail in ways that nobody foresaw.
type broken struct{ useCases }

func (broken) Activation(context.Context, string, string) (faena.Record, error) {
	panic("a secret of the process")
}

func (broken) Logs(context.Context, string, string) (faena.Record, []byte, error) {
	return faena.Record{}, nil, errors.New("a secret of the process")
}

func (broken) Result(context.Context, string, string) (faena.Record, []byte, error) {
	return faena.Record{}, nil, &faena.Error{Kind: "a kind that is new", Reason: "new", Message: "It is new.", Err: errors.New("a secret of the process")}
}

// cutOff are activations whose logs end with a panic after their first piece.
type cutOff struct{ useCases }

func (cutOff) FollowLogs(_ context.Context, _, _ string, fn func(int64, []byte) error) (faena.Record, error) {
	if err := fn(0, []byte("first")); err != nil {
		return faena.Record{}, err
	}
	panic("a secret of the process")
}

// newer are activations that a newer version has written.
type newer struct{ useCases }

func (newer) Activation(context.Context, string, string) (faena.Record, error) {
	return faena.Record{}, fmt.Errorf("decode ann/f: %w", faena.ErrSchema)
}

// What another version has written is there, and will be read after the upgrade.
func TestCalls_OfAnotherVersion(t *testing.T) {
	s := start(t).serve(t, func(s *site) { s.api.o.Activations = newer{s.api.o.Activations} })
	p := s.call(http.MethodGet, "/v1/activations/0198c5a1-7f0e-7cc3-98c4-dc0c0c07398f", as("ann")).problem(http.StatusServiceUnavailable, "schema_unknown")
	if !p.Retryable || p.Component != ComponentStore {
		t.Errorf("it is not retryable, or not the store's: %+v", p)
	}
}

// What nobody foresaw is a 500 that tells nothing but where to look, and the next call is answered.
func TestCalls_Unforeseen(t *testing.T) {
	s := start(t).serve(t, func(s *site) { s.api.o.Activations = broken{s.api.o.Activations} })
	const id = "0198c5a1-7f0e-7cc3-98c4-dc0c0c07398f"
	for name, path := range map[string]string{"a panic": "", "an error": "/logs", "an error of no known kind": "/result"} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			trace := strings.Repeat("a", 30) + fmt.Sprintf("%02d", len(path))
			a := s.call(http.MethodGet, "/v1/activations/"+id+path, as("ann"), header("Traceparent", "00-"+trace+"-00f067aa0ba902b7-01"))
			p := a.problem(http.StatusInternalServerError, "internal")
			if strings.Contains(string(a.body), "secret") || p.Retryable || p.Component != ComponentAPI {
				t.Errorf("it tells too much, or is retryable, or not the API's: %s", a.body)
			}
			lines := s.logged("request_id", p.RequestID)
			if len(lines) != 2 || !strings.Contains(lines[0], "a secret of the process") || !slices.Equal(lines, s.logged("trace_id", trace)) {
				t.Errorf("the log does not tell the cause under request id and trace: %q", lines)
			}
			s.call(http.MethodGet, "/v1/functions", as("ann")).is(http.StatusOK)
		})
	}
}

// An answer that has begun and cannot be completed is cut off, so that nobody takes it for whole.
func TestCalls_CutOff(t *testing.T) {
	s := start(t).serve(t, func(s *site) { s.api.o.Activations = cutOff{s.api.o.Activations} })
	s.deploy("ann", "tool")
	id := s.accepted("x")
	st := s.follow(id)
	st.reads(0, "first")
	if e, err := st.next(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after the panic comes %+v, %v; want a broken connection", e, err)
	}
	s.call(http.MethodGet, "/healthz").is(http.StatusOK)
}

// No parameter, result, log, password or header value is ever logged.
func TestCalls_NothingSecretIsLogged(t *testing.T) {
	s := start(t).serve(t)
	w := s.worker(1, func(j *job) ([]byte, faena.Reason) {
		j.say("secret-log")
		return []byte("secret-result"), ""
	})
	s.deploy("ann", "tool", func(spec *faena.Spec) { spec.Env = map[string]string{"TOKEN": "secret-env"} })
	s.activate(body("secret-parameter"), header("X-Api-Key", "secret-header")).is(http.StatusOK)
	w.does(func(j *job) ([]byte, faena.Reason) {
		j.say("secret-log")
		return nil, faena.ReasonTimeout
	})
	s.activate(body("secret-parameter")).is(http.StatusBadGateway)
	s.call(http.MethodPut, "/v1/functions/tool", as("ann"), s.put(`"secret-field":"secret-value"`)).is(http.StatusUnprocessableEntity)
	s.call(http.MethodPut, "/v1/users/ann/password", as("ann"), body(`{"password":"secret-password"}`)).is(http.StatusNoContent)
	s.call(http.MethodGet, "/v1/functions?secret-query=1", func(r *http.Request) { r.SetBasicAuth("ann", "secret-password") }).is(http.StatusOK)
	s.call(http.MethodGet, "/v1/functions", func(r *http.Request) { r.SetBasicAuth("ann", "secret-guess") }).is(http.StatusUnauthorized)
	for line := range strings.Lines(s.log.String()) {
		if strings.Contains(line, "secret-") || strings.Contains(line, passwordOf("ann")) {
			t.Errorf("the log has the line %s", line)
		}
	}
	if n := len(s.logged("msg", "request")); n != 6 {
		t.Errorf("%d calls were logged, want 6", n)
	}
}
