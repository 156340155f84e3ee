package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// takesOver is how long an installation may be without a leader.
const takesOver = 15 * time.Second

// leads waits until exactly one of the APIs leads, and returns it.
func leads(t *testing.T, within time.Duration, apis ...*rig) *rig {
	t.Helper()
	var leader *rig
	faenatest.EventuallyNil(t, within, "one of the APIs leads", func() error {
		var names []string
		for _, api := range apis {
			if api.leading.Load() {
				leader, names = api, append(names, api.o.Instance)
			}
		}
		if len(names) > 1 {
			t.Errorf("%v lead", names)
		}
		holder, err := apis[len(apis)-1].bus.LeaseHolder(t.Context(), leaderLease)
		if err == nil && !slices.Equal(names, []string{holder}) {
			err = fmt.Errorf("%q lead, %q has the lease", names, holder)
		}
		return err
	})
	return leader
}

// silent is for an API that records nothing: the others do.
func silent(r *rig, o *Options, _ *times) {
	if o.Bus == nil {
		o.Bus = newFaultyBus(r.nats.connect(r.t, r.nats.URLs()...))
	}
	o.Bus.(*faultyBus).on("Terminal", func() error { return errors.New("another one records") })
}

// Exactly one of three leads. One that stops gives it up at once, and then another does.
func TestControl_Lead(t *testing.T) {
	t.Parallel()
	one := start(t, several)
	apis := []*rig{one, one.another("api-2", several), one.another("api-3", several)}
	for len(apis) > 1 {
		leader := leads(t, takesOver, apis...)
		if !leader.observer.isLeading() {
			t.Error("its metrics do not say that it leads")
		}
		leader.stop()
		if leader.leading.Load() || leader.observer.isLeading() {
			t.Error("one that has stopped leads")
		}
		apis = slices.DeleteFunc(apis, func(api *rig) bool { return api == leader })
		leads(t, 2*faena.LeaseEvery, apis...)
	}
}

// A leader that does not reach the server any more stops before another one leads, and one that is not answered for a moment
// goes on.
func TestControl_Lead_CutOff(t *testing.T) {
	t.Parallel()
	one := start(t, several, wired)
	leads(t, takesOver, one)
	two := one.another("api-2", several)
	var unanswered atomic.Int64
	one.bus.on("HoldLease", func() error {
		if unanswered.Add(1) == 1 {
			return faena.ErrUnknown
		}
		return nil
	})
	faenatest.Eventually(t, patience, "it has renewed its lease", func() bool { return unanswered.Load() > 1 })
	if leads(t, takesOver, one, two) != one {
		t.Error("it does not lead any more")
	}
	one.wire.cut()
	since := time.Now()
	faenatest.Eventually(t, takesOver, "another one leads", two.leading.Load)
	if one.leading.Load() {
		t.Error("one that is cut off leads")
	}
	t.Logf("followed after %v", time.Since(since).Round(time.Millisecond))
}

// A leader whose clock stood still, as that of a machine that was suspended, does not go by it.
func TestControl_Lead_Suspended(t *testing.T) {
	t.Parallel()
	one := start(t, several)
	leads(t, takesOver, one)
	two := one.another("api-2", several)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	two.renew(ctx, 1, time.Now().Add(time.Hour)) // a lease of long ago
	if ctx.Err() != nil {
		t.Error("it goes on with a lease that somebody else has")
	}
	if leads(t, takesOver, one, two) != one {
		t.Error("it has taken the lease")
	}
}

// A leader is paused in the middle of something, past its lease, while another one leads and does the same, and then goes on
// with what it had begun: everything happens once.
func TestControl_Lead_Paused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		at   func(api *rig, halt func() error)
	}{
		{"BeforeItSettlesAnOrphan", func(api *rig, halt func() error) { api.bus.on("UpdateRecord", halt) }},
		{"BeforeItAnnouncesAnEnd", func(api *rig, halt func() error) { api.bus.on("Complete", halt) }},
		{"BeforeItRemovesAMessage", func(api *rig, halt func() error) { api.bus.on("DeleteMessage", halt) }},
		{"BeforeItWritesACounter", func(api *rig, halt func() error) { api.bus.on("PutCounter", halt) }},
		{"BeforeItPrunes", func(api *rig, halt func() error) { api.documents.on("Prune", halt) }},
		{"BeforeItRemovesAResult", func(api *rig, halt func() error) { api.bus.on("DeleteObject", halt) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const orphans, old = 3, pruneBatch + 20
			one := start(t, several, hasty, silent, keep(24*time.Hour, 0))
			leads(t, takesOver, one)
			two := one.another("api-2", several, hasty, keep(24*time.Hour, 0))
			two.user("ann", 20)
			two.deploy("ann", "f")
			g := newGate()
			two.worker(1, g.run)
			running := two.accepted("x")
			two.becomes(running, faena.StateRunning)
			two.nats.counters(t, "ann", map[string]string{activeCounter: "1"})

			var halted atomic.Bool
			t.Cleanup(one.bus.gate.reopen)
			c.at(one, func() error {
				if halted.CompareAndSwap(false, true) {
					one.bus.gate.shut()
				}
				return nil
			})
			history := make([]faena.Record, old)
			for i := range history {
				history[i] = endedAgo(50 * time.Hour)
			}
			noError(t, two.bus.PutObject(t.Context(), group, "out.old", []byte("x")))
			history[0].Result.Object = "out.old"
			noError(t, two.documents.Insert(t.Context(), history))
			var lost []string
			for i := range orphans {
				lost = append(lost, two.orphan(func(r *faena.Record) { r.Slot = 10 + i }).ID)
			}
			noError(t, two.publish(queued(15)))
			one.tally.touch("ann")
			faenatest.Eventually(t, takesOver, "the leader is paused", halted.Load)

			if leads(t, takesOver, two) != two {
				t.Fatal("the other one does not lead")
			}
			close(g.open)
			done := func() {
				t.Helper()
				for _, id := range lost {
					if rec := two.becomes(id, faena.StateLost); rec.Reason != faena.ReasonWorkerLost {
						t.Errorf("the record is %+v", rec)
					}
				}
				two.becomes(running, faena.StateSucceeded)
				two.history(orphans + 1)
				two.nats.counters(t, "ann", map[string]string{activeCounter: "0", completedCounter: fmt.Sprint(old + 1), failedCounter: fmt.Sprint(orphans)})
			}
			done()
			one.bus.gate.reopen()
			faenatest.Eventually(t, takesOver, "the first has understood", func() bool { return !one.leading.Load() && !one.observer.isLeading() })
			done()
			two.quiet()
			if n := one.observer.sweptAs(faena.ReasonWorkerLost) + two.observer.sweptAs(faena.ReasonWorkerLost); n != orphans {
				t.Errorf("%d were settled, want %d", n, orphans)
			}
			if n := one.observer.prunedSoFar() + two.observer.prunedSoFar(); n != old {
				t.Errorf("%d were pruned, want %d", n, old)
			}
		})
	}
}
