package wiring_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"faena.dev/faena/internal/client"
)

const (
	traceID     = "0af7651916cd43dd8448eb211c80319c"
	traceparent = "00-" + traceID + "-b7ad6b7169203331-01"
)

var madeTraceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$`)

// variable reads one of what the fixture's mode "env" wrote.
func variable(env, name string) string {
	for line := range strings.Lines(env) {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			return strings.TrimSuffix(v, "\n")
		}
	}
	return ""
}

// A request can be followed by its trace and its id to the function and back, and through the log.
func testTrace(t *testing.T, i *installation) {
	c := i.user(t, "tracer", 20)
	i.deploy(t, c, "env", nil, "env")
	i.deploy(t, c, "exit", nil, "exit")
	given := http.Header{"Traceparent": {traceparent}, "X-Request-Id": {"req/42:a"}}
	t.Run("what the caller gives", func(t *testing.T) {
		env, h, err := call(t.Context(), c, "env", nil, given)
		if err != nil || variable(string(env), "TRACEPARENT") != traceparent || variable(string(env), "FAENA_TRACE_ID") != traceID || h.Get("X-Request-Id") != "req/42:a" {
			t.Errorf("the environment is %q, the answer's id %q, %v", env, h.Get("X-Request-Id"), err)
		}
		a, err := client.Read[client.Activation](c.GetActivation(t.Context(), h.Get("Faena-Activation-Id")))
		if err != nil || a.Traceparent != traceparent || a.RequestID != "req/42:a" {
			t.Errorf("the record has %q and %q, %v", a.Traceparent, a.RequestID, err)
		}
		if id := variable(string(env), "FAENA_ACTIVATION_ID"); id != a.ActivationID {
			t.Errorf("the function has the id %q, the caller %q", id, a.ActivationID)
		}
	})
	t.Run("what is made where the caller gives nothing, or nonsense", func(t *testing.T) {
		for _, with := range []http.Header{nil, {"Traceparent": {"00-" + traceID + "-0000000000000000-01"}, "X-Request-Id": {"a b"}}} {
			env, h, err := call(t.Context(), c, "env", nil, with)
			made := variable(string(env), "TRACEPARENT")
			if err != nil || !madeTraceparent.MatchString(made) || strings.Contains(made, traceID) || len(h.Get("X-Request-Id")) < 16 {
				t.Errorf("with %v the trace is %q, the id %q, %v", with, made, h.Get("X-Request-Id"), err)
			}
		}
	})
	t.Run("problems have the id", func(t *testing.T) {
		for _, name := range []string{"exit", "nobody"} { // one that fails, one that is not there
			_, _, err := call(t.Context(), c, name, []byte("3"), given)
			if f := failure(t, err); f.RequestID != "req/42:a" {
				t.Errorf("%s: the problem has %q", f.Reason, f.RequestID)
			}
		}
	})
	t.Run("every line of the log that is about the request has its trace", func(t *testing.T) {
		lines := i.log.lines(`"request_id":"req/42:a"`)
		if len(lines) < 3 {
			t.Errorf("there are %d", len(lines))
		}
		for _, line := range lines {
			if !strings.Contains(line, `"trace_id":"`+traceID+`"`) {
				t.Errorf("no trace in %s", line)
			}
		}
		for _, line := range i.log.lines(`"activation_id"`) { // of the other parts too, which are told by their faults
			if !strings.Contains(line, `"trace_id":"`) || strings.Contains(line, `"trace_id":""`) {
				t.Errorf("no trace in %s", line)
			}
		}
	})
}
