package control

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// While a backup makes its cut, calls wait, and are admitted when it is over. What is under way before has ended when the pause begins.
func TestControl_Pause(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	r.worker(2, echo)
	resume, err := r.Pause(t.Context())
	noError(t, err)
	if _, err := r.Pause(t.Context()); !faena.IsKind(err, faena.KindConflict) {
		t.Errorf("a second pause gives %v", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	created := r.bus.count("CreateRecord")
	begun := make(chan struct{})
	wg.Go(func() {
		close(begun)
		if _, err := r.call("x"); err != nil {
			t.Errorf("who waited for the end of the pause is given %v", err)
		}
	})
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.cut.enter(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who goes away is let in: %v", err)
	}
	if n := r.bus.count("CreateRecord") - created; n != 0 {
		t.Errorf("%d were admitted meanwhile", n)
	}
	if err := r.cut.enter(t.Context(), time.Millisecond); !isReason(err, "backup_in_progress") || !faena.IsKind(err, faena.KindUnavailable) {
		t.Errorf("who has waited long enough is told %v", err)
	}
	resume()
	resume() // changes nothing
	noError(t, r.cut.enter(t.Context(), 0))
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := r.Pause(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a pause began while an admission was under way: %v", err)
	}
	paused := make(chan struct{})
	wg.Go(func() {
		defer close(paused)
		resume, err := r.Pause(t.Context())
		if err == nil {
			resume()
		}
	})
	r.cut.leave()
	<-paused
	if _, err := r.call("x"); err != nil {
		t.Errorf("after it a call gives %v", err)
	}
}

// What waits in the backlog stays there during the pause.
func TestControl_Pause_Backlog(t *testing.T) {
	t.Parallel()
	r := start(t, several, waits(10), hasty)
	r.user("ann", 1)
	r.deploy("ann", "f")
	leads(t, takesOver, r)
	r.worker(1, echo)
	resume, err := r.Pause(t.Context())
	noError(t, err)
	rec := r.putBack(t)
	asked := r.bus.count("Pending")
	faenatest.Eventually(t, patience, "the leader would release", func() bool { r.hint(rec); return r.bus.count("Pending") > asked })
	enters := func() bool { r.cut.mu.Lock(); defer r.cut.mu.Unlock(); return r.cut.waiting > 0 }
	faenatest.Eventually(t, patience, "the leader waits for the end of the pause", enters)
	found, _, err := r.bus.Record(t.Context(), group, "ann", rec.ID)
	if err != nil || !found.Backlogged {
		t.Errorf("during the pause it is %+v, %v", found, err)
	}
	resume()
	r.becomes(rec.ID, faena.StateSucceeded)
}

// putBack puts an activation into the backlog, as an API does.
func (r *rig) putBack(t *testing.T) *faena.Record {
	t.Helper()
	id, err := r.o.NewID("ann", group)
	noError(t, err)
	fn, err := r.functions.get(t.Context(), "ann", "f")
	noError(t, err)
	rec := &faena.Record{Schema: faena.SchemaVersion, ID: id, User: "ann", Group: group, Function: "f", Revision: 1, Digest: fn.revision.Digest, Publication: 1,
		StartWithinMS: time.Hour.Milliseconds(), State: faena.StateQueued, Backlogged: true, AdmittedAt: time.Now().UTC()}
	_, err = r.bus.CreateRecord(t.Context(), rec)
	noError(t, err)
	noError(t, r.bus.PublishBacklog(t.Context(), "ann", group, 1, &faena.Message{Schema: faena.SchemaVersion, ID: id, Revision: fn.revision,
		Parameter: faena.Blob{Size: 1, Inline: []byte("x")}}))
	return rec
}

// Objects that nothing refers to any more are removed when the last backup has read them.
func TestControl_KeepObjects(t *testing.T) {
	t.Parallel()
	r := start(t)
	ctx := t.Context()
	there := func() bool {
		_, err := r.bus.Object(ctx, group, "in.1")
		if err != nil && !faena.IsKind(err, faena.KindNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	noError(t, r.bus.PutObject(ctx, group, "in.1", []byte("x")))
	one, two := r.KeepObjects(), r.KeepObjects()
	noError(t, r.deleteObject(ctx, group, "in.1"))
	one(ctx)
	if !there() {
		t.Error("it was removed while a backup reads")
	}
	two(ctx)
	if there() {
		t.Error("it was not removed after it")
	}
	noError(t, r.bus.PutObject(ctx, group, "in.1", []byte("x")))
	noError(t, r.deleteObject(ctx, group, "in.1"))
	if there() {
		t.Error("it is not removed without a backup")
	}
}

// An end that is in history counts, whatever the bucket says; what is settled may be settled again.
func TestControl_LoseLive(t *testing.T) {
	t.Parallel()
	r := start(t, several, waits(10))
	r.user("ann", 10)
	r.deploy("ann", "f")
	r.stop()
	rec, known := r.putBack(t), r.putBack(t)
	ended := *known
	noError(t, ended.Fail(faena.ReasonCancelled, "It was cancelled.", time.Now().UTC()))
	noError(t, r.documents.Insert(t.Context(), []faena.Record{ended}))
	stray := r.putBack(t)
	noError(t, r.bus.PurgeRecord(t.Context(), group, "ann", stray.ID))
	lost, err := r.LoseLive(t.Context(), group)
	if err != nil || len(lost) != 1 || lost[0].ID != rec.ID || lost[0].State != faena.StateLost || lost[0].Reason != faena.ReasonRestored {
		t.Errorf("lost are %+v, %v", lost, err)
	}
	if _, _, err := r.bus.Record(t.Context(), group, "ann", known.ID); !faena.IsKind(err, faena.KindNotFound) {
		t.Errorf("the record of what is in history is still there: %v", err)
	}
	if waits, err := r.bus.BacklogByUser(t.Context(), group); err != nil || len(waits) > 0 {
		t.Errorf("in the backlog are %v, %v", waits, err)
	}
	if lost, err := r.LoseLive(t.Context(), group); err != nil || len(lost) != 0 {
		t.Errorf("again it loses %v, %v", lost, err)
	}
}
