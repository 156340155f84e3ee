package worker_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/worker"
)

// raw puts bytes into a slot of the queue that no API has written, and returns it.
func (s *site) raw(nc *nats.Conn, id string, slot int, data []byte) {
	s.t.Helper()
	m := &nats.Msg{Subject: "Activations." + group + ".ana." + strconv.Itoa(slot), Data: data, Header: nats.Header{}}
	if id != "" {
		m.Header.Set("Nats-Msg-Id", id+".1")
	}
	answer, err := nc.RequestMsg(m, patience)
	s.check(err)
	if strings.Contains(string(answer.Data), "error") {
		s.t.Fatalf("%s", answer.Data)
	}
}

// TestWorker_DeadLetter_Unreadable: a message that says nothing becomes a dead letter, its activation is lost, and its slot is free.
func TestWorker_DeadLetter_Unreadable(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, natstest.Options{})
	s := open(t, 0, servers)
	nc := servers.Client(t)
	h := s.run("unreadable")
	told := make(chan *faena.Record, 10)
	stop, err := s.bus.Completed("api-4", func(r *faena.Record) { told <- r })
	s.check(err)
	defer stop()
	record := func(change func(*faena.Record)) *faena.Record {
		r := &faena.Record{Schema: faena.SchemaVersion, ID: uuid.Must(uuid.NewV7()).String(), User: "ana", Group: group, Function: "f", Revision: 1,
			Slot: int(s.slots.Add(1)), StartWithinMS: 60_000, State: faena.StateQueued, AdmittedAt: time.Now().UTC(), Instance: "api-4"}
		change(r)
		_, err := s.bus.CreateRecord(t.Context(), r)
		s.check(err)
		return r
	}
	checkLetter := func(t *testing.T, d *faena.DeadLetter, raw string, attempts int) {
		t.Helper()
		if d == nil || string(d.Raw) != raw || d.Reason != faena.ReasonWorkerLost || d.Worker != h.id || d.Attempts != attempts {
			t.Errorf("the dead letter is %.300v", d)
		}
	}
	t.Run("of an activation that waits", func(t *testing.T) {
		r := record(func(*faena.Record) {})
		s.raw(nc, r.ID, r.Slot, []byte("{nonsense"))
		if r := s.ended(r.ID); r.State != faena.StateLost || r.Attempt != 0 || !strings.Contains(r.Message, "cannot be read") {
			t.Errorf("%+v", r)
		}
		checkLetter(t, s.letter(r.ID), "{nonsense", 0)
		if first := <-told; first.ID != r.ID || first.State != faena.StateLost {
			t.Errorf("told: %+v", first)
		}
		s.quiet()
	})
	t.Run("without a record", func(t *testing.T) {
		id, slot := uuid.Must(uuid.NewV7()).String(), int(s.slots.Add(1))
		long := strings.Repeat("x", 1_000_000)
		s.raw(nc, id, slot, []byte(long))
		s.quiet()
		d := s.letter(id)
		checkLetter(t, d, long[:len(d.Raw)], 0)
		if len(d.Raw) < 600_000 || !strings.Contains(d.Message, "of 1000000 bytes") {
			t.Errorf("%d bytes are kept: %s", len(d.Raw), d.Message)
		}
	})
	t.Run("without an id", func(t *testing.T) {
		before, err := s.bus.DeadLetterIDs(t.Context(), group, "ana")
		s.check(err)
		s.raw(nc, "", int(s.slots.Add(1)), []byte("no id"))
		s.quiet()
		after, err := s.bus.DeadLetterIDs(t.Context(), group, "ana")
		s.check(err)
		if len(after["ana"]) != len(before["ana"])+1 {
			t.Fatalf("%v, then %v", before, after)
		}
		for _, id := range after["ana"] {
			if d := s.letter(id); string(d.Raw) == "no id" {
				if _, err := uuid.Parse(id); err != nil {
					t.Error(err)
				}
				return
			}
		}
		t.Error("none has what was in it")
	})
	t.Run("of what has ended", func(t *testing.T) {
		r := record(func(r *faena.Record) { s.check(r.Fail(faena.ReasonCancelled, "It was.", time.Now().UTC())) })
		s.raw(nc, r.ID, r.Slot, []byte("{nonsense"))
		s.quiet()
		if now := s.record(r.ID); now.State != faena.StateCancelled || s.letter(r.ID) != nil {
			t.Errorf("%+v, dead letter %+v", now, s.letter(r.ID))
		}
	})
	t.Run("of what waits in the backlog", func(t *testing.T) {
		r := record(func(r *faena.Record) { r.Backlogged = true })
		s.raw(nc, r.ID, r.Slot, []byte("{nonsense"))
		s.quiet()
		if now := s.record(r.ID); now.State != faena.StateQueued || s.letter(r.ID) != nil {
			t.Errorf("%+v, dead letter %+v", now, s.letter(r.ID))
		}
	})
	t.Run("in nobody's slot", func(t *testing.T) {
		answer, err := nc.Request("Activations."+group+".a$b.1", []byte("{nonsense"), patience)
		s.check(err)
		if strings.Contains(string(answer.Data), "error") {
			t.Fatalf("%s", answer.Data)
		}
		s.quiet()
	})
	h.idle()
}

// TestWorker_DeadLetter_Parameter: a large parameter outlives its activation's own object.
func TestWorker_DeadLetter_Parameter(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	s.run("kept")
	rev := s.function("f", func(r *faena.Revision) { r.Spec.Retries, r.Spec.Input, r.Spec.RetryDelayMS = 1, faena.InputStdin, 1 }, "attempt", "3")
	parameter := strings.Repeat("\x00\xff", faena.MaxInlineBytes)
	r := s.call(rev, parameter)
	s.check(s.bus.DeleteObject(t.Context(), group, "in."+r.ID)) // as an API does when it has ended
	d := s.letter(r.ID)
	if d == nil || d.Parameter.Object != "dead."+r.ID || d.Parameter.Size != int64(len(parameter)) {
		t.Fatalf("%+v, dead letter %+v", r, d)
	}
	if p := s.object(d.Parameter.Object); string(p) != parameter {
		t.Errorf("%d bytes", len(p))
	}
	s.quiet()
}

// TestWorker_DeadLetter_Late: what a worker ran ends as it ended, also where its dead letter can be written only after a while.
func TestWorker_DeadLetter_Late(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, natstest.Options{})
	s := open(t, 0, servers)
	js := servers.JetStream(t)
	h := s.quick("late", worker.Every{Bury: 100 * time.Millisecond})
	const stream = "DEADLETTERS-" + group
	had, err := js.Stream(t.Context(), stream)
	s.check(err)
	s.check(js.DeleteStream(t.Context(), stream))
	id := s.send(s.function("f", retries(1, 100*time.Millisecond), "attempt", "9"), "arg")
	faenatest.Eventually(t, patience, "its last attempt has begun", func() bool { return s.record(id).HeldBy(h.id, 2) })
	began := time.Now()
	faenatest.Eventually(t, patience, "it has tried for far longer than for what nobody ran here", func() bool {
		if r := s.record(id); r.State != faena.StateRunning || h.log.has("could not be written") {
			t.Fatalf("meanwhile it is %+v", r)
		}
		return time.Since(began) > 2*time.Second
	})
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig(had.CachedInfo().Config))
	s.check(err)
	r := s.ended(id)
	if d := s.letter(id); r.Reason != faena.ReasonExitNonzero || r.Attempt != 2 || string(r.Result.Inline) != "2" || d == nil || d.Reason != r.Reason {
		t.Errorf("%+v, dead letter %+v", r, d)
	}
	s.quiet()
}

// TestWorker_DeadLetter_Refused: where dead letters cannot be written nothing ends without one, and nothing waits for ever for them:
// the message comes again.
func TestWorker_DeadLetter_Refused(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, natstest.Options{})
	s := open(t, 2*time.Second, servers)
	js := servers.JetStream(t)
	g := s.ghost()
	const stream = "DEADLETTERS-" + group
	had, err := js.Stream(t.Context(), stream)
	s.check(err)
	s.check(js.DeleteStream(t.Context(), stream))
	id := s.send(s.function("f", nil), "arg")
	g.starts(id)
	s.check(g.d.Close())
	h := s.quick("refused", worker.Every{Bury: 500 * time.Millisecond})
	faenatest.Eventually(t, patience, "it has met that more than once", func() bool { return h.log.count("dead letter could not be written") > 1 })
	if r := s.record(id); r.State != faena.StateRunning {
		t.Errorf("meanwhile it is %+v", r)
	}
	s.says("arg", s.function("g", nil), "arg")
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig(had.CachedInfo().Config))
	s.check(err)
	r := s.ended(id)
	d := s.letter(id)
	if r.State != faena.StateLost || r.Attempt != 1 || d == nil || d.Reason != faena.ReasonWorkerLost || d.Attempts != 1 {
		t.Errorf("%+v, dead letter %+v", r, d)
	}
	s.quiet()
}
