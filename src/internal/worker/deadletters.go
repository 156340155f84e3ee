package worker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// buryFor is how long the dead letter of what this worker did not run is tried to be written. After that the message is left for
// redelivery.
const buryFor = 10 * time.Second

// letter is the dead letter of an activation that ends for reason, as rec says with its last attempt; nil where none is to be
// written. Somebody who waits is told of the end, and what was cancelled or never started has an end that its user asked for.
func (w *Worker) letter(a *activation, rec *faena.Record, reason faena.Reason, message string) *faena.DeadLetter {
	e, known := faena.Explain(reason)
	usedUp := a.rev.Spec.Retries > 0 && rec.Attempt > 0 && e.State != faena.StateCancelled
	if !known || rec.Instance != "" || reason != faena.ReasonWorkerLost && !usedUp {
		return nil
	}
	return &faena.DeadLetter{Schema: faena.SchemaVersion, ID: a.id, User: a.user, Group: a.group, Function: rec.Function, Revision: rec.Revision,
		Reason: reason, Message: message, Attempts: rec.Attempt, Worker: w.o.ID, Parameter: a.delivery.Message.Parameter, At: clock.Now()}
}

// bury writes the dead letter of a settlement, as long as the record is this worker's to settle: what somebody else runs is not
// dead. It returns an error where it could not be written within buryFor, or, of what this worker ran, until ctx ends.
func (w *Worker) bury(ctx context.Context, a *activation, s settlement) error {
	if !s.patient {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.every.bury)
		defer cancel()
	}
	found, _, err := w.read(ctx, a)
	if err != nil {
		return err
	}
	if found == nil || !s.mine(found) {
		return nil // the settle finds that out too
	}
	return w.writeLetter(ctx, a, s.letter)
}

// writeLetter stores a letter, and before it the parameter where that is an object: the activation's own goes with its end.
func (w *Worker) writeLetter(ctx context.Context, a *activation, l *faena.DeadLetter) error {
	if p := &l.Parameter; p.Object != "" {
		kept, err := w.keepParameter(ctx, a, p.Object)
		switch {
		case err == nil:
			p.Object = kept
		case faena.IsKind(err, faena.KindNotFound), faena.IsKind(err, faena.KindGone):
			l.Message += " Its parameter is not in the object store any more."
		case errors.Is(err, faena.ErrFull):
			l.Message += " Its parameter could not be kept: the object store is full."
		default:
			return err
		}
		failpoint.Hit("worker/dead-parameter-stored")
	}
	if err := retry(ctx, func(ctx context.Context) error { return w.o.Bus.PutDeadLetter(ctx, l) }); err != nil {
		return err
	}
	failpoint.Hit("worker/dead-letter-written")
	w.o.Observer.DeadLettered(l.Reason)
	w.logOf(a).Warn("an activation will not be run any more; its dead letter is written", "dead_letter", l.ID, "reason", l.Reason, "attempts", l.Attempts)
	return nil
}

// keepParameter copies an activation's parameter to an object that outlives it, and returns its name.
func (w *Worker) keepParameter(ctx context.Context, a *activation, name string) (kept string, err error) {
	final := func(err error) error {
		if faena.IsKind(err, faena.KindNotFound) || faena.IsKind(err, faena.KindGone) || errors.Is(err, faena.ErrFull) {
			return permanent{err}
		}
		return err
	}
	data := a.parameter
	if data == nil {
		if err := retryObject(ctx, func(ctx context.Context) (err error) {
			data, err = w.o.Bus.Object(ctx, a.group, name)
			return final(err)
		}); err != nil {
			return "", err
		}
	}
	kept = "dead." + a.id
	return kept, retryObject(ctx, func(ctx context.Context) error { return final(w.o.Bus.PutObject(ctx, a.group, kept, data)) })
}

// refuse deals with a delivery that does not say what to run. One of another version is for a worker of that version; any other
// becomes a dead letter, its record, where there is one, is settled as lost, and its slot is free.
func (w *Worker) refuse(a *activation) {
	d := &a.delivery
	if errors.Is(d.Err, faena.ErrSchema) {
		w.putBack(a, "queue", d.Err)
		return
	}
	cause := d.Err
	if cause == nil {
		cause = errors.New("it has no revision")
	}
	w.logOf(a).Error("a message cannot be read", "sequence", d.Sequence, "error", cause)
	l := &faena.DeadLetter{Schema: faena.SchemaVersion, ID: a.id, User: a.user, Group: a.group, Reason: faena.ReasonWorkerLost,
		Message: "Its message cannot be read, so that it is not run.", Worker: w.o.ID, Raw: d.Raw, At: clock.Now()}
	if d.Message != nil {
		l.Parameter = d.Message.Parameter
	}
	ctx := context.WithoutCancel(a.ctx)
	if !faena.ValidUser(a.user) { // it is in nobody's slot
		w.acknowledge(ctx, a)
		return
	}
	var rec *faena.Record
	var rev uint64
	if a.id == "" {
		l.ID = nameless(a.group, d.Sequence)
	} else {
		var err error
		if rec, rev, err = w.readSoon(ctx, a); err != nil {
			w.setAside(a, err)
			return
		}
	}
	a.ended()
	switch {
	case rec == nil:
		within, cancel := context.WithTimeout(ctx, w.every.bury)
		defer cancel()
		if err := w.writeLetter(within, a, l); err != nil {
			w.logOf(a).Error("the dead letter of a message that cannot be read could not be written; the message is left", "sequence", d.Sequence, "error", err)
			return
		}
		w.acknowledge(ctx, a)
	case rec.State.Terminal(), rec.Backlogged, rec.State == faena.StateRunning && rec.Sequence != d.Sequence,
		rec.State == faena.StateQueued && rec.Slot != d.Slot:
		w.acknowledge(ctx, a) // an old one, or a copy
	default:
		l.Function, l.Revision, l.Attempts = rec.Function, rec.Revision, rec.Attempt
		w.settle(a, rec, rev, settlement{mine: asSeen(rec), letter: l, apply: func(r *faena.Record) error {
			r.Timings = w.timings(a, r.Timings)
			return r.Fail(l.Reason, l.Message, clock.Now())
		}})
	}
}

// nameless is the id of a dead letter of a message that has none, which no API has written: the same for each delivery of it.
func nameless(group string, sequence uint64) string {
	sum := sha256.Sum256([]byte(group + "/" + strconv.FormatUint(sequence, 10)))
	sum[6], sum[8] = sum[6]&0x0f|0x70, sum[8]&0x3f|0x80 // the form of an activation's id
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
