package control

import (
	"errors"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// usageIs checks that a user's usage, and what its hours sum up to, is exactly this.
func (r *rig) usageIs(user string, completed, failed int64) {
	r.t.Helper()
	sum, err := r.documents.Documents.UserUsage(r.t.Context(), user)
	noError(r.t, err)
	hours, err := r.documents.UsageByHour(r.t.Context(), user, time.Time{}, 1000)
	noError(r.t, err)
	var byHour faena.Usage
	for _, h := range hours {
		byHour.Completed, byHour.Failed = byHour.Completed+h.Completed, byHour.Failed+h.Failed
	}
	if sum.Completed != completed || sum.Failed != failed || byHour.Completed != completed || byHour.Failed != failed {
		r.t.Errorf("the usage of %s is %+v, by hour %+v; want %d completed and %d failed", user, sum, byHour, completed, failed)
	}
}

// The API that records is killed between any two steps. Another one does the rest: each activation is recorded once, and
// nothing of it is left.
func TestControl_Record_Killed(t *testing.T) {
	t.Parallel()
	const purge, ack, object = "$JS.API.STREAM.PURGE.KV_activations-", "$JS.ACK.KV_activations-", "$JS.API.STREAM.PURGE.OBJ_objects-"
	// at kills it at the first call of a method.
	at := func(h *hooks, method string) func(r *rig) {
		return func(r *rig) {
			on := h
			if on == nil {
				on = &r.bus.hooks
			}
			on.on(method, func() error { r.kill(); return errors.New("it is dead") })
		}
	}
	for _, c := range []struct {
		name string
		arm  func(r *rig)
	}{
		{"BeforeInsert", func(r *rig) { at(&r.documents.hooks, "Insert")(r) }},
		{"AfterInsert", at(nil, "BusySlots")},
		{"BeforeAMessageIsLookedAt", at(nil, "SlotMessage")},
		{"BeforeAMessageIsDeleted", at(nil, "DeleteMessage")},
		{"AfterAMessageWasDeleted", func(r *rig) { r.dies("$JS.API.STREAM.MSG.DELETE.", 1, cutAfter) }},
		{"BeforeAParameterIsDeleted", at(nil, "DeleteObject")},
		{"WhileAParameterIsDeleted", func(r *rig) { r.dies(object, 1, cutAfter) }},
		{"BetweenTwoParameters", func(r *rig) { r.dies(object, 2, cutAfter) }},
		{"BeforePurge", func(r *rig) { r.dies(purge, 1, cutBefore) }},
		{"AfterOnePurge", func(r *rig) { r.dies(purge, 1, cutAfter) }},
		{"InTheMiddleOfThePurges", func(r *rig) { r.dies(purge, 5, cutAfter) }},
		{"BeforeAck", func(r *rig) {
			purges := 0
			r.wire.on(func(subject string) verdict {
				if strings.HasPrefix(subject, purge) {
					purges++
				}
				if purges == 0 || !strings.HasPrefix(subject, ack) {
					return pass
				}
				r.dead()
				return cutBefore
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const n, large = 12, 2
			one := start(t, several, wired)
			one.user("ann", 20)
			one.deploy("ann", "f")
			g := newGate()
			w := one.worker(n, func(j *job) (string, faena.Reason) {
				if _, reason := g.run(j); reason != "" {
					return "", reason
				}
				if len(j.parameter) == 1 {
					return "", faena.ReasonExitNonzero
				}
				return "done", ""
			})
			w.deaf.Store(true) // messages are left behind
			for i := range n {
				p := "x"
				if i < large {
					p = strings.Repeat("p", faena.MaxInlineBytes+1)
				} else if i%3 > 0 {
					p = "xx"
				}
				one.accepted(p)
			}
			faenatest.Eventually(t, patience, "all run", func() bool { return g.running.Load() == n })
			c.arm(one)
			close(g.open)
			faenatest.Eventually(t, patience, "it is killed", one.wire.isCut)
			<-one.ended
			two := one.another("api-2", several)
			one.nats.recorderWait(t, 500*time.Millisecond)
			ends := make(map[faena.State]int64)
			for _, rec := range two.stored(n) {
				ends[rec.State]++
			}
			two.empty()
			if ends[faena.StateSucceeded]+ends[faena.StateFailed] != n || ends[faena.StateFailed] != 3 {
				t.Errorf("the ends are %v", ends)
			}
			two.usageIs("ann", n-3, 3)
			if ran := w.ran.Load(); ran != n {
				t.Errorf("%d ran", ran)
			}
			two.stored(n)
		})
	}
}

// An API that is stopped while it records finishes what it has begun.
func TestControl_Record_Stopped(t *testing.T) {
	t.Parallel()
	one := start(t, several)
	one.user("ann", 5)
	one.deploy("ann", "f")
	w := one.worker(2, echo)
	w.deaf.Store(true)
	one.bus.on("BusySlots", func() error {
		if one.documents.inserts.Load() > 0 {
			one.cancel()
		}
		return nil
	})
	one.accepted(strings.Repeat("p", faena.MaxInlineBytes+1))
	<-one.ended
	one.stored(1)
	two := one.another("api-2", several)
	two.empty()
}
