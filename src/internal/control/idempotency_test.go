package control

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// keyed calls ann's function f with a key.
func (r *rig) keyed(key, parameter string, async bool) (faena.Record, bool, error) {
	return r.ActivateOnce(r.t.Context(), key, faena.ActivationRequest{User: "ann", Function: "f", Parameter: []byte(parameter), Async: async})
}

// unhurried is for an API that no call waits for in vain, however busy the machine is.
func unhurried(_ *rig, _ *Options, times *times) {
	times.admitBudget, times.appearWithin, times.releaseFor = patience, patience, patience
}

// claim makes a key stand for an activation that is nowhere, as an API leaves it that is killed before it has made it.
func (r *rig) claim(key, parameter, id string) {
	r.t.Helper()
	o := order{c: r.Control, hash: keyHash("ann", key), req: faena.ActivationRequest{User: "ann", Function: "f", Parameter: []byte(parameter)}}
	noError(r.t, o.prepare(r.t.Context()))
	o.claim.ID = id
	_, err := o.hold(r.t.Context())
	noError(r.t, err)
}

// Whatever number of calls come at once, over two APIs, the function runs once, and all get its end.
func TestControl_ActivateOnce_AtOnce(t *testing.T) {
	t.Parallel()
	r := start(t, several, unhurried)
	other := r.another("api-2", several, unhurried)
	r.user("ann", 10)
	r.deploy("ann", "f")
	w := r.worker(4, func(j *job) (string, faena.Reason) { return j.record.ID, "" })
	const calls = 50
	var wg sync.WaitGroup
	var made atomic.Int64
	ids := make([]string, calls)
	for i := range calls {
		at := r
		if i%2 == 1 {
			at = other
		}
		wg.Go(func() {
			rec, replayed, err := at.keyed("k", "x", i%3 == 0)
			if err != nil || i%3 != 0 && string(rec.Result.Inline) != rec.ID {
				t.Errorf("call %d gives %+v, %v", i, rec, err)
			}
			if !replayed {
				made.Add(1)
			}
			ids[i] = rec.ID
		})
	}
	wg.Wait()
	for i, id := range ids {
		if id != ids[0] {
			t.Errorf("call %d has got %s, not %s", i, id, ids[0])
		}
	}
	r.stored(1)
	if made.Load() != 1 || w.ran.Load() != 1 {
		t.Errorf("%d calls have made it, it ran %d times", made.Load(), w.ran.Load())
	}
	r.empty()
}

// A refusal frees the key at once: the same key, also with another parameter, is as new.
func TestControl_ActivateOnce_Refused(t *testing.T) {
	t.Parallel()
	r := start(t, unhurried)
	r.user("ann", 10)
	r.deploy("ann", "f")
	r.worker(1, echo)
	for name, c := range map[string]struct {
		fault func() (undo func())
		kind  faena.Kind
	}{
		"AQueueThatIsFull": {func() func() {
			r.bus.onPublish(func(*faena.Message) (error, bool) { return faena.ErrFull, false })
			return func() { r.bus.onPublish(nil) }
		}, faena.KindUnavailable},
		"APublicationThatIsNotConfirmed": {func() func() {
			r.bus.onPublish(func(*faena.Message) (error, bool) { return faena.ErrUnknown, false })
			return func() { r.bus.onPublish(nil) }
		}, faena.KindUnavailable},
		"ARecordThatCannotBeStored": {func() func() {
			r.bus.onCreate(func(*faena.Record) (error, bool) { return faena.ErrRetry, false })
			return func() { r.bus.onCreate(nil) }
		}, faena.KindUnavailable},
		"AFunctionThatIsNotThere": {func() func() {
			noError(t, r.Delete(t.Context(), "ann", "f", faena.Condition{}))
			return func() { r.deploy("ann", "f") }
		}, faena.KindNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			undo := c.fault()
			r.admitBudget = 2 * time.Second
			_, replayed, err := r.keyed(name, "x", false)
			isKind(t, err, c.kind)
			undo()
			r.admitBudget = patience
			rec, again, err := r.keyed(name, "y", false)
			if err != nil || replayed || again || string(rec.Result.Inline) != "y" {
				t.Errorf("after that it gives %+v, %v, replayed %v and %v", rec, err, replayed, again)
			}
		})
	}
	r.quiet()
}

// An activation of which nobody knows whether it was accepted keeps its key: the same call finds out.
func TestControl_ActivateOnce_OutcomeUnknown(t *testing.T) {
	t.Parallel()
	r := start(t, func(_ *rig, _ *Options, times *times) { times.admitBudget = 2 * time.Second })
	r.user("ann", 10)
	r.deploy("ann", "f")
	r.bus.onPublish(func(*faena.Message) (error, bool) { return faena.ErrUnknown, true })
	w := r.worker(1, echo) // it has the record running before it can be cancelled
	_, _, err := r.keyed("k", "x", false)
	e := isKind(t, err, faena.KindUnavailable)
	r.bus.onPublish(nil)
	rec, replayed, err := r.keyed("k", "x", false)
	if err != nil || replayed != e.OutcomeUnknown || e.OutcomeUnknown && rec.ID != e.Activation || w.ran.Load() != 1 {
		t.Errorf("the first call gives %+v, the second %+v, %v, replayed %v; it ran %d times", e, rec, err, replayed, w.ran.Load())
	}
	r.quiet()
}

// A key whose API has died is said to be in progress, and half a minute later stands for what the next call makes, under its id.
func TestControl_ActivateOnce_Died(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	w := r.worker(2, echo)
	id, err := r.o.NewID("ann", group)
	noError(t, err)
	r.claim("k", "x", id)
	began := time.Now()
	_, _, err = r.keyed("k", "x", false)
	if e := isKind(t, err, faena.KindConflict); e.Reason != reasonInProgress || !e.Retryable || e.RetryAfter == 0 || e.Activation != id {
		t.Errorf("while it is young: %+v", e)
	}
	if waited := time.Since(began); waited < r.appearWithin {
		t.Errorf("it was looked for %s, an admission may take %s", waited, faena.AdmitBudget)
	}
	_, _, err = r.keyed("k", "y", false)
	if e := isKind(t, err, faena.KindInvalid); e.Reason != reasonMismatch {
		t.Errorf("with another parameter: %+v", e)
	}
	r.bus.older.Store(int64(faena.ClaimWithin))
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if rec, _, err := r.keyed("k", "x", false); err != nil || rec.ID != id || string(rec.Result.Inline) != "x" {
				t.Errorf("then it gives %+v, %v", rec, err)
			}
		})
	}
	wg.Wait()
	r.stored(1)
	if w.ran.Load() != 1 {
		t.Errorf("it ran %d times", w.ran.Load())
	}
	r.quiet()
}

// A call is not told that it was accepted while the activation that its key stands for has a record and no message: its API died in
// between. When that is certain the activation is lost, and the call made anew.
func TestControl_ActivateOnce_DiedBeforePublication(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	w := r.worker(2, echo)
	lost := make(map[string]string)
	for key, backlogged := range map[string]bool{"for a slot": false, "for the backlog": true} {
		rec := r.orphan(func(rec *faena.Record) {
			at := time.Now().UTC()
			rec.ID, rec.AdmittedAt, rec.Backlogged = idAt(at), at, backlogged
		})
		r.claim(key, "x", rec.ID)
		lost[key] = rec.ID
	}
	var wg sync.WaitGroup
	for key, id := range lost {
		for _, async := range []bool{true, false} {
			wg.Go(func() {
				_, _, err := r.keyed(key, "x", async)
				if e := isKind(t, err, faena.KindConflict); e.Reason != reasonInProgress || !e.Retryable || e.Activation != id {
					t.Errorf("%s: while it is young: %+v", key, e)
				}
			})
		}
	}
	wg.Wait()
	r.bus.older.Store(int64(faena.ClaimWithin))
	for key, id := range lost {
		made, replayed, err := r.keyed(key, "x", true)
		if err != nil || replayed || made.ID == id {
			t.Fatalf("%s: then it gives %+v, %v, replayed %v", key, made, err, replayed)
		}
		r.becomes(made.ID, faena.StateSucceeded)
		r.becomes(id, faena.StateLost)
		if again, replayed, err := r.keyed(key, "x", true); err != nil || !replayed || again.ID != made.ID {
			t.Errorf("%s: once more it gives %+v, %v, replayed %v", key, again, err, replayed)
		}
	}
	r.stored(4)
	if w.ran.Load() != 2 {
		t.Errorf("%d ran", w.ran.Load())
	}
	r.quiet()
}

// An id that no activation can have any more is given up with its key.
func TestControl_ActivateOnce_OldID(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	old := idAt(time.Now().Add(-faena.IdempotencyTTL/2 - time.Minute))
	r.claim("k", "x", old)
	r.bus.older.Store(int64(faena.ClaimWithin))
	made, replayed, err := r.keyed("k", "x", true)
	if err != nil || replayed || made.ID == old {
		t.Errorf("it gives %+v, %v, replayed %v", made, err, replayed)
	}
	if again, replayed, err := r.keyed("k", "x", true); err != nil || !replayed || again.ID != made.ID {
		t.Errorf("once more it gives %+v, %v, replayed %v", again, err, replayed)
	}
}

// What makes the id of an old key be taken, and cannot be read, keeps no call waiting for ever.
func TestControl_ActivateOnce_TakenByWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	id, err := r.o.NewID("ann", group)
	noError(t, err)
	r.claim("k", "x", id)
	r.bus.older.Store(int64(faena.ClaimWithin))
	bucket, err := r.nats.JetStream(t).KeyValue(t.Context(), "activations-"+group)
	noError(t, err)
	_, err = bucket.Put(t.Context(), "ann."+id, []byte("?"))
	noError(t, err)
	_, _, err = r.keyed("k", "x", true)
	if e := isKind(t, err, faena.KindConflict); e.Reason != reasonInProgress || e.Activation != id {
		t.Errorf("the error is %+v", e)
	}
}

// An API that sleeps between its claim and the record, and wakes up when another one has admitted the activation, takes nothing away.
func TestControl_ActivateOnce_Sleeps(t *testing.T) {
	t.Parallel()
	r := start(t, several, func(_ *rig, _ *Options, times *times) {
		times.admitBudget, times.claimWithin = 3*time.Second, time.Millisecond
	})
	other := r.another("api-2", several)
	other.bus.older.Store(int64(faena.ClaimWithin))
	r.user("ann", 10)
	r.deploy("ann", "f")
	for name, fault := range map[string]error{"AndFindsTheRecord": nil, "AndIsNotAnswered": faena.ErrUnknown} {
		t.Run(name, func(t *testing.T) {
			var made faena.Record
			r.bus.on("CreateRecord", func() error {
				if made.ID == "" {
					var err error
					made, _, err = other.keyed(name, "x", true)
					noError(t, err)
				}
				return fault
			})
			defer r.bus.on("CreateRecord", nil)
			if rec, replayed, err := r.keyed(name, "x", true); fault == nil && (err != nil || !replayed || rec.ID != made.ID) {
				t.Errorf("it gives %+v, %v, replayed %v", rec, err, replayed)
			}
			live, _, err := r.bus.Record(t.Context(), group, "ann", made.ID)
			noError(t, err)
			if live.State != faena.StateQueued || live.Digest != made.Digest {
				t.Errorf("the record is %+v", live)
			}
			if again, replayed, err := other.keyed(name, "x", true); err != nil || !replayed || again.ID != made.ID {
				t.Errorf("the key stands for %+v, %v, replayed %v", again, err, replayed)
			}
		})
	}
	w := r.worker(1, echo)
	r.stored(2)
	if w.ran.Load() != 2 {
		t.Errorf("%d ran", w.ran.Load())
	}
	r.empty()
}

// What has ended without ever being started does not use the key up; what its user has cancelled does.
func TestControl_ActivateOnce_NeverStarted(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	_, _, err := r.keyed("k", "x", false)
	if e := isKind(t, err, faena.KindUnavailable); e.Reason != string(faena.ReasonNoWorker) {
		t.Errorf("without a worker: %+v", e)
	}
	queued, _, err := r.keyed("c", "x", true)
	noError(t, err)
	_, err = r.Cancel(t.Context(), "ann", queued.ID)
	noError(t, err)
	r.stored(2)
	w := r.worker(1, echo)
	rec, replayed, err := r.keyed("k", "x", false)
	if err != nil || replayed || string(rec.Result.Inline) != "x" {
		t.Errorf("with one it gives %+v, %v, replayed %v", rec, err, replayed)
	}
	rec, replayed, err = r.keyed("c", "x", false)
	if err != nil || !replayed || rec.ID != queued.ID || rec.State != faena.StateCancelled {
		t.Errorf("the cancelled one is %+v, %v, replayed %v", rec, err, replayed)
	}
	if w.ran.Load() != 1 {
		t.Errorf("%d ran", w.ran.Load())
	}
	r.quiet()
}

// An admission that was given up, by an API that died before it had freed the key, does not use it up either.
func TestControl_ActivateOnce_GivenUp(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	for key, message := range map[string]string{"given up": notConfirmed, "cancelled": "Cancelled by its user before it started."} {
		rec := endedAgo(time.Minute)
		rec.State, rec.Reason, rec.Message = faena.StateCancelled, faena.ReasonCancelled, message
		noError(t, r.documents.Insert(t.Context(), []faena.Record{rec}))
		r.claim(key, "x", rec.ID)
		got, replayed, err := r.keyed(key, "x", true)
		if err != nil || replayed != (key == "cancelled") || replayed != (got.ID == rec.ID) {
			t.Errorf("%s: it gives %+v, %v, replayed %v", key, got, err, replayed)
		}
	}
}

// A key is not freed by a refusal where another instance has admitted the activation meanwhile, whatever our clock says.
func TestControl_ActivateOnce_RefusedTooLate(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	other := r.another("api-2", several)
	other.bus.older.Store(int64(faena.ClaimWithin))
	r.user("ann", 10)
	r.deploy("ann", "f")
	var made faena.Record
	r.bus.on("BusySlots", func() (err error) {
		if made.ID == "" {
			made, _, err = other.keyed("k", "x", true)
			noError(t, err)
		}
		return errors.New("away")
	})
	_, _, err := r.keyed("k", "x", true)
	isKind(t, err, faena.KindUnavailable)
	r.bus.on("BusySlots", nil)
	if got, replayed, err := r.keyed("k", "x", true); err != nil || !replayed || got.ID != made.ID {
		t.Errorf("the key stands for %+v, %v, replayed %v, not for %s", got, err, replayed, made.ID)
	}
}

// Nor where that happens between the look for the activation and the freeing of the key.
func TestControl_ActivateOnce_RefusedAtTheSameMoment(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	other := r.another("api-2", several)
	other.bus.older.Store(int64(faena.ClaimWithin))
	r.user("ann", 10)
	r.deploy("ann", "f")
	var made faena.Record
	r.bus.on("BusySlots", func() error { return errors.New("away") })
	r.bus.on("DropKey", func() (err error) {
		made, _, err = other.keyed("k", "x", true)
		noError(t, err)
		return nil
	})
	_, _, err := r.keyed("k", "x", true)
	isKind(t, err, faena.KindUnavailable)
	r.bus.on("BusySlots", nil)
	r.bus.on("DropKey", nil)
	if got, replayed, err := r.keyed("k", "x", true); err != nil || !replayed || got.ID != made.ID {
		t.Errorf("the key stands for %+v, %v, replayed %v, not for %s", got, err, replayed, made.ID)
	}
}

// A key may outlive the history of its activation.
func TestControl_ActivateOnce_Pruned(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	old := endedAgo(10 * 24 * time.Hour)
	noError(t, r.documents.Insert(t.Context(), []faena.Record{old}))
	_, err := r.documents.Prune(t.Context(), time.Now().Add(-8*24*time.Hour), 10)
	noError(t, err)
	r.claim("k", "x", old.ID)
	r.bus.older.Store(int64(time.Hour))
	_, _, err = r.keyed("k", "x", false)
	if e := isKind(t, err, faena.KindGone); e.Reason != "activation_expired" {
		t.Errorf("the error is %+v", e)
	}
}

// A call that waits for another call's activation ends when it must: with its caller, or with its instance.
func TestControl_ActivateOnce_Waits(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	other := r.another("api-2", several)
	r.user("ann", 10)
	r.deploy("ann", "f")
	g := newGate()
	r.worker(1, g.run)
	made, _, err := r.keyed("k", "x", true)
	noError(t, err)
	gone, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, _, err := other.ActivateOnce(gone, "k", faena.ActivationRequest{User: "ann", Function: "f", Parameter: []byte("x")}); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that goes away gets %v", err)
		}
	})
	wg.Go(func() {
		if rec, replayed, err := other.keyed("k", "x", false); err != nil || !replayed || rec.ID != made.ID || rec.State.Terminal() {
			t.Errorf("while its instance stops a call gets %+v, %v, replayed %v", rec, err, replayed)
		}
	})
	faenatest.Eventually(t, patience, "both wait", func() bool {
		other.waits.mu.Lock()
		defer other.waits.mu.Unlock()
		return len(other.waits.waiting) == 2
	})
	cancel()
	faenatest.Eventually(t, patience, "one has gone", func() bool {
		other.waits.mu.Lock()
		defer other.waits.mu.Unlock()
		return len(other.waits.waiting) == 1
	})
	other.Drain(t.Context())
	wg.Wait()
	close(g.open)
	if rec, replayed, err := r.keyed("k", "x", false); err != nil || !replayed || string(rec.Result.Inline) != "x" {
		t.Errorf("its end is %+v, %v, replayed %v", rec, err, replayed)
	}
	r.empty()
}
