package control

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// A document store that fails at times, before or after it has stored a batch: each activation is recorded once.
func TestControl_Record_ExactlyOnce(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.documents.insert = func(n int64) (error, bool) {
		if n%3 != 0 {
			return errAway, n%2 == 0
		}
		return nil, false
	}
	r.user("ann", 100)
	r.deploy("ann", "f")
	r.worker(4, func(j *job) (string, faena.Reason) {
		if string(j.parameter) == "1" {
			return "", faena.ReasonExitNonzero
		}
		return "done", ""
	})
	const n = 60
	var wg sync.WaitGroup
	for client := range 3 {
		wg.Go(func() {
			for i := range n / 3 {
				if _, err := r.call(fmt.Sprint((client + i) % 4)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r.stored(n)
	r.quiet()
	if o := r.observer; o.recorded != n || o.admitted != n {
		t.Errorf("%d were admitted and %d recorded", o.admitted, o.recorded)
	}
	usage, err := r.Usage(t.Context(), "ann")
	noError(t, err)
	if usage.Completed != n*3/4 || usage.Failed != n/4 || usage.Active != 0 || usage.Limit != 100 {
		t.Errorf("the usage is %+v", usage)
	}
	r.nats.counters(t, "ann", map[string]string{completedCounter: fmt.Sprint(n * 3 / 4), failedCounter: fmt.Sprint(n / 4)})
}

// Three APIs record at the same time, and the store of each fails at times: each activation is recorded once.
func TestControl_Record_SharedByThree(t *testing.T) {
	t.Parallel()
	// What is handed back while another API purges stays away, until the leader has it recorded.
	soon := func(_ *rig, _ *Options, t *times) {
		t.sweepEvery, t.sweepRest, t.orphanAge = 50*time.Millisecond, 1, time.Second
	}
	one := start(t, several, soon)
	one.user("ann", 100)
	one.deploy("ann", "f")
	apis := []*rig{one, one.another("api-2", several, soon), one.another("api-3", several, soon)}
	for i, api := range apis {
		api.documents.insert = func(n int64) (error, bool) {
			if n%3 == int64(i) {
				return errAway, n%2 == 0
			}
			return nil, false
		}
	}
	one.worker(6, echo)
	const n = 300
	var wg sync.WaitGroup
	for _, api := range apis {
		wg.Go(func() {
			for range n / 3 {
				if _, err := api.call("x"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	one.stored(n)
	one.quiet()
	one.nats.counters(t, "ann", map[string]string{completedCounter: fmt.Sprint(n), failedCounter: "0"})
	for _, api := range apis {
		if api.documents.inserts.Load() == 0 {
			t.Errorf("%s has recorded nothing", api.o.Instance)
		}
	}
}

// What happens at an API that does not lead is in the counters within a second, by what it tells the leader; and what a leader
// leaves behind is put right by the next.
func TestControl_Project_ByAnother(t *testing.T) {
	t.Parallel()
	seldom := func(_ *rig, _ *Options, t *times) { t.projectAll = time.Hour }
	one := start(t, several, seldom, silent)
	leads(t, takesOver, one)
	one.user("ann", 10)
	one.deploy("ann", "f")
	two := one.another("api-2", several, seldom)
	g := newGate()
	w := two.worker(3, g.run)
	for range 3 {
		two.accepted("x")
	}
	one.nats.countersSoon(t, "ann", map[string]string{activeCounter: "3"})
	close(g.open)
	one.nats.countersSoon(t, "ann", map[string]string{activeCounter: "0", completedCounter: "3", failedCounter: "0"})
	w.does(func(*job) (string, faena.Reason) { return "", faena.ReasonExitNonzero })
	_, err := two.call("x")
	noError(t, err)
	one.nats.countersSoon(t, "ann", map[string]string{activeCounter: "0", completedCounter: "3", failedCounter: "1"})

	one.stop()
	noError(t, two.bus.PutCounter(t.Context(), "ann", activeCounter, 7)) // it was killed in the middle of it
	leads(t, takesOver, two)
	two.nats.counters(t, "ann", map[string]string{activeCounter: "0", completedCounter: "3", failedCounter: "1"})
	two.usageIs("ann", 3, 1)
}

// The counters follow within a second.
func TestControl_Project(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("jorgeSD", 10)
	r.deploy("jorgeSD", "f")
	g := newGate()
	r.worker(10, g.run)
	call := func(async bool) {
		if _, err := r.Activate(t.Context(), faena.ActivationRequest{User: "jorgeSD", Function: "f", Async: async}); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { call(false) })
	for range 3 {
		call(true)
	}
	faenatest.Eventually(t, patience, "all run", func() bool { return g.running.Load() == 4 })
	r.nats.countersSoon(t, "jorgeSD", map[string]string{activeCounter: "4"})
	r.documents.away.Store(true) // active ones need the queue alone
	call(true)
	faenatest.Eventually(t, patience, "one more runs", func() bool { return g.running.Load() == 5 })
	r.nats.countersSoon(t, "jorgeSD", map[string]string{activeCounter: "5"})
	r.documents.away.Store(false)
	close(g.open)
	wg.Wait()
	faenatest.Eventually(t, patience, "none runs", func() bool { return g.running.Load() == 0 })
	r.nats.countersSoon(t, "jorgeSD", map[string]string{activeCounter: "0", completedCounter: "5", failedCounter: "0"})
}

// Who waited in vain for a list of the queue, whose server has gone, asks again soon, however long that took.
func TestControl_Project_AfterALongWait(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 4)
	r.deploy("ann", "f")
	answers := make(chan struct{})
	r.bus.on("ActiveByUser", func() error { <-answers; return errAway })
	began := time.Now()
	r.accepted("x")
	faenatest.Eventually(t, patience, "it waits", func() bool { return r.bus.count("ActiveByUser") > 0 && time.Since(began) > 4*time.Second })
	r.bus.on("ActiveByUser", nil)
	close(answers)
	r.nats.countersSoon(t, "ann", map[string]string{activeCounter: "1"})
}

// What a process that was killed has left in a counter is put right by the next one.
func TestControl_Project_AfterACrash(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 4)
	for name, n := range map[string]int64{activeCounter: 4, completedCounter: 1, failedCounter: 9} {
		noError(t, r.bus.PutCounter(t.Context(), "ann", name, n))
	}
	next := r.another("api-2")
	next.nats.counters(t, "ann", map[string]string{activeCounter: "0", completedCounter: "0", failedCounter: "0"})
}

// A worker that dies between settling and acknowledging leaves a message: the recorder frees the slot.
func TestControl_Record_FreesTheSlotOfADeadWorker(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 1)
	r.deploy("ann", "f")
	w := r.worker(1, echo)
	w.deaf.Store(true) // it does not acknowledge
	rec, err := r.call("x")
	noError(t, err)
	r.stored(1)
	faenatest.Eventually(t, patience, "the slot is free", func() bool {
		busy, err := r.bus.BusySlots(t.Context(), group, "ann")
		return err == nil && len(busy) == 0
	})
	w.deaf.Store(false)
	other, err := r.call("y")
	noError(t, err)
	if rec.Slot != 0 || other.Slot != 0 || string(other.Result.Inline) != "y" {
		t.Errorf("the records are %+v and %+v", rec, other)
	}
	r.stored(2)
	r.quiet()
}

// A killed server may bring back an earlier version of a record that was purged: what is in the store has ended all the
// same, and the next API to start removes the record.
func TestControl_Reconcile(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 5)
	r.deploy("ann", "f")
	r.worker(1, func(*job) (string, faena.Reason) { return "done", "" })
	done, err := r.call("x")
	noError(t, err)
	r.stored(1)
	r.quiet()
	back, waiting := done, done
	back.State, back.EndedAt, back.Result = faena.StateRunning, nil, faena.Blob{}
	waiting.ID, waiting.State, waiting.EndedAt = "01956a3e-0f5b-7cc1-8a2b-0123456789ab", faena.StateQueued, nil
	for _, live := range []*faena.Record{&back, &waiting} {
		_, err := r.bus.CreateRecord(t.Context(), live)
		noError(t, err)
	}
	got, err := r.Activation(t.Context(), "ann", done.ID)
	noError(t, err)
	if got.State != faena.StateSucceeded || string(got.Result.Inline) != "done" {
		t.Errorf("an activation that had ended is %s, with the result %q", got.State, got.Result.Inline)
	}
	got, err = r.Cancel(t.Context(), "ann", done.ID)
	noError(t, err)
	if got.State != faena.StateSucceeded {
		t.Errorf("cancelled, one that had ended is %s", got.State)
	}
	r.another("api-2")
	faenatest.EventuallyNil(t, patience, "only what has not ended is live", func() error {
		live, err := r.bus.LiveIDs(t.Context(), group)
		if err == nil && (len(live["ann"]) != 1 || live["ann"][0] != waiting.ID) {
			err = fmt.Errorf("live are %v", live)
		}
		return err
	})
}
