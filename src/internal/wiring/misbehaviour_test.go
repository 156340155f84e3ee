package wiring_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/dockerengine"
	"faena.dev/faena/internal/faenatest"
)

// misdeed is what a function does to the appliance and to whoever comes after it. The next activation is of the same
// function, in its container where that is used again.
type misdeed struct {
	name, function, parameter string
	want                      func(*testing.T, outcome)
	next, result              string
	retires                   bool // the container
	never                     bool // does it anything right: next is not asked for
}

// outcome is what a synchronous call was answered.
type outcome struct {
	result []byte
	failed *client.Failure // nil: 200
	record client.Activation
}

func outcomeOf(t *testing.T, c *client.Client, function, parameter string) outcome {
	t.Helper()
	out, h, err := call(t.Context(), c, function, []byte(parameter), nil)
	o, id := outcome{result: out}, h.Get("Faena-Activation-Id")
	if err != nil {
		o.failed = failure(t, err)
		id = o.failed.ActivationID
	}
	var readErr error
	if o.record, readErr = client.Read[client.Activation](c.GetActivation(t.Context(), id)); readErr != nil {
		t.Fatalf("the record of %q: %v; the call: %v", id, readErr, err)
	}
	return o
}

// fails wants a 502 with a reason, an exit code or -1, a signal, and the end of the log.
func fails(reason string, code, signal int, tail string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		f := o.failed
		switch {
		case f == nil:
			t.Errorf("it succeeded with %q, want %s", o.result, reason)
		case f.Status != http.StatusBadGateway || f.Reason != reason || f.Detail == "" || f.ActivationID == "" || f.Signal != signal || f.LogTail != tail:
			t.Errorf("got %d %s (%s), signal %d, log %q; want 502 %s, signal %d, log %q", f.Status, f.Reason, f.Detail, f.Signal, f.LogTail, reason, signal, tail)
		case code >= 0 != (f.ExitCode != nil) || f.ExitCode != nil && *f.ExitCode != code:
			t.Errorf("the exit code is %v, want %d", f.ExitCode, code)
		}
	}
}

// succeeds wants a 200 with a result, and a remark in the record; "" is none.
func succeeds(result, remark string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		if o.failed != nil || string(o.result) != result {
			t.Errorf("got %q, %v; want %q", o.result, o.failed, result)
		}
		if said := strings.Join(o.record.Remarks, "|"); said != remark {
			t.Errorf("the remarks are %q, want %q", said, remark)
		}
	}
}

const clean = "tmp 0 shm 0 ipc 0"

var misdeeds = []misdeed{
	{"it ends with another code than 0", "exit", "3", fails("exit_nonzero", 3, 0, "err"), "0", "out", false, false},
	{"it does not know its argument", "any", "nothing", fails("exit_nonzero", 64, 0, "unknown mode nothing\n"), "found", clean, false, false},
	{"it dies of a signal", "raise", "11", fails("killed_by_signal", -1, 11, ""), "0", "", false, false},
	{"it takes more memory than it may", "any", "oom", fails("oom_killed", -1, 9, ""), "found", clean, true, false},
	{"its child takes more memory than it may", "any", "oom-child", succeeds("survived", "1 of its processes were killed because the memory limit was met."), "found", clean, true, false},
	{"it runs longer than it may", "slow", "stubborn", fails("timeout", -1, 0, "here"), "found", clean, true, false},
	{"it writes more than it may", "any", "yes", fails("result_too_large", -1, 0, ""), "found", clean, true, false},
	{"it makes more processes than it may", "any", "bomb", func(t *testing.T, o outcome) {
		if made, err := strconv.Atoi(string(o.result)); o.failed != nil || err != nil || made < 19 || made > 19+dockerengine.InitPIDs {
			t.Errorf("it made %q processes of 20, %v", o.result, o.failed)
		}
		if said := strings.Join(o.record.Remarks, "|"); !strings.Contains(said, "The limit of 20 processes was met") {
			t.Errorf("the remarks are %q", said)
		}
	}, "found", clean, false, false},
	{"it leaves a process that holds its output open", "any", "daemon", succeeds("main has ended", "1 processes that it left behind were killed."), "found", clean, false, false},
	{"it leaves files and shared memory", "any", "litter", succeeds("littered", ""), "found", clean, false, false},
	{"its program is not in the image", "none", "", fails("no_command", -1, 0, ""), "", "", false, true},
	{"its program is none", "dir", "", fails("exec_format", -1, 0, ""), "", "", false, true},
}

func testMisbehaviour(t *testing.T, i *installation) {
	for _, isolation := range []client.Isolation{client.IsolationReuse, client.IsolationFresh} {
		t.Run(string(isolation), func(t *testing.T) {
			t.Parallel()
			c := i.user(t, "mallory-"+string(isolation), 20)
			with := func(change func(*client.Spec)) func(*client.Spec) {
				return func(s *client.Spec) {
					s.Isolation, s.Pids, s.ResultLimitBytes = isolation, 20, 64<<10
					change(s)
				}
			}
			as := with(func(*client.Spec) {})
			i.deploy(t, c, "any", as)
			i.deploy(t, c, "exit", as, "exit")
			i.deploy(t, c, "raise", as, "raise")
			i.deploy(t, c, "slow", with(func(s *client.Spec) { s.TimeoutMs = 700 }))
			if isolation == client.IsolationReuse {
				i.deploy(t, c, "none", with(func(s *client.Spec) { s.Command = []string{"/none"} }))
				i.deploy(t, c, "dir", with(func(s *client.Spec) { s.Command = []string{"/tmp"} }))
			}
			for _, m := range misdeeds {
				if m.never && isolation == client.IsolationFresh {
					continue // no process of it ever starts
				}
				t.Run(m.name, func(t *testing.T) { m.commit(t, c, isolation) })
			}
			t.Run("nothing is left", func(t *testing.T) { succeeds(clean, "")(t, outcomeOf(t, c, "any", "found")) })
			t.Run("containers are used again, or not", func(t *testing.T) {
				one, two := hostname(must(t, c, "any", "env")), hostname(must(t, c, "any", "env"))
				if again := one == two; one == "" || again != (isolation == client.IsolationReuse) {
					t.Errorf("one ran in %q, the next in %q", one, two)
				}
			})
		})
	}
}

func (m misdeed) commit(t *testing.T, c *client.Client, isolation client.Isolation) {
	o := outcomeOf(t, c, m.function, m.parameter)
	m.want(t, o)
	faenatest.Eventually(t, 10*time.Second, "its processes are gone", func() bool { return len(processes(t, o.record.ActivationID)) == 0 })
	switch {
	case m.never: // it can do nothing right: the next fails the same way
		m.want(t, outcomeOf(t, c, m.function, m.parameter))
		return
	case isolation == client.IsolationFresh && m.next == "found":
		return // the next one is the misdeed after this, and what they leave is looked for at the end
	}
	next := outcomeOf(t, c, m.function, m.next)
	succeeds(m.result, "")(t, next)
	if isolation == client.IsolationReuse && !m.retires && !next.record.Warm {
		t.Error("the next one had to wait for a container: there was no reason to retire the one before")
	}
}

// hostname is the container that wrote its environment.
func hostname(env string) string {
	for line := range strings.Lines(env) {
		if name, ok := strings.CutPrefix(line, "HOSTNAME="); ok {
			return strings.TrimSpace(name)
		}
	}
	return ""
}

// processes are those on this host that belong to an activation: each has its id in its environment.
func processes(t *testing.T, id string) (pids []string) {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil || len(found) == 0 {
		t.Fatalf("there are no processes: %v", err)
	}
	for _, path := range found {
		env, err := os.ReadFile(path)
		if err == nil && bytes.Contains(env, fmt.Appendf(nil, "FAENA_ACTIVATION_ID=%s\x00", id)) {
			pids = append(pids, path)
		}
	}
	return pids
}
