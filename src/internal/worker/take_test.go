package worker_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/wiring"
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

// TestWorker_OtherVersion: what another version has written is for a worker of that version: it is neither run nor dropped,
// and it keeps its slot.
func TestWorker_OtherVersion(t *testing.T) {
	t.Parallel()
	const other = faena.SchemaVersion + 98
	s := start(t, 0)
	h := s.hand("version", func(o *wiring.WorkerOptions) { o.Pool.Places = 1 })
	h.Quicken(worker.Every{Unread: 100 * time.Millisecond})
	rev := s.function("f", nil)
	record := func() *faena.Record {
		return &faena.Record{Schema: faena.SchemaVersion, ID: uuid.Must(uuid.NewV7()).String(), User: "ana", Group: group, Function: "f", Revision: 1,
			Slot: int(s.slots.Add(1)), StartWithinMS: 60_000, State: faena.StateQueued, AdmittedAt: time.Now().UTC()}
	}
	publish := func(r *faena.Record, schema, n int) (seq uint64) {
		seq, _, err := s.bus.Publish(t.Context(), "ana", group, r.Slot, n, &faena.Message{Schema: schema, ID: r.ID, Revision: rev,
			Parameter: faena.Blob{Size: 3, Inline: []byte("arg")}})
		s.check(err)
		return seq
	}
	// handedBack waits until the worker has met it a few times, and has run another meanwhile.
	handedBack := func(t *testing.T, where, id string) {
		faenatest.Eventually(t, patience, "it is met again and again", func() bool { return h.metric(`faena_unreadable_total{where="`+where+`"}`) >= 3 })
		s.says("arg", rev, "arg")
		faenatest.EventuallyNil(t, patience, "only the one that cannot be read waits", func() error {
			n, err := s.bus.QueueDepth(t.Context(), group)
			if err == nil && n != 1 {
				err = fmt.Errorf("%d messages wait", n)
			}
			return err
		})
		if n := h.log.count("activation_id=" + id); n != 1 {
			t.Errorf("the log has %d lines of it, want 1", n)
		}
	}

	message := record()
	_, err := s.bus.CreateRecord(t.Context(), message)
	s.check(err)
	seq := publish(message, other, 1)
	h.start()
	t.Run("a message", func(t *testing.T) {
		handedBack(t, "queue", message.ID)
		if r := s.record(message.ID); r.State != faena.StateQueued {
			t.Errorf("its record is %s", r.State)
		}
		s.check(s.bus.DeleteMessage(t.Context(), group, seq))
		publish(message, faena.SchemaVersion, 2) // as the version that reads it would
		if r := s.ended(message.ID); r.State != faena.StateSucceeded || r.Attempt != 1 {
			t.Errorf("when it can be read: %+v", r)
		}
		s.quiet()
	})
	t.Run("a record", func(t *testing.T) {
		r := record()
		r.Schema = other
		at, err := s.bus.CreateRecord(t.Context(), r)
		s.check(err)
		publish(r, faena.SchemaVersion, 1)
		handedBack(t, "records", r.ID)
		if _, _, err := s.bus.Record(t.Context(), group, "ana", r.ID); !errors.Is(err, faena.ErrSchema) {
			t.Errorf("reading it gives %v", err)
		}
		r.Schema = faena.SchemaVersion
		_, err = s.bus.UpdateRecord(t.Context(), r, at)
		s.check(err)
		if r := s.ended(r.ID); r.State != faena.StateSucceeded || r.Attempt != 1 {
			t.Errorf("when it can be read: %+v", r)
		}
	})
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
