package worker

import (
	"context"
	"errors"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// verdict is what to do with a delivery, by what its record says.
type verdict int

const (
	// proceed: make ready, claim, run. It is queued, or its worker is lost and it may be run again.
	proceed verdict = iota
	// drop: acknowledge and do nothing else: absent, terminal, in the backlog, or a copy of a message that runs elsewhere, or waits in
	// another slot.
	drop
	// wait: its next attempt is not due yet.
	wait
	// expire: it waited past its latest start.
	expire
	// cancel: its user asked for that before it started.
	cancel
	// lose: a redelivery of one that was started and may not be run again; its worker is lost.
	lose
	// leave: somebody else has claimed it by the same message since it was looked at. He lives, and any answer would be taken for his;
	// when he does not, the message comes again.
	leave
)

// circumstances are what a record is judged by, besides what it says.
type circumstances struct {
	sequence uint64        // of the delivery, in the stream
	slot     int           // that the delivery is in
	waited   time.Duration // since the server stamped the message
	now      time.Time     // by the server's clock
	spec     *faena.Spec
}

// decide is the rule of design section 3, step 3. rec is nil where the record is absent.
func decide(rec *faena.Record, c circumstances) verdict {
	switch {
	case rec == nil || rec.State.Terminal() || rec.Backlogged:
		return drop
	case rec.State == faena.StateRunning && rec.Sequence != c.sequence:
		return drop
	case rec.State == faena.StateQueued && rec.Slot != c.slot: // a message from before it was in the backlog, which comes late
		return drop
	case rec.State == faena.StateRunning:
		if _, again := c.spec.Retry(faena.ReasonWorkerLost, rec.Attempt, 0); !again || c.waited > latestStart(rec, c.spec) {
			return lose
		}
		if rec.CancelRequested {
			return cancel
		}
		return proceed
	case rec.CancelRequested:
		return cancel
	case c.waited > latestStart(rec, c.spec):
		return expire
	case rec.NotBefore != nil && c.now.Before(*rec.NotBefore):
		return wait
	default:
		return proceed
	}
}

// latestStart is how long after the server has stamped its message an attempt may start. One that follows a lost worker may wait
// as long again as the first, after all that the others have taken.
func latestStart(rec *faena.Record, spec *faena.Spec) time.Duration {
	if rec.State != faena.StateRunning {
		return rec.StartWithin()
	}
	lost := time.Duration(rec.Attempt)
	return (lost+1)*rec.StartWithin() + lost*(spec.Timeout()+faena.AckWait)
}

// judge decides on an activation's record as it is now.
func (w *Worker) judge(a *activation, rec *faena.Record) verdict {
	return decide(rec, circumstances{sequence: a.delivery.Sequence, slot: a.delivery.Slot, waited: w.waited(a), now: w.o.ServerNow(), spec: &a.rev.Spec})
}

// standing is what a re-read record says to the worker that holds its message.
type standing int

const (
	ours       standing = iota // go on
	wanted                     // ours, and its user asks to cancel it
	superseded                 // another worker's, another attempt's, ended, or gone: kill and say nothing
)

// stands judges a re-read record of an activation that this worker holds, claimed or not.
func stands(rec *faena.Record, worker string, p phase, sequence uint64) standing {
	switch {
	case rec == nil || rec.State.Terminal() || rec.Backlogged:
		return superseded
	case rec.State == faena.StateQueued && p.attempt != 0:
		return superseded
	case rec.State == faena.StateRunning && rec.Sequence != sequence:
		return superseded
	case rec.State == faena.StateRunning && p.attempt != 0 && (rec.Worker != worker || rec.Attempt != p.attempt):
		return superseded
	case rec.State == faena.StateRunning && p.attempt == 0 && rec.Worker != worker && (rec.Worker != p.lost || rec.Attempt != p.lostAttempt):
		return superseded
	case rec.CancelRequested:
		return wanted
	default:
		return ours
	}
}

// look judges a delivery by its record. A first delivery brings it: where it may proceed by that, but that is not true
// any more, the claim is refused, and the record is read then. Anything else is decided by the record as it is now.
func (w *Worker) look(a *activation) (verdict, *faena.Record, uint64, error) {
	d := a.delivery
	if m := d.Message; !d.Redelivered && m.Record != nil && m.RecordRevision != 0 {
		if v := w.judge(a, m.Record); v == proceed {
			return v, m.Record, m.RecordRevision, nil
		}
	}
	rec, rev, err := w.read(a.ctx, a)
	if err != nil {
		return drop, nil, 0, err
	}
	if a.lapsed(w.every.fence) { // what is read is of whoever was given it since
		return drop, nil, 0, errFenced
	}
	if w.ahead(a, rec) {
		return drop, nil, 0, errAhead
	}
	v := w.judge(a, rec)
	if v == proceed && rec.State == faena.StateRunning {
		a.takesOver(rec)
	}
	return v, rec, rev, nil
}

// ahead reports of a message whose worker would be taken for a lost one whether that has begun later than it is here. Then either the
// clocks differ, or this host has stood still without its kernel's noticing, and that worker runs it: the message had waited here
// meanwhile. Nobody can tell, so it is left to the server once; a lost worker's comes again.
func (w *Worker) ahead(a *activation, rec *faena.Record) bool {
	return rec != nil && rec.State == faena.StateRunning && rec.Sequence == a.delivery.Sequence && rec.StartedAt != nil &&
		rec.StartedAt.Sub(w.o.ServerNow()) > w.every.stall && w.passed.first(a.delivery.Sequence)
}

// read returns the record from the leader, nil where it is absent, trying again while the queue gives no answer.
func (w *Worker) read(ctx context.Context, a *activation) (*faena.Record, uint64, error) {
	var rec *faena.Record
	var rev uint64
	err := retry(ctx, func(ctx context.Context) (err error) {
		rec, rev, err = w.o.Bus.Record(ctx, a.group, a.user, a.id)
		if faena.IsKind(err, faena.KindNotFound) {
			rec, rev, err = nil, 0, nil
		}
		if errors.Is(err, faena.ErrSchema) {
			err = permanent{err}
		}
		return err
	})
	return rec, rev, err
}

// claim makes the record running, of this worker. It returns proceed when it is ours to run; otherwise what to do with
// it now, with the record as it was found changed.
func (w *Worker) claim(ctx context.Context, a *activation, rec *faena.Record, rev uint64) (verdict, *faena.Record, uint64, error) {
	mine, err := w.asOurs(a, rec)
	for pause := firstPause; err == nil; pause = next(pause) {
		if a.lapsed(w.every.fence) { // whoever was given it since would take this worker for a lost one
			return drop, nil, 0, errFenced
		}
		newRev, updateErr := w.update(ctx, mine, rev)
		if updateErr == nil {
			failpoint.Hit("worker/record-running")
			a.claimed(mine, newRev)
			return proceed, mine, newRev, nil
		}
		if !errors.Is(updateErr, faena.ErrStale) && !sleep(ctx, pause) {
			return drop, nil, 0, updateErr
		}
		found, foundRev, readErr := w.read(ctx, a)
		switch {
		case readErr != nil:
			return drop, nil, 0, readErr
		case sameClaim(found, mine): // the answer was lost, the write was not
			a.claimed(found, foundRev)
			return proceed, found, foundRev, nil
		case found != nil && foundRev == rev: // the same is written again: either may be stored
			continue
		}
		switch v := w.judgeAgain(a, rec, found); {
		case a.lapsed(w.every.fence):
			return drop, nil, 0, errFenced
		case v == leave:
			return drop, nil, 0, errTaken
		case v != proceed:
			return v, found, foundRev, nil
		}
		if found.State == faena.StateRunning {
			a.takesOver(found)
		}
		rec, rev = found, foundRev
		mine, err = w.asOurs(a, rec)
	}
	return drop, nil, 0, err
}

// sameClaim reports whether found is what mine was stored as. An earlier life of this worker has the same name, and may have claimed
// the same attempt of the same message, but at another time.
func sameClaim(found, mine *faena.Record) bool {
	return found != nil && found.HeldBy(mine.Worker, mine.Attempt) && found.Sequence == mine.Sequence &&
		found.StartedAt != nil && found.StartedAt.Equal(*mine.StartedAt)
}

// judgeAgain decides by a record that was re-read since the delivery was judged by what seen says. One that names this worker is of an
// earlier life of it, or was given up: nobody is at it any more. A first delivery may find that, where the server has lost what it had
// delivered: it writes that down later than it does it.
func (w *Worker) judgeAgain(a *activation, seen, found *faena.Record) verdict {
	v := w.judge(a, found)
	if v != drop && !asSeen(seen)(found) && found.Worker != w.o.ID {
		return leave
	}
	return v
}

// asOurs is a record that is queued, or whose worker is lost, as this worker's.
func (w *Worker) asOurs(a *activation, r *faena.Record) (*faena.Record, error) {
	mine := *r
	return &mine, w.take(a, &mine)
}

// take makes a record this worker's that is queued, or whose worker is lost.
func (w *Worker) take(a *activation, r *faena.Record) error {
	if r.State == faena.StateRunning {
		return r.Reclaim(w.o.ID, clock.Now())
	}
	return r.Claim(w.o.ID, a.delivery.Sequence, clock.Now())
}

func (w *Worker) update(ctx context.Context, r *faena.Record, rev uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return w.o.Bus.UpdateRecord(ctx, r, rev)
}

// waited is how long the message has been in the stream, by the server's clock.
func (w *Worker) waited(a *activation) time.Duration {
	return max(0, w.o.ServerNow().Sub(a.delivery.Published))
}
