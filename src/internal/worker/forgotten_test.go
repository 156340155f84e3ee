package worker_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/worker"
)

// forget makes the queue forget what it has delivered, as a server may that is cut from its power: each message comes again, as if for
// the first time.
func (s *site) forget(js jetstream.JetStream) {
	s.t.Helper()
	s.check(js.DeleteConsumer(s.t.Context(), "ACTIVATIONS-"+group, "workers"))
	s.check(s.bus.Declare(s.t.Context()))
}

// TestWorker_Forgotten: what comes again as if for the first time is not run beside itself, nor once more than it may be.
func TestWorker_Forgotten(t *testing.T) {
	t.Parallel()
	t.Run("while it runs", func(t *testing.T) {
		t.Parallel()
		servers := natstest.Start(t, natstest.Options{})
		s := open(t, never, servers)
		h := s.run("alive", three)
		id := s.send(s.function("f", func(r *faena.Revision) { r.Spec.Retries = 1 }, "sleep", "9000"), "")
		s.is(id, faena.StateRunning)
		s.forget(servers.JetStream(t))
		faenatest.Eventually(t, patience, "it has come again", func() bool {
			n, err := s.bus.Pending(t.Context(), group)
			return err == nil && n == 0
		})
		s.run("other", three)
		s.check(h.Drain(t.Context())) // what it has been given and does not run it hands back
		if r := s.ended(id); r.State != faena.StateSucceeded || r.Worker != h.id || r.Attempt != 1 || len(r.Failures) != 0 {
			t.Errorf("%+v", r)
		}
		s.quiet()
	})
	t.Run("with its worker", func(t *testing.T) {
		t.Parallel()
		servers := natstest.Start(t, natstest.Options{})
		s := open(t, never, servers)
		p := s.child("killed", worker.Every{})
		once := s.send(s.function("once", nil, "stubborn"), "")
		again := s.send(s.function("again", func(r *faena.Revision) { r.Spec.Retries = 1 }, "sleep", "3000"), "")
		s.is(once, faena.StateRunning)
		s.is(again, faena.StateRunning)
		p.kill()
		s.forget(servers.JetStream(t))

		h := s.run("killed", three)
		if r := s.ended(once); r.State != faena.StateLost || r.Reason != faena.ReasonWorkerLost || r.Attempt != 1 {
			t.Errorf("at most once: %+v", r)
		}
		if r := s.ended(again); r.State != faena.StateSucceeded || r.Attempt != 2 || failures(r) != "1 worker_lost "+h.id+"; " {
			t.Errorf("run again: %+v", r)
		}
		s.quiet()
		if d := s.letter(once); d == nil || d.Reason != faena.ReasonWorkerLost || d.Attempts != 1 {
			t.Errorf("the dead letter of what was lost: %+v", d)
		}
	})
}
