package worker_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/buildinfo"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
	"faena.dev/faena/internal/worker"
)

// TestWorker_Heartbeat: what a worker can run and does is told within moments of it, and nothing once it has gone.
func TestWorker_Heartbeat(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.hand("heart", func(o *wiring.WorkerOptions) { o.Pool.CPUs = 1.5 })
	h.Quicken(worker.Every{Heartbeat: 50 * time.Millisecond})
	if w := h.Describe(); w.NotReady == "" {
		t.Errorf("before it runs it says %+v", w)
	}
	began := time.Now()
	h.start()
	tells := func(what string, want func(*faena.Worker) bool) *faena.Worker {
		t.Helper()
		var w *faena.Worker
		faenatest.Eventually(t, patience, what, func() bool { w = h.heartbeat(); return w != nil && want(w) })
		return w
	}
	w := tells("it tells that it is ready", func(w *faena.Worker) bool { return w.NotReady == "" })
	host, err := os.Hostname()
	s.check(err)
	if w.Group != group || w.Host != host || w.Version != buildinfo.Read().Version || w.Places != 2 || w.MemoryBytes != 1<<30 || w.MilliCPUs != 1500 ||
		w.Busy != 0 || w.Containers != 0 || w.Draining || w.StartedAt.IsZero() || w.SeenAt.Before(began) {
		t.Errorf("it says %+v", w)
	}
	id := s.send(s.function("f", nil, "stubborn"), "")
	tells("it tells of what it runs", func(w *faena.Worker) bool { return w.Busy == 1 && w.Containers == 1 })
	s.wrote(id, "here")
	s.cancel(id)
	last := tells("it tells that it is idle", func(w *faena.Worker) bool { return w.Busy == 0 && w.Containers == 0 })
	tells("it goes on telling", func(w *faena.Worker) bool { return w.SeenAt.After(last.SeenAt) })
	h.Abort()
	h.gone()
}

// TestWorker_Capacity: functions share a worker's memory. Who needs room has it from who is idle, and waits for who is busy.
func TestWorker_Capacity(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("capacity", func(o *wiring.WorkerOptions) { o.Pool.Memory = 100 << 20 })
	sized := func(name string, mib int64, warm int, mode ...string) *faena.Revision {
		return s.function(name, func(r *faena.Revision) { r.Spec.MemoryBytes, r.Spec.Warm = mib<<20, warm }, mode...)
	}
	home := map[string]string{}
	visit := func(rev *faena.Revision) (moved bool) {
		t.Helper()
		id, _ := s.container(rev)
		moved = home[rev.Function] != id
		home[rev.Function] = id
		if st := h.Stats(); st.MemoryBytes > 100<<20 {
			t.Errorf("containers of %d MiB exist at once", st.MemoryBytes>>20)
		}
		return moved
	}
	a, b, c, big := sized("a", 32, 1), sized("b", 32, 0), sized("c", 32, 0), sized("big", 64, 0)
	t.Run("the least recently used idle one makes room, one that is to stay warm last", func(t *testing.T) {
		for _, rev := range []*faena.Revision{a, b, c, b} {
			visit(rev)
		}
		visit(sized("d", 32, 0))
		if visit(b) || visit(a) {
			t.Error("another than the least recently used one had to go")
		}
		if !visit(c) {
			t.Error("the least recently used one is still there")
		}
		visit(big)
		if visit(a) {
			t.Error("the one that is to stay warm had to go although others could")
		}
	})
	t.Run("a larger function than the worker says so", func(t *testing.T) {
		r := s.call(sized("huge", 101, 0), "env")
		if r.State != faena.StateFailed || r.Reason != faena.ReasonStartFailed || !strings.Contains(r.Message, "101 MiB") || !strings.Contains(r.Message, "100 MiB") {
			t.Errorf("%s %s: %s", r.State, r.Reason, r.Message)
		}
		if visit(a) {
			t.Error("room was made for it in vain")
		}
	})
	t.Run("who does not fit beside what runs waits for its end", func(t *testing.T) {
		busy := s.send(sized("busy", 64, 0, "stubborn"), "")
		s.wrote(busy, "here")
		id := s.send(big, "env")
		faenatest.Eventually(t, patience, "it waits", func() bool { return h.Stats().Waiting == 1 })
		s.cancel(busy)
		if r := s.ended(id); r.State != faena.StateSucceeded || r.Timings.StartUS == 0 {
			t.Errorf("%+v", r)
		}
	})
	s.quiet()
}
