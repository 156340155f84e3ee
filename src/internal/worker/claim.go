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
	// proceed: make ready, claim, run.
	proceed verdict = iota
	// drop: acknowledge and do nothing else: absent, terminal, or a copy of a message that runs elsewhere.
	drop
	// expire: it waited past its latest start.
	expire
	// cancel: its user asked for that before it started.
	cancel
	// lose: a redelivery of one that was started; its worker is lost.
	lose
)

// decide is the rule of design section 3, step 3. rec is nil where the record is absent; sequence and waited are the
// delivery's stream sequence and the time since the server stamped it.
func decide(rec *faena.Record, sequence uint64, waited time.Duration) verdict {
	switch {
	case rec == nil || rec.State.Terminal():
		return drop
	case rec.State == faena.StateRunning && rec.Sequence != sequence:
		return drop
	case rec.State == faena.StateRunning:
		return lose
	case rec.CancelRequested:
		return cancel
	case waited > rec.StartWithin():
		return expire
	default:
		return proceed
	}
}

// standing is what a re-read record says to the worker that holds its message.
type standing int

const (
	ours       standing = iota // go on
	wanted                     // ours, and its user asks to cancel it
	superseded                 // another worker's, another attempt's, ended, or gone: kill and say nothing
)

// stands judges a re-read record. attempt is 0 while this worker has not claimed it.
func stands(rec *faena.Record, worker string, attempt int, sequence uint64) standing {
	switch {
	case rec == nil || rec.State.Terminal():
		return superseded
	case rec.State == faena.StateRunning && (rec.Worker != worker || rec.Sequence != sequence):
		return superseded
	case rec.State == faena.StateRunning && attempt != 0 && rec.Attempt != attempt:
		return superseded
	case rec.State == faena.StateQueued && attempt != 0:
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
		if v := decide(m.Record, d.Sequence, w.waited(a)); v == proceed {
			return v, m.Record, m.RecordRevision, nil
		}
	}
	rec, rev, err := w.read(a.ctx, a)
	if err != nil {
		return drop, nil, 0, err
	}
	return decide(rec, d.Sequence, w.waited(a)), rec, rev, nil
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
	for pause := firstPause; ; pause = next(pause) {
		mine := *rec
		if err := mine.Claim(w.o.ID, a.delivery.Sequence, clock.Now()); err != nil {
			return drop, nil, 0, err
		}
		newRev, err := w.update(ctx, &mine, rev)
		if err == nil {
			failpoint.Hit("worker/record-running")
			a.claimed(&mine, newRev)
			return proceed, &mine, newRev, nil
		}
		if !errors.Is(err, faena.ErrStale) && !sleep(ctx, pause) {
			return drop, nil, 0, err
		}
		if rec, rev, err = w.read(ctx, a); err != nil {
			return drop, nil, 0, err
		}
		if rec != nil && rec.HeldBy(w.o.ID, mine.Attempt) && rec.Sequence == a.delivery.Sequence {
			a.claimed(rec, rev) // the answer was lost, the write was not
			return proceed, rec, rev, nil
		}
		if v := decide(rec, a.delivery.Sequence, w.waited(a)); v != proceed {
			return v, rec, rev, nil
		}
	}
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
