package control

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// 500 calls at once through two APIs: exactly as many as the limit allows are admitted, all others are refused, and
// when those have ended there is room for as many again.
func TestControl_Limit_ExactlyN(t *testing.T) {
	t.Parallel()
	const limit, calls = 20, 500
	one := start(t)
	one.user("ann", limit)
	one.deploy("ann", "f")
	two := one.another("api-2")
	g := newGate()
	w := one.worker(limit+5, g.run)
	for round := range 2 {
		var admitted, refused atomic.Int64
		var wg sync.WaitGroup
		for i := range calls {
			api := one
			if i%2 == 1 {
				api = two
			}
			wg.Go(func() {
				rec, err := api.call(fmt.Sprint(i))
				if err == nil && rec.State == faena.StateSucceeded && string(rec.Result.Inline) == fmt.Sprint(i) {
					admitted.Add(1)
					return
				}
				if e := isKind(t, err, faena.KindLimit); e.Reason != "limit_reached" || e.RetryAfter <= 0 {
					t.Errorf("the error is %+v", e)
				}
				refused.Add(1)
			})
		}
		faenatest.Eventually(t, patience, "all others are refused", func() bool { return refused.Load() == calls-limit })
		faenatest.Eventually(t, patience, "the limit runs", func() bool { return g.running.Load() == limit })
		one.nats.counters(t, "ann", map[string]string{activeCounter: fmt.Sprint(limit)})
		close(g.open)
		wg.Wait()
		if admitted.Load() != limit {
			t.Errorf("round %d: %d were admitted", round, admitted.Load())
		}
		g = newGate()
		w.does(g.run)
	}
	one.stored(2 * limit)
	faenatest.Eventually(t, patience, "all have ended", func() bool {
		active, err := one.bus.ActiveByUser(t.Context(), group)
		return err == nil && len(active) == 0
	})
	one.nats.counters(t, "ann", map[string]string{activeCounter: "0", completedCounter: fmt.Sprint(2 * limit), failedCounter: "0"})
}

// One client that makes one call after the other is never refused, however low the limit, and causes no questions.
func TestControl_Limit_OneAfterTheOther(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 1)
	r.deploy("ann", "f")
	r.worker(2, echo)
	const calls = 300
	for i := range calls {
		if _, err := r.call("x"); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if n := r.bus.created.Load(); n != calls {
		t.Errorf("%d records were made for %d calls", n, calls)
	}
	r.stored(calls)
	r.quiet()
	if _, err := r.call("x"); err != nil { // asynchronous ends are not announced
		t.Fatal(err)
	}
	for i := range 20 {
		id := r.accepted(fmt.Sprint(i))
		r.becomes(id, faena.StateSucceeded)
		faenatest.Eventually(t, patience, "its slot is free", func() bool {
			busy, err := r.bus.BusySlots(t.Context(), group, "ann")
			return err == nil && len(busy) == 0
		})
	}
}

// A limit is raised and lowered while work is queued: it holds from the next call on, and nothing that was accepted
// is lost.
func TestControl_Limit_Changes(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 4)
	r.deploy("ann", "f")
	full := func(words string) {
		t.Helper()
		_, err := r.send("refused")
		if e := isKind(t, err, faena.KindLimit); !strings.Contains(e.Message, words) {
			t.Errorf("the message is %q", e.Message)
		}
	}
	var ids []string
	accept := func(n int) {
		t.Helper()
		for range n {
			ids = append(ids, r.accepted(fmt.Sprint(len(ids))))
		}
	}
	accept(4)
	full("has 4 active activations")
	r.user("ann", 10)
	accept(4)
	full("may use 8 of 10 slots")
	r.user("ann", 2)
	full("has 2 active activations")
	noError(t, cancelled(r.Cancel(t.Context(), "ann", ids[0]))) // in slot 0, which is below the limit
	full("has 2 active activations")
	r.user("ann", 1000)
	accept(20)

	r.user("ann", 1)
	w := r.worker(3, echo)
	for i, id := range ids[1:] {
		if rec := r.becomes(id, faena.StateSucceeded); string(rec.Result.Inline) != fmt.Sprint(i+1) {
			t.Errorf("the result of %d is %q", i+1, rec.Result.Inline)
		}
	}
	if n := w.ran.Load(); int(n) != len(ids)-1 {
		t.Errorf("%d ran, want %d", n, len(ids)-1)
	}
	faenatest.EventuallyNil(t, patience, "there is room again", func() error { _, err := r.send("x"); return err })
	r.stored(len(ids) + 1)
	r.quiet()
}

func cancelled(rec faena.Record, err error) error {
	if err == nil && rec.State != faena.StateCancelled {
		err = fmt.Errorf("it is %s", rec.State)
	}
	return err
}

// Asynchronous calls use the lower four fifths, so that a flood of them leaves room for synchronous ones.
func TestControl_Limit_Asynchronous(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ limit, async int }{{1, 1}, {4, 4}, {5, 4}, {9, 7}, {10, 8}} {
		t.Run(fmt.Sprint(c.limit), func(t *testing.T) {
			t.Parallel()
			r := start(t)
			r.user("ann", c.limit)
			r.deploy("ann", "f")
			g := newGate()
			r.worker(c.limit, g.run)
			for range c.async {
				r.accepted("async")
			}
			_, err := r.send("one too many")
			isKind(t, err, faena.KindLimit)
			var wg sync.WaitGroup
			for range c.limit - c.async {
				wg.Go(func() {
					if _, err := r.call("sync"); err != nil {
						t.Errorf("a synchronous call is refused: %v", err)
					}
				})
			}
			faenatest.Eventually(t, patience, "all slots are in use", func() bool { return g.running.Load() == int64(c.limit) })
			_, err = r.call("one too many")
			isKind(t, err, faena.KindLimit)
			close(g.open)
			wg.Wait()
			r.stored(c.limit)
			r.quiet()
		})
	}
}

// An API that believes a slot to be free that another one has taken finds out, writes no record for the next refusal,
// and leaves nothing of the refused one.
func TestControl_Limit_BeliefThatIsWrong(t *testing.T) {
	t.Parallel()
	one := start(t)
	one.user("ann", 1)
	one.deploy("ann", "f")
	two := one.another("api-2")
	g := newGate()
	w := one.worker(2, echo)
	if _, err := two.call("x"); err != nil { // it knows of slot 0 now, and that it is free
		t.Fatal(err)
	}
	w.does(g.run)
	held := one.accepted("x")
	created := two.bus.created.Load()
	for range 10 {
		_, err := two.call(strings.Repeat("x", faena.MaxInlineBytes+1))
		isKind(t, err, faena.KindLimit)
	}
	if n := two.bus.created.Load() - created; n != 1 {
		t.Errorf("%d records were made for 10 calls that were refused", n)
	}
	if n := one.nats.objects(t, group); n != 0 {
		t.Errorf("%d parameters of refused calls are left", n)
	}
	live, err := one.bus.LiveRecords(t.Context(), group, "ann")
	if err != nil || len(live) != 1 || live[0].ID != held {
		t.Errorf("live are %v, %v", live, err)
	}
	close(g.open)
	one.becomes(held, faena.StateSucceeded)
}

// An API that does not know of free slots finds them: each call tries one, then another, then asks.
func TestControl_Limit_FindsTheFreeSlot(t *testing.T) {
	t.Parallel()
	one := start(t)
	one.user("ann", 8)
	one.deploy("ann", "f")
	two := one.another("api-2")
	g := newGate()
	w := one.worker(10, echo)
	if _, err := two.call("x"); err != nil { // it believes that all are free from here on
		t.Fatal(err)
	}
	w.does(g.run)
	for range 5 {
		one.accepted("held")
	}
	two.accepted("found") // it tries 0 and 1, then asks
	rec, err := two.bus.LiveRecords(t.Context(), group, "ann")
	noError(t, err)
	slots := make(map[int]bool)
	for _, r := range rec {
		if r.State.Terminal() { // the first one, which is not recorded yet
			continue
		}
		slots[r.Slot] = true
		id, _, err := one.bus.SlotMessage(t.Context(), group, "ann", r.Slot)
		if err != nil || id != r.ID {
			t.Errorf("the record of %s says slot %d, there stands %s, %v", r.ID, r.Slot, id, err)
		}
	}
	if len(slots) != 6 {
		t.Errorf("the slots are %v", slots)
	}
	close(g.open)
	one.stored(7)
}
