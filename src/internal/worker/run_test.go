package worker_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
	"faena.dev/faena/internal/worker"
)

// TestWorker_Reuse gives one function every bad end there is: the next activation is served as if nothing had been, by
// the same container where nothing of the last one can be left in it, otherwise by another.
func TestWorker_Reuse(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("reuse")
	rev := s.function("f", func(r *faena.Revision) { r.Spec.TimeoutMS, r.Spec.PIDs, r.Spec.ResultLimitBytes = 5000, 10, 1<<20 })
	home, first := s.container(rev)
	if first.Warm || first.Timings.StartUS == 0 || first.Attempt != 1 || first.Worker != h.id {
		t.Errorf("the first activation says %+v", first)
	}
	if again, r := s.container(rev); again != home || !r.Warm || r.Timings.StartUS != 0 || r.Timings.PullUS != 0 {
		t.Errorf("the second one ran in %s after %s, and says %+v", again, home, r)
	}
	for _, c := range []struct {
		mode   string
		reason faena.Reason
		kept   bool   // the container
		ended  string // exit code or signal, where the process came to an end of its own
		remark string
	}{
		{"litter", "", true, "0", ""},
		{"daemon", "", true, "0", "1 processes that it left behind were killed."},
		{"bomb", "", true, "0", "The limit of 10 processes was met 1 times."},
		{"nonsense", faena.ReasonExitNonzero, true, "64", ""},
		{"oom", faena.ReasonOOMKilled, false, "signal 9", ""},
		{"oom-child", "", false, "0", "1 of its processes were killed because the memory limit was met."},
		{"stubborn", faena.ReasonTimeout, false, "", ""},
		{"yes", faena.ReasonResultTooLarge, false, "", ""},
		{"limit", "", false, "0", ""},
	} {
		t.Run(c.mode, func(t *testing.T) {
			r := s.call(rev, c.mode)
			if r.Reason != c.reason || ending(r) != c.ended || c.remark != "" && !slices.Contains(r.Remarks, c.remark) {
				t.Errorf("it ended with %q, %q, %q: %s", r.Reason, ending(r), r.Remarks, r.Message)
			}
			// Init may be gone after tampering, and its counters with it.
			if c.ended != "" && c.mode != "limit" && r.PeakMemoryBytes == 0 || r.Timings.RunUS == 0 || r.Timings.TotalUS < r.Timings.RunUS {
				t.Errorf("peak %d, timings %+v", r.PeakMemoryBytes, r.Timings)
			}
			now, next := s.container(rev)
			if kept := now == home; kept != c.kept || next.Warm != c.kept || next.State != faena.StateSucceeded || len(next.Remarks) > 0 {
				t.Errorf("the next one ran in %s after %s: %+v", now, home, next)
			}
			home = now
			s.says("tmp 0 shm 0 ipc 0", rev, "found")
		})
	}
	faenatest.Eventually(t, patience, "the retired containers are gone", func() bool { return len(h.containers()) == 1 })
	if n := processes(t, home); n != 1 {
		t.Errorf("%d processes are in the idle container, want init alone", n)
	}
}

// ending is how the process of an activation came to its own end; "" where it did not.
func ending(r *faena.Record) string {
	switch {
	case r.Signal != 0:
		return fmt.Sprintf("signal %d", r.Signal)
	case r.ExitCode != nil:
		return fmt.Sprint(*r.ExitCode)
	}
	return ""
}

// processes counts those of a container.
func processes(t *testing.T, container string) int {
	t.Helper()
	var top struct{ Processes [][]string }
	faenatest.Engine(t).Get(t, "/containers/"+container+"/top", &top)
	return len(top.Processes)
}

// TestWorker_Signals: what ends by a signal says which, and stays apart from what is out of memory.
func TestWorker_Signals(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	s.run("signals")
	rev := s.function("raise", nil, "raise")
	for _, signal := range []string{"9", "11", "15"} {
		for range 2 { // 137 is no sign of memory
			r := s.call(rev, signal)
			if r.Reason != faena.ReasonKilledBySignal || ending(r) != "signal "+signal || r.ExitCode != nil || !strings.Contains(r.Message, "signal "+signal) {
				t.Errorf("signal %s: %s, %s (%s)", signal, r.Reason, ending(r), r.Message)
			}
		}
	}
}

func TestWorker_Fresh(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("fresh")
	rev := s.function("f", func(r *faena.Revision) { r.Spec.Isolation, r.Spec.Warm = faena.IsolationFresh, 2 })
	seen := map[string]bool{}
	for n := range 4 {
		id, r := s.container(rev)
		if seen[id] || r.Warm != (n > 0) {
			t.Errorf("activation %d ran in %s after %v, warm %v", n, id, seen, r.Warm)
		}
		seen[id] = true
		faenatest.Eventually(t, patience, "two are ready again, and nothing else is left", func() bool {
			return h.Stats() == worker.PoolStats{Idle: 2, MemoryBytes: 64 << 20} && len(h.containers()) == 2
		})
	}
	s.says("littered", rev, "litter")
	s.says("tmp 0 shm 0 ipc 0", rev, "found")
	if r := s.call(rev, "oom"); r.Reason != faena.ReasonOOMKilled {
		t.Errorf("%s (%s)", r.Reason, r.Message)
	}
	s.says("tmp 0 shm 0 ipc 0", rev, "found")
}

// TestWorker_StartErrors: a program that cannot be started has a reason of its own, and is no failure of the engine.
func TestWorker_StartErrors(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	s.ref = faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{Files: []faenatest.File{
		{Path: "/no-shebang", Data: []byte("echo hello\n")},
		{Path: "/no-interpreter", Data: []byte("#!/bin/absent\n")},
		{Path: "/not-executable", Data: []byte("#!/fixture\n"), Mode: 0o644},
		{Path: "/another-machine", Data: []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16\x00")}, // s390x
	}}))
	h := s.run("starts")
	for _, c := range []struct {
		command string
		reason  faena.Reason
		words   string
	}{
		{"/no-shebang", faena.ReasonExecFormat, "#! line"},
		{"/another-machine", faena.ReasonExecFormat, "architecture"},
		{"/not-executable", faena.ReasonExecFormat, "may not be executed"},
		{"/no-interpreter", faena.ReasonNoCommand, "interpreter"},
		{"/absent", faena.ReasonNoCommand, `no program "/absent"`},
		{"absent", faena.ReasonNoCommand, `no program "absent"`},
		{"", faena.ReasonNoCommand, "ENTRYPOINT"},
	} {
		t.Run("command "+c.command, func(t *testing.T) {
			// One container serves all: which program is executed is a matter of the start.
			rev := s.function("f", func(r *faena.Revision) { r.Config.Entrypoint, r.CreatedAt = nil, time.Unix(1, 0).UTC() })
			if c.command != "" {
				rev.Spec.Command = []string{c.command}
			}
			r := s.call(rev, "x")
			if r.State != faena.StateFailed || r.Reason != c.reason || !strings.Contains(r.Message, c.words) || ending(r) != "" {
				t.Errorf("%s %s: %s", r.State, r.Reason, r.Message)
			}
		})
	}
	t.Run("an image that is gone from the engine and from its registry", func(t *testing.T) {
		r := s.call(s.function("gone", func(r *faena.Revision) { r.Pull = "127.0.0.1:1/gone@sha256:" + strings.Repeat("0", 64) }), "arg")
		if r.State != faena.StateFailed || r.Message == "" {
			t.Errorf("%s %s: %s", r.State, r.Reason, r.Message)
		}
	})
	s.quiet()
	h.idle()
}

// TestWorker_Output: a flood of output costs neither memory nor disk, and what is kept is told.
func TestWorker_Output(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	s.run("output", func(o *wiring.WorkerOptions) { o.Pool.Places = 1 })
	t.Run("a result without end", func(t *testing.T) {
		rev := s.function("yes", func(r *faena.Revision) { r.Spec.ResultLimitBytes = faena.DefaultResultLimitBytes }, "yes")
		for range 2 {
			r := s.call(rev, "")
			out := s.object(r.Result.Object)
			if r.Reason != faena.ReasonResultTooLarge || !r.Result.Truncated || r.Result.Size != 16<<20 || len(out) != 16<<20 {
				t.Errorf("%s, result %+v of %d bytes", r.Reason, r.Result, len(out))
			}
			s.check(s.bus.DeleteObject(t.Context(), group, r.Result.Object))
		}
	})
	t.Run("a log of 128 MiB", func(t *testing.T) {
		const flood = 128 << 20
		before := resident(t)
		r := s.call(s.function("err", nil, "err", fmt.Sprint(flood)), "")
		if r.State != faena.StateSucceeded || string(r.Result.Inline) != "done" || r.Log.Size != faena.MaxLogBytes || !r.Log.Truncated ||
			r.Log.Dropped != flood-faena.MaxLogBytes {
			t.Errorf("%s %s, log %+v, result %q", r.State, r.Reason, r.Log, r.Result.Inline)
		}
		if grown := resident(t) - before; grown > 100<<20 {
			t.Errorf("the worker grew by %d MiB", grown>>20)
		}
	})
	t.Run("and the disk has no more than the results", func(t *testing.T) {
		var bytes int64
		s.check(filepath.WalkDir(s.dir, func(_ string, e fs.DirEntry, err error) error {
			info, infoErr := e.Info()
			if err == nil && infoErr == nil && info.Mode().IsRegular() { // what vanishes meanwhile is not there
				bytes += info.Size()
			}
			return nil
		}))
		if bytes > 80<<20 { // two results, deleted, and a log
			t.Errorf("%d MiB are on the disk", bytes>>20)
		}
	})
}

// resident is the memory of this process, with its NATS server, in bytes.
func resident(t *testing.T) (bytes int64) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscanf(v, "%d kB", &bytes); err != nil {
				t.Fatal(err)
			}
		}
	}
	return bytes << 10
}
