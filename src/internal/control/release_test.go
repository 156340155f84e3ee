package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// What waits is released oldest first, also where many are released at once, and keeps workers busy.
func TestReleaser_OldestFirst(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			r := waiting(t, limit)
			const n = 60
			ids := r.accept("ann", n)
			var l journal
			r.worker(1, l.run)
			r.succeed("ann", ids...)
			r.quiet()
			for i, p := range l.all() {
				if p != fmt.Sprint("ann ", i) {
					t.Fatalf("the %d. that ran is %q", i, p)
				}
			}
		})
	}
}

// Of users that wait one after the other has its turn, however much each has that waits.
func TestReleaser_InTurn(t *testing.T) {
	t.Parallel()
	r := waiting(t, 5)
	r.user("bob", 5)
	r.deploy("bob", "f")
	const many, few = 60, 24
	ann := r.accept("ann", many)
	bob := r.accept("bob", few)
	var l journal
	r.worker(2, l.run)
	r.succeed("ann", ann...)
	r.succeed("bob", bob...)
	r.empty()
	// Each had four in slots before anything was released, and the leader has filled the queue a little before there was a worker.
	const from, window = 16, 10
	ran := l.all()
	last := slices.IndexFunc(ran, func(p string) bool { return p == fmt.Sprint("bob ", few-1) })
	for i := from; i+window <= last; i++ {
		n := 0
		for _, p := range ran[i : i+window] {
			if strings.HasPrefix(p, "bob ") {
				n++
			}
		}
		if n < 2 || n > window-2 {
			t.Fatalf("of %d in turn, from the %d. on, %d are bob's: %v", window, i, n, ran[i:i+window])
		}
	}
}

// The queue stays short: somebody who comes with nothing waiting has few before him.
func TestReleaser_QueueStaysShort(t *testing.T) {
	t.Parallel()
	r := waiting(t, 40)
	const places = 2
	ids := r.accept("ann", 150) // before there is a worker: while calls come slower than they run, none waits
	r.worker(places, func(*job) (string, faena.Reason) { <-time.After(10 * time.Millisecond); return "", "" })
	most, looks := 0, 0
	faenatest.Eventually(t, patience, "the backlog is empty", func() bool {
		left, err := r.bus.Bus.BacklogSize(t.Context(), group, "ann")
		noError(t, err)
		// Pending asks two questions, one after the other: what a place was given in between counts once more. It is asked twice.
		n, err := r.bus.Bus.Pending(t.Context(), group)
		noError(t, err)
		again, err := r.bus.Bus.Pending(t.Context(), group)
		noError(t, err)
		n = min(n, again)
		if left < 80 { // those that came before anything waited went into slots
			most, looks = max(most, n), looks+1
		}
		return left == 0
	})
	if most > 2*places || looks < 3 {
		t.Errorf("up to %d were in the queue, in %d looks", most, looks)
	}
	r.succeed("ann", ids...)
	r.quiet()
}

// A flood is in the backlog and in the slots of asynchronous calls: synchronous ones go on.
func TestReleaser_LeavesSynchronousCallsTheirFifth(t *testing.T) {
	t.Parallel()
	r := waiting(t, 10)
	g := newGate()
	r.worker(10, func(j *job) (string, faena.Reason) {
		if string(j.parameter) == "sync" {
			return "sync", ""
		}
		return g.run(j)
	})
	ids := r.accept("ann", 60)
	faenatest.Eventually(t, patience, "the flood has all that it may have", func() bool { return g.running.Load() == 8 })
	const synchronous = 20
	for range synchronous {
		if _, err := r.call("sync"); err != nil {
			t.Fatalf("a synchronous call is refused: %v", err)
		}
	}
	if n := r.inBacklog("ann"); n != 52 || g.running.Load() != 8 {
		t.Errorf("%d wait, %d run", n, g.running.Load())
	}
	close(g.open)
	r.stored(len(ids) + synchronous)
	r.quiet()
}

// The leader is killed between any two steps of a release. The next one does the rest; nothing is lost, and nothing runs twice.
func TestReleaser_Killed(t *testing.T) {
	t.Parallel()
	const record, message, entry = "$KV.activations-default.ann.", "Activations.default.ann.", "$JS.API.STREAM.MSG.DELETE.BACKLOG-"
	for _, c := range []struct {
		name string
		arm  func(r *rig)
	}{
		{"BeforeASlotIsAssigned", func(r *rig) { r.dies(record, 1, cutBefore) }},
		{"AfterASlotWasAssigned", func(r *rig) { r.dies(record, 1, cutAfter) }},
		{"BetweenTwoAssignments", func(r *rig) { r.dies(record, 2, cutAfter) }},
		{"BeforeItIsPublished", func(r *rig) { r.dies(message, 1, cutBefore) }},
		{"AfterItWasPublished", func(r *rig) { r.dies(message, 1, cutAfter) }},
		{"BetweenTwoPublications", func(r *rig) { r.dies(message, 3, cutAfter) }},
		{"BeforeItIsTakenOut", func(r *rig) { r.dies(entry, 1, cutBefore) }},
		{"AfterItWasTakenOut", func(r *rig) { r.dies(entry, 1, cutAfter) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			one := waiting(t, 4, wired)
			g := newGate()
			w := one.worker(2, g.run)
			ids := one.accept("ann", 20)
			one.backlogIs("ann", 16)
			c.arm(one)
			close(g.open)
			faenatest.Eventually(t, patience, "it is killed", one.wire.isCut)
			two := one.another("api-2", several, waits(faena.DefaultBacklog))
			two.nats.recorderWait(t, 500*time.Millisecond)
			two.succeed("ann", ids...)
			two.empty()
			if n := w.ran.Load(); n != int64(len(ids)) {
				t.Errorf("%d ran", n)
			}
		})
	}
}

// Two that take themselves for the leader release at the same time.
func TestReleaser_TwoLeaders(t *testing.T) {
	t.Parallel()
	one := waiting(t, 10)
	one.user("bob", 3)
	one.deploy("bob", "f")
	two := one.another("api-2", several, waits(faena.DefaultBacklog))
	ann, bob := one.accept("ann", 40), two.accept("bob", 40)
	w := one.worker(3, echo)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { two.releaseGroup(t.Context(), group) })
	}
	one.succeed("ann", ann...)
	one.succeed("bob", bob...)
	one.empty()
	if n := w.ran.Load(); n != 80 {
		t.Errorf("%d ran", n)
	}
	if one.observer.releasedSoFar() == 0 || two.observer.releasedSoFar() == 0 {
		t.Errorf("one has released %d, the other %d", one.observer.releasedSoFar(), two.observer.releasedSoFar())
	}
	two.stop()
	t.Cleanup(wg.Wait)
}

// The leader stops, and then is killed, while there is a flood through both APIs: nothing is lost, and nothing runs twice.
func TestReleaser_LeaderChanges(t *testing.T) {
	t.Parallel()
	one := waiting(t, 8)
	two := one.another("api-2", several, waits(faena.DefaultBacklog), wired)
	three := one.another("api-3", several, waits(faena.DefaultBacklog))
	w := one.worker(2, func(j *job) (string, faena.Reason) { <-time.After(time.Millisecond); return "", "" })
	var mu sync.Mutex
	var ids []string
	var stop atomic.Bool
	flood := func(api *rig) func() error {
		return func() error {
			for !stop.Load() {
				rec, err := api.send("x")
				if faena.IsKind(err, faena.KindUnavailable) && api.wire.isCut() {
					return nil // of one that was killed nobody was told of
				}
				if err != nil {
					return err
				}
				mu.Lock()
				ids = append(ids, rec.ID)
				mu.Unlock()
				<-time.After(2 * time.Millisecond)
			}
			return nil
		}
	}
	var floods errgroup.Group
	floods.Go(flood(three))
	apis := []*rig{one, two, three}
	leads(t, takesOver, apis...)
	one.stop()
	next := leads(t, takesOver, two, three)
	floods.Go(flood(two))
	if next == two {
		faenatest.Eventually(t, patience, "it has released some", func() bool { return two.observer.releasedSoFar() > 10 })
	}
	two.kill()
	leads(t, takesOver, three)
	since := three.observer.releasedSoFar()
	faenatest.Eventually(t, patience, "the last one releases", func() bool { return three.observer.releasedSoFar() > since+10 })
	stop.Store(true)
	noError(t, floods.Wait())
	three.nats.recorderWait(t, 500*time.Millisecond)
	faenatest.EventuallyNil(t, patience, "all that were accepted are recorded", func() error {
		for len(ids) > 0 {
			n := min(len(ids), 500)
			found, err := three.documents.Recorded(t.Context(), "ann", ids[:n])
			if err == nil && len(found) < n {
				err = fmt.Errorf("%d of %d", len(found), n)
			}
			if err != nil {
				return err
			}
			ids = ids[n:]
		}
		return nil
	})
	three.empty()
	list, err := three.documents.Documents.Activations(t.Context(), faena.HistoryQuery{User: "ann", Limit: 1000})
	noError(t, err)
	for _, rec := range list {
		if rec.State != faena.StateSucceeded && rec.State != faena.StateCancelled && rec.Reason != faena.ReasonWorkerLost || rec.Attempt > 1 {
			t.Errorf("the record is %+v", rec)
		}
	}
	t.Logf("%d ran", w.ran.Load())
}

// retried is an activation that a worker has put back for a later attempt.
func (r *rig) retried(delay time.Duration, changes ...func(*faena.Record)) *faena.Record {
	r.t.Helper()
	rec := queued(0)
	rec.StartWithinMS = time.Hour.Milliseconds()
	rev1, err := r.documents.Documents.Revision(r.t.Context(), "ann", "f", 1)
	noError(r.t, err)
	rec.Digest, rec.ID, rec.AdmittedAt = rev1.Digest, idAt(time.Now()), time.Now().UTC()
	for _, change := range changes {
		change(rec)
	}
	rev, err := r.bus.Bus.CreateRecord(r.t.Context(), rec)
	noError(r.t, err)
	noError(r.t, rec.Claim("w9", 7, time.Now().UTC()))
	noError(r.t, rec.Requeue(faena.ReasonTimeout, "It ran too long.", delay, 0, &faena.Blob{Size: 5, Inline: []byte("again")}, r.bus.ServerNow(), time.Now().UTC()))
	_, err = r.bus.Bus.UpdateRecord(r.t.Context(), rec, rev)
	noError(r.t, err)
	return rec
}

// A retry waits for its time and keeps nobody behind it from being released.
func TestReleaser_Retry(t *testing.T) {
	t.Parallel()
	r := waiting(t, 1)
	var l journal
	const delay = 10 * time.Second
	due := time.Now().Add(delay)
	first, second := r.retried(delay), r.retried(delay)
	r.backlogIs("ann", 2) // they are filed
	ids := r.accept("ann", 5)
	r.worker(1, l.run)
	for _, id := range ids {
		r.becomes(id, faena.StateSucceeded)
	}
	if now := time.Now(); !now.Before(due) {
		t.Errorf("those behind it had to wait until %v after its time", now.Sub(due))
	}
	for _, rec := range []*faena.Record{first, second} {
		got := r.becomes(rec.ID, faena.StateSucceeded)
		if got.Attempt != 2 || got.StartedAt.Before(due.Add(-time.Second)) || string(got.Result.Inline) != "again" || len(got.Failures) != 1 || got.Parameter != nil {
			t.Errorf("it was due at %v, the record is %+v", due, got)
		}
	}
	r.stored(7)
	r.quiet()
}

// The API that was to file a retry was killed: the sweeper does, also where the first try finds the store away.
func TestSweeper_FilesARetry(t *testing.T) {
	t.Parallel()
	r := waiting(t, 1, hasty, silent)
	rec := r.retried(0)
	other := r.retried(0, func(rec *faena.Record) { rec.Function = "gone" })
	w := r.worker(1, echo)
	faenatest.EventuallyNil(t, patience, "it has run", func() error {
		got, _, err := r.bus.Bus.Record(t.Context(), group, "ann", rec.ID)
		if err == nil && (got.State != faena.StateSucceeded || got.Attempt != 2) {
			err = fmt.Errorf("it is %s", got.State)
		}
		return err
	})
	faenatest.EventuallyNil(t, patience, "that of a function that is gone has ended", func() error {
		got, _, err := r.bus.Bus.Record(t.Context(), group, "ann", other.ID)
		if err == nil && got.Reason != faena.ReasonFunctionDeleted {
			err = fmt.Errorf("it is %+v", got)
		}
		return err
	})
	if n := w.ran.Load(); n != 1 {
		t.Errorf("%d ran", n)
	}
}

// A worker changes the records of its group as it likes: it gets no revision of another group's function by that.
func TestControl_File_OtherGroup(t *testing.T) {
	t.Parallel()
	r := waiting(t, 1, silent)
	r.newGroup("gpu")
	_, err := r.PutUser(t.Context(), faena.User{Name: "ann", Groups: map[string]int{group: 5, "gpu": 5}}, "")
	noError(t, err)
	r.deploy("ann", "theirs", func(s *faena.Spec) { s.Group = "gpu" })
	theirs, err := r.documents.Documents.Revision(t.Context(), "ann", "theirs", 1)
	noError(t, err)
	rec := r.retried(0, func(rec *faena.Record) { rec.Function, rec.Digest = "theirs", theirs.Digest })
	noError(t, r.file(t.Context(), rec))
	if got, _, err := r.bus.Bus.Record(t.Context(), group, "ann", rec.ID); err != nil || got.Reason != faena.ReasonWorkerLost || r.inBacklog("ann") != 0 {
		t.Errorf("the record is %+v, %v; %d wait", got, err, r.inBacklog("ann"))
	}
}

// While the store is away nothing stops, also at an API that knows nobody: then each user has one slot.
func TestReleaser_StoreAway(t *testing.T) {
	t.Parallel()
	one := waiting(t, 10)
	ids := one.accept("ann", 20)
	two := one.another("api-2", several, waits(faena.DefaultBacklog), func(r *rig, _ *Options, _ *times) { r.documents.away.Store(true) })
	one.stop()
	leads(t, takesOver, two)
	w := one.worker(2, echo)
	faenatest.Eventually(t, patience, "all have run", func() bool { return w.ran.Load() == int64(len(ids)) })
	if n := two.documents.count("User"); n > 100 {
		t.Errorf("the store was asked for a user %d times while it was away", n)
	}
	two.documents.away.Store(false)
	two.succeed("ann", ids...)
	two.quiet()
}

// Where nothing waits nothing is asked.
func TestReleaser_Idle(t *testing.T) {
	t.Parallel()
	r := waiting(t, 2, func(_ *rig, _ *Options, t *times) { t.sweepEvery = time.Hour })
	r.worker(2, echo)
	ids := r.accept("ann", 10)
	r.succeed("ann", ids...)
	r.quiet()
	lists, asked := r.bus.count("BacklogByUser"), r.bus.count("Pending")+r.bus.count("BacklogNext")
	faenatest.Eventually(t, patience, "the backlog was listed twice", func() bool { return r.bus.count("BacklogByUser") >= lists+2 })
	if more := r.bus.count("Pending") + r.bus.count("BacklogNext") - asked; more > 0 {
		t.Errorf("the stream was asked %d times", more)
	}
	since := time.Now()
	r.bus.on("PublishChanged "+changedBacklog, func() error { return faena.ErrRetry }) // hints are lost
	r.succeed("ann", append(ids, r.accept("ann", 10)...)...)
	t.Logf("without hints after %v", time.Since(since))
}

// What is left in the backlog of activations that are not there, or have ended, is removed; what cannot be read stays.
func TestReleaser_Leftovers(t *testing.T) {
	t.Parallel()
	r := waiting(t, 1, silent)
	put := func(rec *faena.Record) {
		t.Helper()
		m := &faena.Message{Schema: faena.SchemaVersion, ID: rec.ID, Revision: &faena.Revision{Schema: faena.SchemaVersion, User: "ann", Function: "f"}}
		noError(t, r.bus.Bus.PublishBacklog(t.Context(), "ann", group, 1, m))
	}
	newer := r.orphan(func(rec *faena.Record) { rec.Schema, rec.Backlogged = faena.SchemaVersion+1, true })
	put(newer)
	put(queued(0))
	js := r.nats.JetStream(t)
	_, err := js.Publish(t.Context(), "Backlog."+group+".ann."+queued(0).ID, []byte("?")) // nor is there a record that says more
	noError(t, err)
	put(r.orphan(func(rec *faena.Record) { rec.State, rec.Backlogged = faena.StateCancelled, true }))
	put(r.orphan(func(rec *faena.Record) { rec.State = faena.StateRunning }))
	id := r.accepted("x")
	r.accepted("y")
	w := r.worker(1, echo)
	faenatest.Eventually(t, patience, "both have run", func() bool { return w.ran.Load() == 2 })
	r.backlogIs("ann", 1)
	if _, err := r.bus.Bus.BacklogMessage(t.Context(), group, "ann", newer.ID); err != nil {
		t.Errorf("that of another version: %v", err)
	}
	if rec, _, err := r.bus.Bus.Record(t.Context(), group, "ann", id); err != nil || rec.State != faena.StateSucceeded {
		t.Errorf("the record is %+v, %v", rec, err)
	}
}

// What is ready does not wait until all that another user has, of which nothing is due, was looked at.
func TestReleaser_ManyThatAreNotDue(t *testing.T) {
	t.Parallel()
	r := start(t, several, func(rig *rig, o *Options, _ *times) {
		o.Bus = newFaultyBus(rig.nats.connect(t, rig.nats.URLs()...))
		o.Bus.(*faultyBus).on("HoldLease", func() error { return errors.New("another one leads") })
	})
	const many = 300
	put := func(rec *faena.Record) {
		m := &faena.Message{Schema: faena.SchemaVersion, ID: rec.ID, Revision: &faena.Revision{Schema: faena.SchemaVersion, User: rec.User, Function: "f"}}
		noError(t, r.bus.Bus.PublishBacklog(t.Context(), rec.User, group, 1, m))
	}
	due := time.Now().Add(time.Hour)
	for range many {
		put(r.orphan(func(rec *faena.Record) { rec.User, rec.Backlogged, rec.NotBefore = "bob", true, &due }))
	}
	ready := r.orphan(func(rec *faena.Record) { rec.Backlogged = true })
	put(ready)
	for _, name := range []string{"ann", "bob"} {
		r.user(name, 5)
		r.deploy(name, "f")
	}
	x := &releaser{c: r.Control, group: group, woken: make(chan struct{}, 1), heardOf: map[string]int{"ann": 1, "bob": many}, users: make(map[string]*waitingUser)}
	x.learn()
	r.bus.on("BacklogNext", func() error { <-time.After(time.Millisecond); return nil })
	batch, err := x.gather(t.Context(), 10)
	noError(t, err)
	if len(batch) != 1 || batch[0].record.ID != ready.ID {
		t.Errorf("%d are ready", len(batch))
	}
	if n := r.bus.count("BacklogNext"); n > 2*skipAtOnce+2 {
		t.Errorf("it was held back for %d looks", n)
	}
}

// A user's part is gone through again where two listings in a row have more than is known of, and seldom for what cannot be read.
func TestWaitingUser_Compare(t *testing.T) {
	long := time.Now().Add(-2 * rescanEvery)
	for name, c := range map[string]struct {
		odd     int
		scanned time.Time
		listed  []int
		again   bool
	}{
		"AllIsKnown":               {0, time.Time{}, []int{2, 2, 2}, false},
		"MoreOnce":                 {0, time.Time{}, []int{3, 2, 3}, false},
		"MoreTwice":                {0, time.Time{}, []int{3, 3}, true},
		"MoreTwiceJustNow":         {0, time.Now(), []int{3, 3, 3}, false},
		"WhatCannotBeRead":         {1, long, []int{3, 3, 3}, false},
		"WhatCouldNotBeReadLately": {1, time.Time{}, []int{3, 3}, true},
		"MoreThanThat":             {1, long, []int{4, 4}, true},
	} {
		t.Run(name, func(t *testing.T) {
			u := &waitingUser{from: 9, odd: c.odd, scanned: c.scanned, delayed: make(delayed, 2)}
			for _, n := range c.listed {
				u.compare(n)
			}
			if again := u.from == 0; again != c.again {
				t.Errorf("it is gone through again: %v", again)
			}
		})
	}
}
