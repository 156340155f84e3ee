package control

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// Answers that are lost now and then cost a repetition: everything that is called runs once, and its caller is told.
func TestControl_Admission_LostAnswers(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 8)
	r.deploy("ann", "f")
	w := r.worker(4, echo)
	faults := []error{faena.ErrUnknown, faena.ErrRetry, faena.ErrUnknown, nil, nil}
	var n, m atomic.Int64
	r.bus.onPublish(func(*faena.Message) (error, bool) { i := n.Add(1); return faults[i%5], i%5 == 0 })
	r.bus.onCreate(func(*faena.Record) (error, bool) { i := m.Add(1); return faults[i%5], i%5 == 0 })
	const calls = 100
	var wg sync.WaitGroup
	for client := range 4 {
		wg.Go(func() {
			for i := range calls / 4 {
				p := fmt.Sprint(client, i)
				if rec, err := r.call(p); err != nil || string(rec.Result.Inline) != p {
					t.Errorf("the call gives %+v, %v", rec, err)
				}
			}
		})
	}
	wg.Wait()
	if ran := w.ran.Load(); ran != calls {
		t.Errorf("%d ran", ran)
	}
	r.stored(calls)
	r.quiet()
}

// What becomes of an admission that does not come to its end: an error within the budget that says what is known, and
// nothing of it that would run, or stay.
func TestControl_Admission_Fails(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("p", faena.MaxInlineBytes+1)
	never := func(err error, after bool) func(r *rig) {
		return func(r *rig) { r.bus.onPublish(func(*faena.Message) (error, bool) { return err, after }) }
	}
	for i, c := range []struct {
		name   string
		fault  func(r *rig)
		reason string
		stored int // of records that the history has afterwards, all of them cancelled
	}{
		{"PublishIsNeverAnswered", never(faena.ErrUnknown, false), "queue_unavailable", 1},
		{"PublishIsStoredAndNeverAnswered", never(faena.ErrUnknown, true), "queue_unavailable", 1},
		{"PublishIsNotTaken", never(faena.ErrRetry, false), "queue_unavailable", 0},
		{"PublishMeetsAFullStore", never(faena.ErrFull, false), "storage_full", 0},
		{"PublishFailsForGood", never(fmt.Errorf("not authorised"), false), "queue_unavailable", 0},
		{"TheRecordIsNeverAnswered", func(r *rig) {
			r.bus.onCreate(func(*faena.Record) (error, bool) { return faena.ErrUnknown, false })
		}, "queue_unavailable", 0},
		{"TheRecordFailsForGood", func(r *rig) {
			r.bus.onCreate(func(*faena.Record) (error, bool) { return fmt.Errorf("not authorised"), false })
		}, "queue_unavailable", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := start(t)
			r.user("ann", 1)
			r.deploy("ann", "f")
			c.fault(r)
			if i > 0 { // the first takes the time that it takes in earnest
				r.admitBudget = time.Second
			}
			start := time.Now()
			_, err := r.send(large)
			e := isKind(t, err, faena.KindUnavailable)
			if !e.Retryable || e.RetryAfter <= 0 || e.OutcomeUnknown || e.Reason != c.reason {
				t.Errorf("the error is %+v", e)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			for _, rec := range r.stored(c.stored) {
				if rec.State != faena.StateCancelled || rec.ID != e.Activation {
					t.Errorf("the record is %+v", rec)
				}
			}
			r.bus.onPublish(nil)
			r.bus.onCreate(nil)
			w := r.worker(1, echo)
			r.quiet()
			if _, err := r.call("x"); err != nil { // the slot is free
				t.Error(err)
			}
			if n := w.ran.Load(); n != 1 {
				t.Errorf("%d ran", n)
			}
			r.quiet()
		})
	}
}

// Where the message was stored, its answer lost, and a worker was faster than the API's second thoughts, the caller is
// told that nobody knows, and by which id to ask.
func TestControl_Admission_OutcomeUnknown(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 1)
	r.deploy("ann", "f")
	r.admitBudget = time.Second
	r.worker(1, echo)
	r.bus.onPublish(func(*faena.Message) (error, bool) { return faena.ErrUnknown, true })
	_, err := r.call("x")
	e := isKind(t, err, faena.KindUnavailable)
	if !e.OutcomeUnknown || e.Reason != "outcome_unknown" || e.Activation == "" {
		t.Fatalf("the error is %+v", e)
	}
	r.bus.onPublish(nil)
	r.becomes(e.Activation, faena.StateSucceeded)
	r.stored(1)
	r.quiet()
}

// NATS goes away while calls come in, and comes back: each call was accepted or answered in time with an error that
// says to try again; what was accepted runs, and nothing else does.
func TestControl_Admission_NATSAway(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 1000)
	r.deploy("ann", "f")
	var mu sync.Mutex
	mayRun, mustRun := make(map[string]bool), make(map[string]bool)
	var refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 400 {
				start := time.Now()
				rec, err := r.send("x")
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("a call took %v", took)
				}
				mu.Lock()
				if err == nil {
					mayRun[rec.ID], mustRun[rec.ID] = true, true
					mu.Unlock()
					continue
				}
				if e := isKind(t, err, faena.KindUnavailable); e.OutcomeUnknown {
					mayRun[e.Activation] = true
				} else if !e.Retryable {
					t.Errorf("the error is %+v", e)
				}
				mu.Unlock()
				refused.Add(1)
				return
			}
		})
	}
	faenatest.Eventually(t, patience, "some are accepted", func() bool { mu.Lock(); defer mu.Unlock(); return len(mustRun) > 50 })
	r.nats.Stop(0)
	wg.Wait()
	if refused.Load() == 0 {
		t.Fatal("no call has met the outage")
	}
	if missing, ready := r.Ready(t.Context()); ready || !strings.Contains(strings.Join(missing, " "), "no connection to NATS") {
		t.Errorf("ready is %v, missing are %q", ready, missing)
	}
	r.nats.Start(t, 0)
	faenatest.Eventually(t, patience, "the connection is back", r.bus.Connected)
	r.worker(4, echo)
	for id := range mustRun {
		r.becomes(id, faena.StateSucceeded)
	}
	faenatest.Eventually(t, patience, "the queue is empty", func() bool {
		active, err := r.bus.ActiveByUser(t.Context(), group)
		return err == nil && len(active) == 0
	})
	for _, rec := range r.stored(len(mustRun)) {
		if rec.State == faena.StateSucceeded && !mayRun[rec.ID] {
			t.Errorf("activation %s ran, and its caller was told that it would not", rec.ID)
		}
	}
	t.Logf("%d accepted, %d in doubt", len(mustRun), len(mayRun)-len(mustRun))
}

// A call that waits while the connection is lost gets its answer when it is back, although the word of its end is lost.
func TestControl_Await_Reconnect(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 1)
	r.deploy("ann", "f")
	g := newGate()
	w := r.worker(1, g.run)
	var wg sync.WaitGroup
	wg.Go(func() {
		if rec, err := r.call("x"); err != nil || rec.State != faena.StateSucceeded {
			t.Errorf("the call gives %+v, %v", rec, err)
		}
	})
	faenatest.Eventually(t, patience, "it runs", func() bool { return g.running.Load() == 1 })
	w.mute.Store(true)
	close(g.open)
	list := r.stored(1)
	if list[0].State != faena.StateSucceeded {
		t.Fatalf("it ended as %s", list[0].State)
	}
	r.nats.Stop(0)
	r.nats.Start(t, 0)
	start := time.Now()
	wg.Wait()
	if took := time.Since(start); took > 10*time.Second { // long before it would have looked again
		t.Errorf("it was answered %v after the connection was back", took)
	}
}

// Stores that are nearly full refuse what is new; what was accepted is settled.
func TestControl_Gauge_NearlyFull(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 1000)
	r.deploy("ann", "f")
	id := r.accepted("before")
	r.bus.full.Store(true)
	faenatest.Eventually(t, patience, "new work is refused", func() bool { _, err := r.send("x"); return err != nil })
	_, err := r.call("x")
	e := isKind(t, err, faena.KindUnavailable)
	if e.Reason != "storage_nearly_full" || !e.Retryable || !strings.Contains(e.Message, "the object store of group default is 85 % full") {
		t.Errorf("the error is %+v", e)
	}
	if missing, ready := r.Ready(t.Context()); !ready || !strings.Contains(strings.Join(missing, " "), "storage: ") {
		t.Errorf("ready is %v, missing are %q", ready, missing)
	}
	r.worker(1, echo)
	r.becomes(id, faena.StateSucceeded)
	r.bus.full.Store(false)
	faenatest.EventuallyNil(t, patience, "there is room again", func() error { _, err := r.send("x"); return err })
}
