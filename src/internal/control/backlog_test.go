package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// What has no slot waits, up to the limit, and leaves synchronous calls their fifth; then it is refused and leaves nothing.
func TestControl_Backlog(t *testing.T) {
	t.Parallel()
	r := waiting(t, 5, waits(3))
	g := newGate()
	r.worker(5, g.run)
	ids := r.accept("ann", 7)
	for i, id := range ids {
		rec, err := r.Activation(t.Context(), "ann", id)
		noError(t, err)
		if rec.Backlogged != (i >= 4) || rec.State.Terminal() {
			t.Errorf("the record of call %d is %+v", i, rec)
		}
	}
	for _, parameter := range []string{"x", strings.Repeat("x", faena.MaxInlineBytes+1)} {
		_, err := r.send(parameter)
		if e := isKind(t, err, faena.KindLimit); e.Reason != "backlog_full" || e.RetryAfter <= 0 || !e.Retryable ||
			e.Message != "3 activations of user ann wait in group default, which is the limit (FAENA_BACKLOG_LIMIT). Try again when some have started." {
			t.Errorf("the error is %+v", e)
		}
	}
	if n := r.nats.objects(t, group); n != 0 {
		t.Errorf("%d parameters of refused calls are left", n)
	}
	usage, err := r.Usage(t.Context(), "ann")
	if noError(t, err); usage.Active != 4 || usage.Backlog != 3 || usage.Limit != 5 {
		t.Errorf("the usage is %+v", usage)
	}
	r.nats.countersSoon(t, "ann", map[string]string{activeCounter: "4"})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := r.call("sync"); err != nil {
			t.Errorf("a synchronous call is refused: %v", err)
		}
	})
	faenatest.Eventually(t, patience, "all slots are in use", func() bool { return g.running.Load() == 5 })
	_, err = r.call("one too many")
	if e := isKind(t, err, faena.KindLimit); e.Reason != "limit_reached" {
		t.Errorf("the error is %+v", e)
	}
	close(g.open)
	wg.Wait()
	r.stored(8)
	r.quiet()
	r.nats.countersSoon(t, "ann", map[string]string{activeCounter: "0", completedCounter: "8"})
	if n := r.observer.releasedSoFar(); n != 3 {
		t.Errorf("%d were released", n)
	}
}

// The limit holds for all APIs together: each hears of what the others have added. One call after the other, at one API and the next,
// exactly as many wait as may.
func TestControl_Backlog_LimitOfAll(t *testing.T) {
	t.Parallel()
	const limit = 30
	one := waiting(t, 1, waits(limit))
	two := one.another("api-2", several, waits(limit))
	apis := []*rig{one, two}
	one.worker(0, echo)
	one.accepted("in the slot")
	for i := range limit {
		apis[i%2].accepted("x")
		for _, api := range apis {
			faenatest.Eventually(t, patience, "all APIs know", func() bool {
				b := api.backlogs.of(group, "ann")
				noError(t, b.refresh(t.Context()))
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.size == i+1
			})
		}
	}
	for i := range 10 {
		_, err := apis[i%2].send("x")
		if e := isKind(t, err, faena.KindLimit); e.Reason != "backlog_full" {
			t.Errorf("one more: %+v", e)
		}
	}
	if n := one.inBacklog("ann"); n != limit {
		t.Errorf("%d wait", n)
	}
}

// At the same time they may let in as many more as calls are under way at all of them.
func TestControl_Backlog_LimitOfAll_AtOnce(t *testing.T) {
	t.Parallel()
	const limit, underWay, calls = 100, 8, 60
	one := waiting(t, 1, waits(limit))
	two := one.another("api-2", several, waits(limit))
	one.worker(0, echo)
	one.accepted("in the slot")
	var accepted, refused atomic.Int64
	var wg sync.WaitGroup
	for k := range underWay {
		api := []*rig{one, two}[k%2]
		wg.Go(func() {
			for range calls {
				if _, err := api.send("x"); err == nil {
					accepted.Add(1)
				} else if e := isKind(t, err, faena.KindLimit); e.Reason == "backlog_full" {
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := accepted.Load(); n > limit+underWay || n+refused.Load() != underWay*calls || one.inBacklog("ann") != int(n) {
		t.Errorf("%d were accepted and %d refused, %d wait", n, refused.Load(), one.inBacklog("ann"))
	}
	for _, api := range []*rig{one, two} {
		faenatest.Eventually(t, patience, "no more are accepted", func() bool { _, err := api.send("x"); return err != nil })
	}
	if n := one.inBacklog("ann"); n < limit || n > limit+underWay {
		t.Errorf("in the end %d wait", n)
	}
	if asked := one.bus.count("BacklogSize") + two.bus.count("BacklogSize"); asked > 100 {
		t.Errorf("%d calls asked the stream %d times", underWay*calls, asked)
	}
}

// Nobody knows whether the message is in the backlog: it is cancelled where that can be told for certain, and does not run.
func TestControl_Backlog_UnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, fault string
		cancels     bool // the record can be settled
	}{
		{"NotStored", "PublishBacklog", true},
		{"Stored", "PublishBacklog answer", true},
		{"NotCancelled", "PublishBacklog answer", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := waiting(t, 1, func(_ *rig, _ *Options, t *times) { t.admitBudget = 2 * time.Second })
			var l journal
			r.worker(0, l.run)
			first := r.accepted("first")
			r.bus.on(c.fault, func() error { return faena.ErrUnknown })
			if !c.cancels {
				r.bus.on("UpdateRecord", func() error { return faena.ErrUnknown })
			}
			_, err := r.send("unknown")
			e := isKind(t, err, faena.KindUnavailable)
			if e.OutcomeUnknown == c.cancels || e.Activation == "" || !e.Retryable {
				t.Errorf("the error is %+v", e)
			}
			r.bus.on(c.fault, nil)
			r.bus.on("UpdateRecord", nil)
			r.worker(1, l.run)
			if c.cancels {
				r.becomes(e.Activation, faena.StateCancelled)
			} else {
				r.becomes(e.Activation, faena.StateSucceeded)
			}
			r.becomes(first, faena.StateSucceeded)
			r.stored(2)
			r.quiet()
			if ran := len(l.all()); ran != 1 && c.cancels || ran != 2 && !c.cancels {
				t.Errorf("%d ran", ran)
			}
		})
	}
}

// A stream without room refuses, and leaves nothing.
func TestControl_Backlog_Full(t *testing.T) {
	t.Parallel()
	r := waiting(t, 1)
	r.worker(0, echo)
	r.accepted("first")
	r.bus.on("PublishBacklog", func() error { return faena.ErrFull })
	_, err := r.send("x")
	if e := isKind(t, err, faena.KindUnavailable); e.Reason != "storage_full" {
		t.Errorf("the error is %+v", e)
	}
	r.bus.on("PublishBacklog", nil)
	if live, err := r.bus.Bus.LiveRecords(t.Context(), group, "ann"); err != nil || len(live) != 1 {
		t.Errorf("live are %v, %v", live, err)
	}
}

// Where nothing may wait it is as it was: refused at the limit.
func TestControl_Backlog_None(t *testing.T) {
	t.Parallel()
	r := waiting(t, 1, waits(0))
	r.accepted("first")
	_, err := r.send("x")
	if e := isKind(t, err, faena.KindLimit); e.Reason != "limit_reached" {
		t.Errorf("the error is %+v", e)
	}
}

// Those that wait are cancelled, expire and lose their function as those in a slot do; nothing of them is left.
func TestControl_Backlog_EndsThere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		state  faena.State
		reason faena.Reason
		end    func(r *rig, id string)
	}{
		{"Cancelled", faena.StateCancelled, faena.ReasonCancelled, func(r *rig, id string) { noError(t, cancelled(r.Cancel(t.Context(), "ann", id))) }},
		{"Expired", faena.StateFailed, faena.ReasonExpired, func(r *rig, id string) {
			faenatest.EventuallyNil(t, patience, "its time is over", func() error {
				rec, _, err := r.bus.Bus.Record(t.Context(), group, "ann", id)
				if err == nil && !rec.State.Terminal() {
					err = fmt.Errorf("it is %s", rec.State)
				}
				if faena.IsKind(err, faena.KindNotFound) {
					err = nil
				}
				return err
			})
		}},
		{"FunctionDeleted", faena.StateCancelled, faena.ReasonFunctionDeleted, func(r *rig, _ string) {
			noError(t, r.documents.DeleteFunction(t.Context(), "ann", "g", faena.Condition{})) // by somebody who ends nothing
			r.announce(changedFunction, "ann", "g")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := waiting(t, 1, hasty, func(_ *rig, _ *Options, t *times) { t.orphanAge = 4 * time.Second })
			r.deploy("ann", "g")
			g := newGate()
			r.worker(1, g.run)
			ids := r.accept("ann", 1)
			rec, err := r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "g", Async: true, Parameter: []byte("ends"), Expires: 2 * time.Second})
			noError(t, err)
			if !rec.Backlogged {
				t.Fatalf("the record is %+v", rec)
			}
			ids = append(ids, r.accept("ann", 2)...)
			c.end(r, rec.ID)
			close(g.open)
			if got := r.becomes(rec.ID, c.state); got.Reason != c.reason || got.Attempt != 0 || got.EndedAt == nil {
				t.Errorf("the record is %+v", got)
			}
			for _, id := range ids {
				r.becomes(id, faena.StateSucceeded)
			}
			r.stored(4)
			r.quiet()
		})
	}
}

// The 24 hours of an asynchronous call count from its admission, through the backlog and its slot.
func TestControl_Backlog_Deadline(t *testing.T) {
	t.Parallel()
	r := waiting(t, 1)
	g := newGate()
	r.worker(1, g.run)
	r.accepted("first")
	id := r.accepted("second")
	admitted := time.Now()
	faenatest.Eventually(t, patience, "it has waited for a while", func() bool { return time.Since(admitted) > 1500*time.Millisecond })
	noError(t, r.bus.Bus.RemoveHeartbeat(t.Context(), group, "w1"))
	w := r.bus.count("UpdateRecord")
	close(g.open)
	rec := r.becomes(id, faena.StateSucceeded)
	if left := rec.StartWithin(); left > time.Hour-1500*time.Millisecond || left < 59*time.Minute || rec.WithinMS != time.Hour.Milliseconds() || rec.Publication != 2 {
		t.Errorf("released after %v, with %d changes, it may wait for %v: %+v", time.Since(admitted), r.bus.count("UpdateRecord")-w, left, rec)
	}
}

// What is believed of a backlog, with a clock of its own.
func TestUserBacklog(t *testing.T) {
	asked, size := 0, 0
	var failure error
	now := time.Now()
	s := newBacklogs(askerFunc(func() (int, error) { asked++; return size, failure }))
	s.now = func() time.Time { return now }
	b := s.of("default", "ann")
	s.heard("default", "bob") // of whom nobody has asked
	failure = errors.New("away")
	for range 3 {
		if b.any(t.Context()) || asked != 1 {
			t.Errorf("what is not known keeps calls from their slots, or is asked for %d times", asked)
		}
	}
	if err := b.add(t.Context(), 2); err == nil {
		t.Error("what is not known is believed")
	}
	failure = nil
	now = now.Add(backlogMemory)
	is := func(step string, any bool, questions int) {
		t.Helper()
		if got := b.any(t.Context()); got != any || asked != questions {
			t.Errorf("%s: something waits: %v, want %v; asked %d times, want %d", step, got, any, asked, questions)
		}
	}
	is("nothing waits", false, 3)
	noError(t, b.add(t.Context(), 2))
	b.stored()
	s.heard("default", "ann") // our own hint
	is("one of ours", true, 3)
	s.heard("default", "ann") // another API's
	if err := b.add(t.Context(), 2); !faena.IsKind(err, faena.KindLimit) {
		t.Errorf("a third one: %v", err)
	}
	b.drop()
	noError(t, b.add(t.Context(), 2))
	now = now.Add(backlogMemory)
	is("the stream is asked again, and it is empty", false, 4)
	size = 2
	now = now.Add(backlogMemory)
	if err := b.add(t.Context(), 2); !faena.IsKind(err, faena.KindLimit) || asked != 5 {
		t.Errorf("two wait: %v, asked %d times", err, asked)
	}
	failure = errors.New("away")
	now = now.Add(backlogMemory)
	if err := b.add(t.Context(), 2); err == nil {
		t.Error("the stream is away, and what is old is believed")
	}
	asked = 0
	for range 2 {
		if !b.any(t.Context()) || asked != 1 {
			t.Errorf("what was believed last does not count, or is asked for %d times", asked)
		}
	}
}

// Who waits for an answer that another call has asked for, and whose time is over, asks himself.
func TestUserBacklog_WhoAskedGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, leave := context.WithCancel(t.Context())
		n := 0
		b := newBacklogs(askerFunc(func() (int, error) {
			if n++; n == 1 {
				<-gone.Done()
				return 0, gone.Err()
			}
			return 7, nil
		})).of("default", "ann")
		var wg sync.WaitGroup
		for _, c := range []struct {
			ctx  context.Context
			want error
		}{{gone, context.Canceled}, {t.Context(), nil}} {
			wg.Go(func() {
				if err := b.add(c.ctx, 10); !errors.Is(err, c.want) {
					t.Errorf("the error is %v, want %v", err, c.want)
				}
			})
			synctest.Wait() // the first one asks
		}
		leave()
		wg.Wait()
		if b.size != 8 {
			t.Errorf("%d are counted", b.size)
		}
	})
}

// A backlog that is nearly full leaves its room to retries.
func TestControl_Backlog_NearlyFull(t *testing.T) {
	t.Parallel()
	r := waiting(t, 1)
	r.worker(0, echo)
	r.accepted("x")
	r.accepted("y")
	r.bus.on("BacklogFill", func() error { return errors.New("it is full") })
	faenatest.EventuallyNil(t, patience, "calls that would wait are refused", func() error {
		_, err := r.send("z")
		if e, ok := asError(err); !ok || e.Reason != "storage_nearly_full" || !strings.Contains(e.Message, "the backlog of group default is 80 % full") {
			return fmt.Errorf("%w", err)
		}
		return nil
	})
	n := r.inBacklog("ann")
	noError(t, r.file(t.Context(), r.retried(time.Hour)))
	r.backlogIs("ann", n+1)
}

// Where the backlog does not answer, a call for which there is a slot is taken all the same.
func TestControl_Backlog_Away(t *testing.T) {
	t.Parallel()
	r := start(t, several, waits(faena.DefaultBacklog))
	r.user("ann", 1)
	r.deploy("ann", "f")
	r.bus.on("BacklogSize", func() error { return faena.ErrRetry })
	id := r.accepted("x")
	_, err := r.send("y")
	isKind(t, err, faena.KindUnavailable)
	r.bus.on("BacklogSize", nil)
	r.worker(1, echo)
	r.becomes(id, faena.StateSucceeded)
	r.quiet()
}
