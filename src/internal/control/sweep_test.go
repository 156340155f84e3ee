package control

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// sweeping is an API that leads, with ann and her function.
func sweeping(t *testing.T, changes ...change) *rig {
	t.Helper()
	r := start(t, append(changes, several)...)
	r.user("ann", 20)
	r.deploy("ann", "f")
	leads(t, takesOver, r)
	return r
}

// free waits until none of ann's slots is in use.
func (r *rig) free() {
	r.t.Helper()
	faenatest.EventuallyNil(r.t, patience, "ann's slots are free", func() error {
		busy, err := r.bus.Bus.BusySlots(r.t.Context(), group, "ann")
		if err == nil && len(busy) > 0 {
			err = fmt.Errorf("in use are %v", busy)
		}
		return err
	})
}

// rounds waits until the sweeper has been round n more times.
func (r *rig) rounds(n int) {
	r.t.Helper()
	from := r.bus.count("LiveIDs")
	faenatest.Eventually(r.t, patience, "the sweeper goes round", func() bool { return r.bus.count("LiveIDs") > from+n })
}

// An API was killed between record and message. Who waits for it is told, and its slot is anybody's.
func TestSweeper_NoMessage(t *testing.T) {
	t.Parallel()
	r := sweeping(t, hasty)
	r.workerOf(group, "w0", 0, echo) // one is there, and takes nothing
	rec := r.orphan(func(rec *faena.Record) { rec.Instance = r.o.Instance })
	w := r.waits.add(rec)
	defer r.waits.remove(rec.ID)
	since := time.Now()
	told, err := r.await(t.Context(), w, rec)
	noError(t, err)
	if after := time.Since(since); after >= rereadEvery {
		t.Errorf("who waits finds it out after %v", after)
	}
	if told.State != faena.StateLost || told.Reason != faena.ReasonWorkerLost || told.EndedAt == nil || told.Message == "" {
		t.Errorf("who waits is told %+v", told)
	}
	r.worker(1, echo)
	after, err := r.call("x")
	if err != nil || after.Slot != rec.Slot {
		t.Errorf("the next call gives %+v, %v", after, err)
	}
	r.becomes(rec.ID, faena.StateLost)
	r.stored(2)
	r.quiet()
	if n := r.observer.sweptAs(faena.ReasonWorkerLost); n != 1 {
		t.Errorf("%d were swept", n)
	}
}

// The slot of an activation without a message holds somebody else's: that one is left alone.
func TestSweeper_SlotOfAnother(t *testing.T) {
	t.Parallel()
	r := sweeping(t, hasty)
	other := r.accepted("x")
	rec := r.orphan(func(rec *faena.Record) { rec.Slot = r.becomes(other, faena.StateQueued).Slot })
	r.becomes(rec.ID, faena.StateLost)
	r.rounds(2)
	r.becomes(other, faena.StateQueued)
	r.worker(1, echo)
	r.becomes(other, faena.StateSucceeded)
	r.stored(2)
	r.quiet()
}

// What is released while the sweeper looks for it, from the backlog into its slot, is not lost.
func TestControl_InPlace_JustReleased(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	for name, change := range map[string]func(*faena.Record){
		"OfAnAsynchronousCall":      func(rec *faena.Record) { rec.Slot = 1 },
		"TheRetryOfASynchronousOne": func(rec *faena.Record) { rec.Slot, rec.Instance, rec.Attempt = 2, "api-1", 1 },
	} {
		t.Run(name, func(t *testing.T) {
			rec := r.orphan(change)
			m := &faena.Message{Schema: faena.SchemaVersion, ID: rec.ID, Revision: &faena.Revision{Schema: faena.SchemaVersion, User: "ann", Function: "f"}}
			noError(t, r.bus.Bus.PublishBacklog(t.Context(), "ann", group, 1, m))
			if there, err := r.inPlace(t.Context(), rec); err != nil || !there {
				t.Errorf("in the backlog it is there: %v, %v", there, err)
			}
			r.bus.on("BacklogMessage", func() error {
				noError(t, r.publish(rec))
				w, err := r.bus.Bus.BacklogMessage(t.Context(), group, "ann", rec.ID)
				noError(t, err)
				noError(t, r.bus.Bus.DeleteBacklog(t.Context(), group, w.Sequence))
				return nil
			})
			defer r.bus.on("BacklogMessage", nil)
			if there, err := r.inPlace(t.Context(), rec); err != nil || !there {
				t.Errorf("when it was released it is there: %v, %v", there, err)
			}
		})
	}
}

// The call that waits does not end a retry: neither for the time that the first attempt had, nor for want of a worker.
func TestControl_Await_LeavesRetries(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	r.gauge.mu.Lock()
	r.gauge.started = time.Time{} // no worker was seen since
	r.gauge.mu.Unlock()
	for name, end := range map[string]func(*faena.Record){
		"Expired":  func(seen *faena.Record) { r.expire(t.Context(), seen) },
		"NoWorker": func(seen *faena.Record) { r.giveUp(t.Context(), seen) },
	} {
		t.Run(name, func(t *testing.T) {
			first := r.orphan()
			end(first)
			r.becomes(first.ID, faena.StateFailed)
			retry := r.orphan(func(rec *faena.Record) { rec.Attempt = 1 })
			for attempt := range 2 { // as it was seen
				seen := *retry
				seen.Attempt = attempt
				end(&seen)
			}
			r.becomes(retry.ID, faena.StateQueued)
		})
	}
}

// No worker is there to end what has expired.
func TestSweeper_Expired(t *testing.T) {
	t.Parallel()
	r := sweeping(t, hasty)
	for _, within := range []time.Duration{time.Second, time.Hour} {
		_, err := r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "f", Async: true, Expires: within})
		noError(t, err)
	}
	list, err := r.Activations(t.Context(), faena.HistoryQuery{User: "ann", Limit: 10})
	noError(t, err)
	late, early := list[0], list[1]
	rec := r.becomes(early.ID, faena.StateFailed)
	if after := rec.EndedAt.Sub(early.AdmittedAt); rec.Reason != faena.ReasonExpired || after < time.Second || rec.Attempt != 0 {
		t.Errorf("after %v the record is %+v", after, rec)
	}
	faenatest.EventuallyNil(t, patience, "its slot is free", func() error {
		busy, err := r.bus.Bus.BusySlots(t.Context(), group, "ann")
		if _, other := busy[late.Slot]; err == nil && (len(busy) != 1 || !other) {
			err = fmt.Errorf("in use are %v", busy)
		}
		return err
	})
	r.becomes(late.ID, faena.StateQueued)
	if n := r.observer.sweptAs(faena.ReasonExpired); n != 1 {
		t.Errorf("%d were swept", n)
	}
}

// The message of a running one is gone: it is lost, and the worker that finishes it all the same has lost it too.
func TestSweeper_RunningWithoutMessage(t *testing.T) {
	t.Parallel()
	r := sweeping(t, hasty)
	g := newGate()
	w := r.worker(1, g.run)
	id := r.accepted("x")
	rec := r.becomes(id, faena.StateRunning)
	noError(t, r.bus.Bus.DeleteMessage(t.Context(), group, rec.Sequence))
	if rec := r.becomes(id, faena.StateLost); rec.Reason != faena.ReasonWorkerLost || rec.Attempt != 1 {
		t.Errorf("the record is %+v", rec)
	}
	close(g.open)
	faenatest.Eventually(t, patience, "the worker has finished it", func() bool { return g.running.Load() == 0 })
	if _, err := r.call("y"); err != nil {
		t.Error(err)
	}
	list := r.stored(2)
	if list[1].State != faena.StateLost || w.ran.Load() != 2 {
		t.Errorf("the records are %+v, %d ran", list, w.ran.Load())
	}
	r.quiet()
}

// Messages that nobody would run hold slots: they are removed, also where there is no worker.
func TestSweeper_Messages(t *testing.T) {
	t.Parallel()
	r := sweeping(t, hasty, silent)
	ended := r.orphan(func(rec *faena.Record) { rec.State, rec.Slot = faena.StateSucceeded, 1 })
	noError(t, r.publish(ended))
	noError(t, r.publish(queued(2))) // of one that is not there
	r.free()
	r.rounds(2)
	if got := r.becomes(ended.ID, faena.StateSucceeded); r.observer.sweptAs(faena.ReasonWorkerLost) != 0 {
		t.Errorf("the record is %+v", got)
	}
}

// A record of a version that this API does not read is left to one that does, with its message.
func TestSweeper_AnotherVersion(t *testing.T) {
	t.Parallel()
	r := sweeping(t, func(_ *rig, _ *Options, t *times) { t.sweepEvery, t.orphanAge = time.Hour, 10*time.Millisecond })
	newer := r.orphan(func(rec *faena.Record) { rec.Schema = faena.SchemaVersion + 1 })
	noError(t, r.publish(newer))
	noError(t, r.publish(queued(1))) // of one that is not there: both are looked at
	r.bus.patient.Store(true)
	s := newSweeper(r.Control)
	faenatest.EventuallyNil(t, patience, "the other message is removed", func() error {
		noError(t, s.round(t.Context()))
		busy, err := r.bus.Bus.BusySlots(t.Context(), group, "ann")
		if _, stays := busy[0]; err == nil && (len(busy) != 1 || !stays) {
			err = fmt.Errorf("in use are %v", busy)
		}
		return err
	})
	from := r.bus.count("RecordAge")
	faenatest.Eventually(t, patience, "it has been looked at", func() bool {
		noError(t, s.round(t.Context()))
		return from > 0 || r.bus.count("RecordAge") > from
	})
	live, err := r.bus.Bus.LiveIDs(t.Context(), group)
	if err != nil || len(live["ann"]) != 1 || live["ann"][0] != newer.ID {
		t.Errorf("live are %v, %v", live, err)
	}
}

// What an API was given to record comes again late when it is killed: the leader has it recorded. While the store is away
// nothing is written for that.
func TestSweeper_EndedAndNotRecorded(t *testing.T) {
	t.Parallel()
	one := start(t, several, wired)
	one.user("ann", 20)
	one.deploy("ann", "f")
	g := newGate()
	one.worker(2, g.run)
	const n = 10
	for i := range n {
		one.accepted(fmt.Sprint(i))
	}
	one.documents.on("Insert", func() error { one.kill(); return errAway })
	close(g.open)
	faenatest.Eventually(t, patience, "it is killed", one.wire.isCut)
	two := one.another("api-2", several, hasty)
	two.documents.away.Store(true)
	leads(t, takesOver, two)
	two.rounds(20)
	if n := two.bus.count("UpdateRecord"); n > 0 {
		t.Errorf("records were changed %d times while the store was away", n)
	}
	two.documents.away.Store(false)
	since := time.Now()
	for _, rec := range two.stored(n) {
		if rec.State != faena.StateSucceeded {
			t.Errorf("the record is %+v", rec)
		}
	}
	two.quiet()
	two.usageIs("ann", n, 0)
	if two.bus.count("UpdateRecord") == 0 {
		t.Errorf("nobody asked for it, and after %v it is recorded", time.Since(since))
	}
}

// What is young, what stands in its slot, what runs, and what is on its way in is left alone.
func TestSweeper_LeavesAlone(t *testing.T) {
	t.Parallel()
	r := sweeping(t, hasty, func(_ *rig, _ *Options, t *times) { t.orphanAge = time.Second })
	g := newGate()
	r.worker(1, g.run)
	running := r.accepted("running")
	r.becomes(running, faena.StateRunning)
	old := r.accepted("old")
	faenatest.Eventually(t, patience, "two are asked for their messages", func() bool { return r.bus.count("SlotMessage") >= 2 })

	var in atomic.Int64
	r.bus.on("ActiveByUser", func() error { // between the list of records and the list of messages
		if in.Add(1) <= 10 {
			if _, err := r.send("on its way"); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	faenatest.Eventually(t, patience, "ten have come in", func() bool { return in.Load() > 10 })
	since := time.Now()
	young := r.orphan()
	if got := r.becomes(young.ID, faena.StateLost); got.EndedAt.Sub(since) < r.orphanAge {
		t.Errorf("one that was young is lost after %v", got.EndedAt.Sub(since))
	}
	r.becomes(old, faena.StateQueued)
	r.becomes(running, faena.StateRunning)
	close(g.open)
	r.stored(13)
	r.quiet()
	if n := r.observer.sweptAs(faena.ReasonWorkerLost); n != 1 {
		t.Errorf("%d were settled as lost", n)
	}
}

// Ages are by the server's clock, whatever that of the API which admitted was.
func TestSweeper_Clock(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"Behind": -10 * time.Minute, "Ahead": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := sweeping(t, hasty, func(_ *rig, _ *Options, t *times) { t.orphanAge = time.Second })
			at := time.Now().Add(ahead)
			set := func(rec *faena.Record) { rec.ID, rec.AdmittedAt = idAt(at), at.UTC() }
			since := time.Now()
			gone := r.orphan(set)
			late := r.orphan(set, func(rec *faena.Record) { rec.Slot, rec.StartWithinMS = 1, 1000 })
			noError(t, r.publish(late))
			r.becomes(gone.ID, faena.StateLost)
			if after := time.Since(since); after < r.orphanAge {
				t.Errorf("it is lost after %v", after)
			}
			if rec := r.becomes(late.ID, faena.StateFailed); rec.Reason != faena.ReasonExpired {
				t.Errorf("the record is %+v", rec)
			}
			if after := time.Since(since); after < time.Second+expireSlack {
				t.Errorf("it has expired after %v", after)
			}
			r.free()
		})
	}
}

// A long queue is looked at when its activations are half an orphan's age old, and then each time that they have become twice
// as old.
func TestSweeper_LongQueue(t *testing.T) {
	t.Parallel()
	r := sweeping(t, func(_ *rig, _ *Options, t *times) { t.sweepEvery, t.orphanAge = time.Hour, 500*time.Millisecond })
	const n = 1000
	since := time.Now()
	var puts errgroup.Group
	puts.SetLimit(8)
	for slot := range n {
		puts.Go(func() error {
			rec := queued(slot)
			_, err := r.bus.Bus.CreateRecord(t.Context(), rec)
			return errors.Join(err, r.publish(rec))
		})
	}
	noError(t, puts.Wait())
	r.bus.patient.Store(true)
	s := newSweeper(r.Control)
	rounds := 0
	for r.bus.count("SlotMessage") < n { // the records are not young any more when this is asked
		noError(t, s.round(t.Context()))
		rounds++
	}
	reads := r.bus.count("RecordAge")
	for range 10 {
		noError(t, s.round(t.Context()))
		rounds++
	}
	more, age := r.bus.count("RecordAge")-reads, time.Since(since)
	looks := 2 + math.Log2(age.Seconds()/r.orphanAge.Seconds())
	if total := reads + more; float64(total) > n*looks || r.bus.count("SlotMessage") > total {
		t.Errorf("%d records cost %d reads in %d rounds while they became %v old", n, total, rounds, age)
	}
	if len(s.next) != n || r.observer.sweptAs(faena.ReasonWorkerLost) > 0 {
		t.Errorf("%d are known", len(s.next))
	}
	t.Logf("%d records, %v old: %d reads, %d rounds, of which the last ten read %d", n, age.Round(time.Millisecond), reads+more, rounds, more)
}

// A group that does not answer keeps nobody from looking at the others, and its activations are not all read again when it
// does.
func TestSweeper_AGroupThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	r := sweeping(t, several, func(_ *rig, _ *Options, t *times) { t.sweepEvery, t.orphanAge = time.Hour, 50*time.Millisecond })
	r.newGroup("aaa") // before default
	standing := r.orphan(func(rec *faena.Record) { rec.Group = "aaa" })
	noError(t, r.publish(standing))
	r.bus.patient.Store(true)
	s := newSweeper(r.Control)
	faenatest.Eventually(t, patience, "it has been asked for", func() bool {
		noError(t, s.round(t.Context()))
		return r.bus.count("SlotMessage") > 0
	})
	gone := r.orphan()
	asked := 0
	r.bus.on("LiveIDs", func() error {
		if asked++; asked%2 == 0 {
			return nil
		}
		return faena.ErrRetry // of aaa, the first of two
	})
	faenatest.Eventually(t, patience, "the orphan of the other group is settled", func() bool {
		if err := s.round(t.Context()); !errors.Is(err, faena.ErrRetry) {
			t.Errorf("the round ends with %v", err)
		}
		got, err := r.Activation(t.Context(), "ann", gone.ID)
		return err == nil && got.State == faena.StateLost
	})
	if _, known := s.next[uuid.MustParse(standing.ID)]; !known {
		t.Error("what stands in the group that does not answer is forgotten")
	}
}
