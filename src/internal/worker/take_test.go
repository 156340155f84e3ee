package worker_test

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/worker"
)

// ghost is a worker that takes messages and is never heard of again.
type ghost struct {
	s *site
	d *natsbus.Deliveries
}

func (s *site) ghost() *ghost {
	s.t.Helper()
	d, err := s.connect("ghost", 0).Deliveries(group)
	s.check(err)
	s.t.Cleanup(func() { _ = d.Close() }) // it has handed back what it was to
	return &ghost{s, d}
}

// takes takes the next message, which must be that of the activation, and returns its sequence.
func (g *ghost) takes(id string) uint64 {
	g.s.t.Helper()
	ctx, cancel := context.WithTimeout(g.s.t.Context(), patience)
	defer cancel()
	m, err := g.d.Next(ctx)
	g.s.check(err)
	if m.Message == nil || m.Message.ID != id {
		g.s.t.Fatalf("%+v was delivered, want %s", m, id)
	}
	return m.Sequence
}

// starts takes the next message and claims its record.
func (g *ghost) starts(id string) {
	g.s.t.Helper()
	seq := g.takes(id)
	g.s.change(id, func(r *faena.Record) { g.s.check(r.Claim("ghost", seq, time.Now().UTC())) })
}

// TestWorker_Claim: what is done with a delivery is a matter of its record alone, and what does not run makes no container.
func TestWorker_Claim(t *testing.T) {
	t.Parallel()
	s := start(t, 2*time.Second)
	h := s.hand("claim")
	h.Quicken(worker.Every{Tick: 100 * time.Millisecond, Progress: 300 * time.Millisecond})
	rev := s.function("f", nil)
	g := s.ghost()
	lost := s.send(rev, "arg")
	g.starts(lost)
	lapsed := s.send(rev, "arg")
	g.takes(lapsed)
	s.check(g.d.Close())

	unrun := map[string]*faena.Record{}
	unran := func(id string, change func(*faena.Record)) {
		if change != nil {
			s.change(id, change)
		}
		unrun[id] = s.record(id)
	}
	cancelled := s.send(rev, "arg")
	s.change(cancelled, func(r *faena.Record) { r.CancelRequested = true })
	late := s.send(rev, "arg", func(r *faena.Record) { r.StartWithinMS = 1 })
	unran(s.send(rev, "arg"), func(r *faena.Record) {
		s.check(r.Fail(faena.ReasonFunctionDeleted, "It was deleted.", time.Now().UTC()))
	})
	unran(s.send(rev, "arg"), func(r *faena.Record) { s.check(r.Claim("another", 1<<40, time.Now().UTC())) }) // for a copy of the message
	purged := s.send(rev, "arg")
	s.check(s.bus.PurgeRecord(t.Context(), group, "ana", purged))
	h.start()

	t.Run("one that never ran elsewhere is run", func(t *testing.T) {
		if r := s.ended(lapsed); r.State != faena.StateSucceeded || r.Attempt != 1 || r.Worker != h.id {
			t.Errorf("%+v", r)
		}
	})
	s.quiet()
	t.Run("one that was started by a worker which is lost is lost too", func(t *testing.T) {
		r := s.record(lost)
		if r.State != faena.StateLost || r.Reason != faena.ReasonWorkerLost || r.Attempt != 1 || r.Worker != "ghost" || !strings.Contains(r.Message, "ghost") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("one that was cancelled while it waited", func(t *testing.T) {
		if r := s.record(cancelled); r.State != faena.StateCancelled || r.Attempt != 0 || r.StartedAt != nil {
			t.Errorf("%+v", r)
		}
	})
	t.Run("one past its latest start", func(t *testing.T) {
		r := s.record(late)
		if r.State != faena.StateFailed || r.Reason != faena.ReasonExpired || r.Attempt != 0 || r.Timings.QueueUS == 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("what has ended, and a copy of what runs elsewhere, stay as they are", func(t *testing.T) {
		for id, was := range unrun {
			if r := s.record(id); !reflect.DeepEqual(r, was) {
				t.Errorf("%+v\nwas %+v", *r, *was)
			}
		}
	})
	t.Run("what is absent stays absent", func(t *testing.T) {
		if _, _, err := s.bus.Record(t.Context(), group, "ana", purged); !faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("%v", err)
		}
	})
	h.idle()
}

// TestWorker_OtherVersion: a message of another version is for another worker; it is neither dropped nor run.
func TestWorker_OtherVersion(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("version")
	rev := s.function("f", nil)
	id := s.send(rev, "arg")
	s.ended(id)
	s.quiet()
	r := s.record(id)
	r.ID, r.State, r.Attempt = "01956a3e-0f5b-7cc1-8a2b-0123456789ab", faena.StateQueued, 0
	_, err := s.bus.CreateRecord(t.Context(), r)
	s.check(err)
	_, _, err = s.bus.Publish(t.Context(), "ana", group, r.Slot, 1, &faena.Message{Schema: faena.SchemaVersion + 1, ID: r.ID, Revision: rev})
	s.check(err)
	faenatest.Eventually(t, patience, "it is handed back", func() bool { return h.log.has("a message of another version was handed back") })
	s.says("arg", rev, "arg")
	if n, err := s.bus.QueueDepth(t.Context(), group); err != nil || n != 1 || s.record(r.ID).State != faena.StateQueued {
		t.Errorf("%d messages wait, %v; the record is %+v", n, err, s.record(r.ID))
	}
}

// TestWorker_Order: an activation's end is told when its record is terminal and its slot is free, and not before.
func TestWorker_Order(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	s.run("order")
	told := make(chan *faena.Record, 10)
	stop, err := s.bus.Completed("api-1", func(r *faena.Record) { told <- r })
	s.check(err)
	defer stop()
	waited := func(r *faena.Record) { r.Instance = "api-1" }
	f := s.function("f", nil)
	want := map[string]faena.State{
		s.send(f, "arg", waited):      faena.StateSucceeded,
		s.send(f, "nonsense", waited): faena.StateFailed,
		s.send(f, "arg", waited, func(r *faena.Record) { r.CancelRequested = true }): faena.StateCancelled,
	}
	s.says("arg", f, "arg") // which nobody waits for: its end is not told
	for len(want) > 0 {
		var r *faena.Record
		select {
		case r = <-told:
		case <-time.After(patience):
			t.Fatalf("of %v nothing was told", want)
		}
		busy, err := s.bus.BusySlots(t.Context(), group, "ana")
		s.check(err)
		stored := s.record(r.ID)
		if _, held := busy[r.Slot]; held || stored.State != want[r.ID] || r.State != want[r.ID] {
			t.Errorf("told %s, stored %s, want %s; slots in use: %v", r.State, stored.State, want[r.ID], busy)
		}
		delete(want, r.ID)
	}
}
