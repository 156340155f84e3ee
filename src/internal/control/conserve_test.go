package control

import (
	"fmt"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// booked waits until the books of the default group are as they should be.
func (r *rig) booked(want faena.Conservation) {
	r.t.Helper()
	faenatest.EventuallyNil(r.t, patience, fmt.Sprintf("the books say %+v", want), func() error {
		if is, known := r.observer.conserved(group); !known || is != want {
			return fmt.Errorf("they say %+v, known: %v", is, known)
		}
		return nil
	})
}

// Where the activations of a group are is told by who leads.
func TestConservation(t *testing.T) {
	t.Parallel()
	r := waiting(t, 5, hasty, func(_ *rig, _ *Options, t *times) { t.orphanAge = time.Hour })
	other := r.another("api-2", several)
	r.booked(faena.Conservation{})
	g := newGate()
	r.worker(3, g.run)
	ids := r.accept("ann", 10)
	r.booked(faena.Conservation{Backlog: 6, Queued: 1, Running: 3})

	orphan := r.orphan(func(rec *faena.Record) { rec.User = "bob" })
	r.booked(faena.Conservation{Backlog: 6, Queued: 1, Running: 3, Ended: 1, Drift: 1}) // it looks as if it had ended
	noError(t, r.bus.Bus.PurgeRecord(t.Context(), group, "bob", orphan.ID))
	r.booked(faena.Conservation{Backlog: 6, Queued: 1, Running: 3})

	m := &faena.Message{Schema: faena.SchemaVersion, ID: orphan.ID, Revision: &faena.Revision{Schema: faena.SchemaVersion, User: "eve", Function: "f"}}
	noError(t, r.bus.Bus.PublishBacklog(t.Context(), "eve", group, 1, m))
	r.user("eve", 1)                                              // without a user, or a record, nobody is to be released
	r.bus.on("RecordAge", func() error { return faena.ErrRetry }) // and the leader does not get to see that there is none
	r.hint(&faena.Record{User: "eve", Group: group})
	r.booked(faena.Conservation{Backlog: 7, Queued: 1, Running: 3, Drift: 1})
	r.bus.on("RecordAge", nil)
	r.booked(faena.Conservation{Backlog: 6, Queued: 1, Running: 3})

	r.documents.away.Store(true)
	other.documents.away.Store(true)
	close(g.open)
	r.booked(faena.Conservation{Ended: 10}) // what waits for the store does not belong to what is missing
	at := time.Now()
	faenatest.Eventually(t, patience, "it was reckoned again", func() bool { return time.Since(at) > 2*r.driftAfter })
	r.booked(faena.Conservation{Ended: 10})
	r.documents.away.Store(false)
	other.documents.away.Store(false)
	r.booked(faena.Conservation{})
	r.succeed("ann", ids...)

	if _, known := other.observer.conserved(group); known {
		t.Error("one that does not lead tells too")
	}
	r.stop()
	if is, known := r.observer.conserved(group); known {
		t.Errorf("one that has stopped still says %+v", is)
	}
}

// What waits to be filed for its retry is where it belongs; so it is when it was filed.
func TestConservation_WaitsToBeFiled(t *testing.T) {
	t.Parallel()
	r := waiting(t, 5, silent, hasty, func(_ *rig, _ *Options, t *times) { t.orphanAge = time.Hour })
	rec := r.retried(time.Hour)
	r.booked(faena.Conservation{Ended: 1})
	at := time.Now()
	faenatest.Eventually(t, patience, "it was examined", func() bool { return time.Since(at) > 2*r.driftAfter })
	r.booked(faena.Conservation{Ended: 1})
	noError(t, r.file(t.Context(), rec))
	r.booked(faena.Conservation{Backlog: 1})
	r.orphan(func(rec *faena.Record) { rec.Backlogged = true })
	r.booked(faena.Conservation{Backlog: 1, Ended: 1, Drift: 1})
}
