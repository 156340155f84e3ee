package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
	"faena.dev/faena/internal/worker"
)

// heartbeat is what a worker has told of itself last, or nothing.
func (h *hand) heartbeat() *faena.Worker {
	h.s.t.Helper()
	all, err := h.s.bus.Workers(h.s.t.Context())
	h.s.check(err)
	for _, w := range all {
		if w.ID == h.id {
			return &w
		}
	}
	return nil
}

// gone checks that a worker has ended well: nobody counts on it any more, and nothing is left of it.
func (h *hand) gone() {
	h.s.t.Helper()
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.s.t.Fatal("it has not ended")
	}
	if h.err != nil || h.heartbeat() != nil || len(h.containers()) != 0 {
		h.s.t.Errorf("it ended with %v, its heartbeat is %+v, its containers are %v", h.err, h.heartbeat(), h.containers())
	}
}

// TestWorker_Drain: what runs comes to its end, what has not started is handed back at once, and nothing more is taken.
func TestWorker_Drain(t *testing.T) {
	t.Parallel()
	s := start(t, never)
	slow := stall(t)
	absent := faenatest.Push(t, slow.addr, "slow", faenatest.Image(t, faenatest.ImageSpec{}), nil)
	h := s.run("drained", loopback)
	runs := s.send(s.function("f", nil, "sleep", "3000"), "")
	s.is(runs, faena.StateRunning)
	pulls := s.send(s.function("slow", func(r *faena.Revision) { r.Pull = absent }, "sleep", "0"), "")
	<-slow.asked
	waits := s.send(s.function("g", nil, "sleep", "0"), "")

	drained := make(chan error, 1)
	go func() { drained <- h.Drain(context.WithoutCancel(t.Context())) }()
	// Since it is being stopped, nobody waits for somebody to resume it.
	faenatest.Eventually(t, patience, "it tells that it drains", func() bool { w := h.heartbeat(); return w != nil && w.Draining && w.NotReady == "" })
	slow.let()
	heir := s.run("heir", loopback)
	for _, id := range []string{pulls, waits} {
		if r := s.ended(id); r.State != faena.StateSucceeded || r.Worker != heir.id || r.Attempt != 1 {
			t.Errorf("handed back: %+v", r)
		}
	}
	if r := s.ended(runs); r.State != faena.StateSucceeded || r.Worker != h.id || string(r.Result.Inline) != "slept" {
		t.Errorf("what ran: %+v", r)
	}
	if err := <-drained; err != nil {
		t.Errorf("the drain ended with %v", err)
	}
	h.gone()
	s.quiet()
}

// TestWorker_Abort: what runs is killed and settled as lost, what has not started is handed back at once, in whichever of the
// three ways a worker is stopped.
func TestWorker_Abort(t *testing.T) {
	t.Parallel()
	s := start(t, never)
	for name, stop := range map[string]func(*hand){
		"aborted": func(h *hand) { h.Abort() },
		"its end": func(h *hand) { h.end() },
		"drain over": func(h *hand) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := h.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the drain ended with %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := s.run(strings.ReplaceAll(name, " ", "-"), func(o *wiring.WorkerOptions) { o.Pool.CPUs = 1 })
			runs := s.send(s.function("f", nil, "stubborn"), "")
			s.wrote(runs, "here")
			waits := s.send(s.function("g", nil, "sleep", "0"), "") // for its processor
			faenatest.Eventually(t, patience, "the other one waits", func() bool { return h.Stats().Waiting == 1 })
			stop(h)
			if r := s.ended(runs); r.State != faena.StateLost || r.Reason != faena.ReasonWorkerLost || r.Worker != h.id || string(r.Log.Inline) != "here" ||
				!strings.Contains(r.Message, "stopped") {
				t.Errorf("what ran: %+v", r)
			}
			h.gone()
			heir := s.run("heir-" + h.id)
			if r := s.ended(waits); r.State != faena.StateSucceeded || r.Worker != heir.id || r.Attempt != 1 {
				t.Errorf("what waited: %+v", r)
			}
			s.quiet()
			heir.Abort()
		})
	}
}

// TestWorker_DrainOnRequest: a worker that is asked to drain takes nothing more until it is asked to resume, over restarts, and says
// so at once.
func TestWorker_DrainOnRequest(t *testing.T) {
	t.Parallel()
	s := start(t, never)
	slow := stall(t)
	absent := faenatest.Push(t, slow.addr, "slow", faenatest.Image(t, faenatest.ImageSpec{}), nil)
	h := s.quick("asked", worker.Every{Heartbeat: time.Hour}, loopback) // it says only what is to be said at once
	s.says("arg", s.function("g", nil), "arg")
	runs := s.send(s.function("f", nil, "sleep", "3000"), "")
	s.is(runs, faena.StateRunning)
	pulls := s.send(s.function("slow", func(r *faena.Revision) { r.Pull = absent }, "sleep", "0"), "")
	<-slow.asked
	says := func(h *hand, draining bool) {
		t.Helper()
		faenatest.Eventually(t, patience, fmt.Sprintf("its heartbeat says draining %v", draining), func() bool {
			w := h.heartbeat()
			return w != nil && w.Draining == draining && (w.NotReady == "It was drained: faena workers resume "+h.id) == draining && (draining || w.NotReady == "")
		})
		want := 0
		if draining {
			want = 1
		}
		if n := h.metric("faena_worker_draining"); n != want {
			t.Errorf("its metric says %d, want %d", n, want)
		}
	}

	s.check(s.bus.RequestDrain(t.Context(), h.id, true))
	says(h, true)
	s.check(s.bus.RequestDrain(t.Context(), h.id, true)) // which changes nothing
	slow.let()
	heir := s.run("heir", loopback)
	waits := s.send(s.function("g", nil), "arg")
	for _, id := range []string{pulls, waits} {
		if r := s.ended(id); r.State != faena.StateSucceeded || r.Worker != heir.id || r.Attempt != 1 {
			t.Errorf("handed back: %+v", r)
		}
	}
	if r := s.ended(runs); r.State != faena.StateSucceeded || r.Worker != h.id || string(r.Result.Inline) != "slept" {
		t.Errorf("what ran: %+v", r)
	}
	heir.close()
	h.close()

	again := s.run("asked", loopback)
	says(again, true)
	waits = s.send(s.function("g", nil), "arg")
	faenatest.Eventually(t, patience, "it is ready", func() bool { return again.log.has("ready for activations") })
	s.check(s.bus.RequestDrain(t.Context(), "another", false))
	again.idle()
	if r := s.record(waits); r.State != faena.StateQueued {
		t.Errorf("it was taken: %+v", r)
	}
	s.check(s.bus.RequestDrain(t.Context(), again.id, false))
	if r := s.ended(waits); r.State != faena.StateSucceeded || r.Worker != again.id {
		t.Errorf("after it was asked to resume: %+v", r)
	}
	says(again, false)
	again.close()
	says(s.run("asked", loopback), false)
	s.quiet()
}
