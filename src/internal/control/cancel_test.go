package control

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

func TestControl_Cancel_Queued(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 1)
	r.deploy("ann", "f")
	var ids []string
	for range 5 { // the slot is free at once, each time
		id := r.accepted("x")
		ids = append(ids, id)
		rec, err := r.Cancel(t.Context(), "ann", id)
		noError(t, err)
		if rec.State != faena.StateCancelled || rec.Reason != faena.ReasonCancelled || rec.EndedAt == nil {
			t.Errorf("the record is %+v", rec)
		}
		if busy, err := r.bus.BusySlots(t.Context(), group, "ann"); err != nil || len(busy) != 0 {
			t.Errorf("slots in use are %v, %v", busy, err)
		}
	}
	w := r.worker(1, echo)
	for _, rec := range r.stored(len(ids)) {
		if rec.State != faena.StateCancelled || rec.Attempt != 0 {
			t.Errorf("the record is %+v", rec)
		}
	}
	again, err := r.Cancel(t.Context(), "ann", ids[0]) // from the store
	noError(t, cancelled(again, err))
	if w.ran.Load() != 0 {
		t.Error("a cancelled one ran")
	}
	r.quiet()
}

// Whoever waits for an activation that somebody else cancels is told at once.
func TestControl_Cancel_TellsWhoWaits(t *testing.T) {
	t.Parallel()
	one := start(t)
	one.user("ann", 2)
	one.deploy("ann", "f")
	two := one.another("api-2")
	g := newGate()
	one.worker(1, g.run)
	held := one.accepted("first")
	faenatest.Eventually(t, patience, "the first runs", func() bool { return g.running.Load() == 1 })
	var wg sync.WaitGroup
	wg.Go(func() {
		rec, err := one.call("second")
		if err := cancelled(rec, err); err != nil {
			t.Error(err)
		}
	})
	var queued string
	faenatest.Eventually(t, patience, "the second is queued", func() bool {
		list, err := two.Activations(t.Context(), faena.HistoryQuery{User: "ann", State: faena.StateQueued, Limit: 10})
		if err != nil || len(list) != 1 {
			return false
		}
		queued = list[0].ID
		return true
	})
	noError(t, cancelled(two.Cancel(t.Context(), "ann", queued)))
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		t.Error("the call that waits was not told")
	}
	close(g.open)
	one.becomes(held, faena.StateSucceeded)
	wg.Wait()
}

func TestControl_Cancel_Running(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 1)
	r.deploy("ann", "f")
	g := newGate()
	r.worker(1, g.run)
	id := r.accepted("x")
	r.becomes(id, faena.StateRunning)
	rec, err := r.Cancel(t.Context(), "ann", id)
	noError(t, err)
	if rec.State != faena.StateRunning || !rec.CancelRequested {
		t.Errorf("the record is %+v", rec)
	}
	if rec := r.becomes(id, faena.StateCancelled); !rec.CancelRequested || rec.Worker != "w1" {
		t.Errorf("the record is %+v", rec)
	}
	noError(t, cancelled(r.Cancel(t.Context(), "ann", id))) // once more
	r.stored(1)
	r.quiet()
}

func TestControl_Cancel_NotFound(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 1)
	r.deploy("ann", "f")
	id := r.accepted("x")
	for _, c := range []struct{ user, id string }{{"bob", id}, {"ann", "01956a3e-0f5b-7cc1-8a2b-0123456789ab"}, {"ann", "x"}, {"ann", ""}, {"ann", "*"}} {
		_, err := r.Cancel(t.Context(), c.user, c.id)
		isKind(t, err, faena.KindNotFound)
		_, err = r.Activation(t.Context(), c.user, c.id)
		isKind(t, err, faena.KindNotFound)
	}
	if rec := r.becomes(id, faena.StateQueued); rec.CancelRequested {
		t.Error("somebody else has cancelled it")
	}
}

// While activations start and end, each is cancelled: whatever the moment, it ends once, and as one of the two.
func TestControl_Cancel_AtAnyMoment(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 50)
	r.deploy("ann", "f")
	w := r.worker(4, func(j *job) (string, faena.Reason) {
		if err := sleep(j, 2*time.Millisecond); errors.Is(err, j.Err()) && err != nil {
			return "", faena.ReasonCancelled
		}
		return "done", ""
	})
	const n = 120
	ends := make(map[faena.State]int)
	for i := range n {
		var id string
		faenatest.EventuallyNil(t, patience, "it is accepted", func() error {
			rec, err := r.send("x")
			id = rec.ID
			return err
		})
		noError(t, sleep(t.Context(), time.Duration(i%12)*300*time.Microsecond))
		if _, err := r.Cancel(t.Context(), "ann", id); err != nil {
			t.Fatal(err)
		}
	}
	for _, rec := range r.stored(n) {
		ends[rec.State]++
		if rec.State == faena.StateCancelled && rec.Attempt == 0 && rec.Worker != "" {
			t.Errorf("it never started, and yet the record is %+v", rec)
		}
	}
	if ends[faena.StateCancelled] == 0 || ends[faena.StateCancelled]+ends[faena.StateSucceeded] != n {
		t.Errorf("the ends are %v", ends)
	}
	t.Log(fmt.Sprint(ends), w.ran.Load(), "ran")
	r.quiet()
}
