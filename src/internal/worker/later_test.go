package worker_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/worker"
)

// unreadable publishes a message of another version, which whoever is given it hands back after a while.
func (s *site) unreadable() {
	s.t.Helper()
	rev := s.function("f", nil)
	_, _, err := s.bus.Publish(s.t.Context(), rev.User, group, int(s.slots.Add(1)), 1,
		&faena.Message{Schema: faena.SchemaVersion + 98, ID: uuid.Must(uuid.NewV7()).String(), Revision: rev})
	s.check(err)
}

// deliveries is how often the queue has given out a message, whichever and to whomever.
func (s *site) deliveries(js jetstream.JetStream) (n uint64) {
	s.t.Helper()
	faenatest.EventuallyNil(s.t, patience, "the queue's consumer is looked at", func() error {
		c, err := js.Consumer(s.t.Context(), "ACTIVATIONS-"+group, "workers")
		if err == nil {
			n = c.CachedInfo().Delivered.Consumer
		}
		return err
	})
	return n
}

// TestWorker_Later_Confirms: what is handed back only after more than AckWait is confirmed meanwhile: nobody is given it before.
func TestWorker_Later_Confirms(t *testing.T) {
	t.Parallel()
	const ackWait, pause = 4 * time.Second, 10 * time.Second
	servers := natstest.Start(t, natstest.Options{})
	s, js := open(t, ackWait, servers), servers.JetStream(t)
	h := s.quick("holder", worker.Every{Tick: 50 * time.Millisecond, Progress: 500 * time.Millisecond, Unread: pause})
	before := time.Now()
	s.unreadable()
	faenatest.Eventually(t, patience, "it is given to somebody again", func() bool { return s.deliveries(js) > 1 })
	if took := time.Since(before); took < pause {
		t.Errorf("it was given to somebody again after %v", took)
	}
	faenatest.Eventually(t, patience, "it was handed back, and is met again", func() bool {
		return h.metric(`faena_unreadable_total{where="queue"}`) == 2
	})
}

// TestWorker_Later_Lost: what was not confirmed for too long while it waited is not handed back when its time comes: somebody else may
// have been given it, and does not lose it.
func TestWorker_Later_Lost(t *testing.T) {
	t.Parallel()
	const ackWait, pause, waits = 4 * time.Second, 14 * time.Second, "is handed back until a worker reads it"
	every := worker.Every{Tick: 50 * time.Millisecond, Progress: 500 * time.Millisecond, Fence: 3 * time.Second, Ping: 50 * time.Millisecond, Unread: pause}
	for name, lose := range map[string]func(*site, *natstest.Servers) (says *log, back func()){
		"its host stood still": func(s *site, _ *natstest.Servers) (*log, func()) {
			p := s.child("holder", every)
			faenatest.Eventually(s.t, patience, "it waits", func() bool { return p.log.has(waits) })
			p.signal(syscall.SIGSTOP)
			return p.log, func() { p.signal(syscall.SIGCONT) }
		},
		"no server took its confirmations": func(s *site, servers *natstest.Servers) (*log, func()) {
			var d disk
			h := s.hand("holder")
			h.SetDisk(d.usage)
			h.Quicken(every)
			h.start()
			faenatest.Eventually(s.t, patience, "it waits", func() bool { return h.log.has(waits) })
			d.used.Store(100) // it takes nothing more
			faenatest.Eventually(s.t, patience, "it is not ready", func() bool { w := h.heartbeat(); return w != nil && w.NotReady != "" })
			servers.Stop(0)
			stopped := time.Now()
			faenatest.Eventually(s.t, patience, "it is over", func() bool { return time.Since(stopped) > every.Fence+every.Progress })
			servers.Start(s.t, 0)
			return h.log, func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := natstest.Start(t, natstest.Options{})
			s, js := open(t, ackWait, servers), servers.JetStream(t)
			s.unreadable()
			says, back := lose(s, servers)
			other := s.next(s.connect("other", ackWait))
			given := s.deliveries(js)
			back()
			faenatest.Eventually(t, patience, "its time has come there, and it was left alone", func() bool {
				s.check(other.Confirm(t.Context()))
				return says.has("was not handed back")
			})
			if n := s.deliveries(js); n != given || given < 2 {
				t.Errorf("it was given out %d times, and %d more when its time had come there", given, n-given)
			}
			s.check(other.DoubleAck(t.Context()))
		})
	}
}

// next takes the next message with a connection that is the test's.
func (s *site) next(b *natsbus.Bus) natsbus.Delivery {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	d, err := b.Deliveries(group)
	s.check(err)
	m, err := d.Next(ctx)
	s.check(err)
	s.check(d.Close())
	return m
}
