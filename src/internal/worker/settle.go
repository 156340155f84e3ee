package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

const (
	// storeFor is how long a large result is tried to be stored before the activation fails for it.
	storeFor = time.Minute
	// settleFor is how long a terminal record is tried to be stored. Whoever gets the message next settles it then.
	settleFor = 15 * time.Minute
	// ackTries bounds the acknowledgement: the message of a terminal record is acknowledged when it comes again.
	ackTries = 3
)

// conclude does what a verdict other than proceed asks for. rec is nil where the record is absent.
func (w *Worker) conclude(a *activation, v verdict, rec *faena.Record, rev uint64) {
	switch v {
	case proceed:
		w.giveBack(a, handBack)
	case wait:
		w.giveBack(a, rec.NotBefore.Sub(w.o.ServerNow()))
	case drop:
		a.ended()
		failpoint.Hit("worker/before-drop")
		w.acknowledge(context.WithoutCancel(a.ctx), a)
	case expire:
		w.settleUnrun(a, rec, rev, faena.ReasonExpired,
			fmt.Sprintf("No worker could start it within %s.", rec.StartWithin()))
	case cancel:
		message := "Cancelled by its user before it started."
		if rec.Attempt > 0 {
			message = fmt.Sprintf("Cancelled by its user before attempt %d.", rec.Attempt+1)
		}
		w.settleUnrun(a, rec, rev, faena.ReasonCancelled, message)
	case lose:
		w.settleUnrun(a, rec, rev, faena.ReasonWorkerLost,
			fmt.Sprintf("The worker %s, which ran it, was lost, and what it had written with it. It is not known how far the function came.", rec.Worker))
	}
}

// settleUnrun settles an activation that this worker did not run, as long as its record says what rec does.
func (w *Worker) settleUnrun(a *activation, rec *faena.Record, rev uint64, reason faena.Reason, message string) {
	a.ended()
	w.settle(a, rec, rev, settlement{
		apply: func(r *faena.Record) error {
			r.Timings = w.timings(a, r.Timings)
			if r.StartedAt != nil { // by another worker: since then it was not in the queue
				r.Timings.QueueUS = max(0, r.StartedAt.Sub(r.AdmittedAt)).Microseconds()
			}
			return r.Fail(reason, message, clock.Now())
		},
		mine:   asSeen(rec),
		letter: w.letter(a, rec, reason, message),
	})
}

// asSeen reports of a record whether it still says what rec does.
func asSeen(rec *faena.Record) func(*faena.Record) bool {
	seen := *rec
	return func(r *faena.Record) bool {
		return r.State == seen.State && r.Attempt == seen.Attempt && r.Worker == seen.Worker
	}
}

// settleRun settles an activation that this worker ran, or queues it for its next attempt. What is large goes to the object store
// first; of an attempt that is not the last nothing is kept but how it ended.
func (w *Worker) settleRun(a *activation, out outcome) {
	if delay, again := w.again(a, out.reason, a.attempt); again {
		w.requeueRun(a, out, delay)
		return
	}
	ctx := context.WithoutCancel(a.ctx)
	result := faena.Blob{Size: int64(len(out.result)), Inline: out.result, Truncated: out.truncated}
	logs := a.log.blob()
	began := time.Now()
	var objects []string
	if err := w.spill(ctx, a, &result, "out", &objects); err != nil {
		reason := faena.ReasonResultStoreFull
		out.reason, out.message = reason, fmt.Sprintf("The result of %d bytes could not be stored: %s.", len(out.result), fullWords(err))
		result = faena.Blob{Truncated: true}
	}
	if err := w.spill(ctx, a, &logs, "log", &objects); err != nil {
		logs = cutLog(logs) // the verdict does not hang on it
	}
	var storeUS int64
	if len(objects) > 0 {
		storeUS = time.Since(began).Microseconds()
	}
	a.mu.Lock()
	rec, rev := a.record, a.recordRev
	a.mu.Unlock()
	settled := w.settle(a, rec, rev, settlement{
		apply: func(r *faena.Record) error {
			r.Warm, r.PeakMemoryBytes, r.Remarks = a.warm, out.peak, out.remarks
			r.Result, r.Log = result, logs
			if out.exited {
				r.Signal = out.exit.Signal
				if r.Signal == 0 {
					r.ExitCode = &out.exit.Code
				}
			}
			r.Timings = w.timings(a, r.Timings)
			r.Timings.RunUS, r.Timings.StoreUS = out.runUS, storeUS
			if out.reason == "" {
				return r.Succeed(clock.Now())
			}
			return r.Fail(out.reason, out.message, clock.Now())
		},
		mine:   func(r *faena.Record) bool { return r.HeldBy(w.o.ID, rec.Attempt) },
		letter: w.letter(a, rec, out.reason, out.message), patient: true,
	})
	if settled {
		return
	}
	for _, name := range objects {
		if err := once(ctx, func(ctx context.Context) error { return w.o.Bus.DeleteObject(ctx, a.group, name) }); err != nil {
			w.logOf(a).Warn("the object of a lost attempt stays until it expires", "object", name, "error", err)
		}
	}
}

// spill moves what is over faena.MaxInlineBytes to the object store, under a name with the attempt.
func (w *Worker) spill(ctx context.Context, a *activation, b *faena.Blob, what string, objects *[]string) error {
	if b.Size <= faena.MaxInlineBytes {
		return nil
	}
	name := fmt.Sprintf("%s.%s.%d", what, a.id, a.attempt)
	ctx, cancel := context.WithTimeout(ctx, storeFor)
	defer cancel()
	err := retryObject(ctx, func(ctx context.Context) error {
		err := w.o.Bus.PutObject(ctx, a.group, name, b.Inline)
		if errors.Is(err, faena.ErrFull) {
			err = permanent{err}
		}
		return err
	})
	if err != nil {
		w.logOf(a).Warn("an object could not be stored", "object", name, "error", err)
		return err
	}
	failpoint.Hit("worker/object-stored")
	*objects = append(*objects, name)
	b.Object, b.Inline = name, nil
	return nil
}

// cutLog keeps of a log what fits into the record.
func cutLog(b faena.Blob) faena.Blob {
	cut := len(b.Inline) - faena.MaxInlineBytes
	if cut <= 0 {
		return b
	}
	return faena.Blob{Size: faena.MaxInlineBytes, Inline: b.Inline[cut:], Truncated: true, Dropped: b.Dropped + int64(cut)}
}

func fullWords(err error) string {
	if errors.Is(err, faena.ErrFull) {
		return "the store is full"
	}
	return "the store does not answer"
}

// settlement is one change of a record to a terminal state, or back to queued for its next attempt.
type settlement struct {
	apply func(*faena.Record) error // makes the change
	mine  func(*faena.Record) bool  // whether a record is still this worker's to settle
	// letter is written before the record is changed; nil where there is none to write. Where patient it is tried for as long as the
	// record itself would be: nobody else has what this worker ran.
	letter  *faena.DeadLetter
	patient bool
}

// settle stores the changed record, then acknowledges the message, then tells who waits; one that keeps its slot for its next
// attempt is handed back instead. It reports whether the record is settled as asked; where somebody else was first, nothing is
// acknowledged and nothing is told.
func (w *Worker) settle(a *activation, rec *faena.Record, rev uint64, s settlement) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), settleFor)
	defer cancel()
	if s.letter != nil {
		if err := w.bury(ctx, a, s); err != nil {
			w.logOf(a).Error("an activation's dead letter could not be written; whoever gets its message next settles it", "error", err)
			return false
		}
	}
	end, err := w.store(ctx, a, rec, rev, s)
	if err != nil {
		w.logOf(a).Error("an activation could not be settled", slog.Any("error", err))
		return false
	}
	if end == nil {
		w.o.Observer.Abandoned("superseded")
		w.logOf(a).Warn("an activation was settled by somebody else")
		return false
	}
	if !end.State.Terminal() {
		w.requeued(ctx, a, end)
		return true
	}
	failpoint.Hit("worker/record-ended")
	w.acknowledge(ctx, a)
	failpoint.Hit("worker/acknowledged")
	if end.Instance != "" {
		if err := once(ctx, func(ctx context.Context) error { return w.o.Bus.Complete(ctx, end) }); err != nil {
			w.logOf(a).Warn("the end of an activation could not be announced", "error", err)
		}
		failpoint.Hit("worker/announced")
	}
	w.o.Observer.Settled(end)
	if w.log.Enabled(ctx, slog.LevelDebug) { // not at info: with the journal's work it costs a tenth of the activation, which the API has in history
		w.logOf(a).Debug("an activation has ended", "state", end.State, "reason", end.Reason)
	}
	return true
}

// store changes the record by compare-and-set. It returns the record as stored, or nil where it belongs to
// another attempt or is terminal already. An outcome that is not known is looked up and, while the record is still
// ours, tried again.
func (w *Worker) store(ctx context.Context, a *activation, rec *faena.Record, rev uint64, s settlement) (*faena.Record, error) {
	doubtful := false
	var last *faena.Record // of the last try
	for pause := firstPause; ; pause = next(pause) {
		end := *rec
		if err := s.apply(&end); err != nil {
			return nil, err
		}
		last = &end
		_, err := w.update(ctx, last, rev)
		if err == nil {
			return last, nil
		}
		if !errors.Is(err, faena.ErrStale) {
			doubtful = true
			if !sleep(ctx, pause) {
				return nil, err
			}
		}
		found, foundRev, err := w.read(ctx, a)
		switch {
		case err != nil:
			return nil, err
		case found == nil && doubtful && last.State.Terminal():
			return last, nil // stored by the try without an answer, recorded, and purged since
		case found == nil:
			return nil, nil
		case doubtful && sameEnd(found, last):
			return last, nil
		case !s.mine(found):
			return nil, nil
		}
		rec, rev = found, foundRev
	}
}

// sameEnd reports whether found is what a try without an answer has stored, or, for a next attempt, what has come of it since.
func sameEnd(found, tried *faena.Record) bool {
	if n := len(tried.Failures); !tried.State.Terminal() {
		if len(found.Failures) < n {
			return false
		}
		was, is := tried.Failures[n-1], found.Failures[n-1]
		return is.Attempt == was.Attempt && is.Reason == was.Reason && is.Worker == was.Worker // when it ended is another time at each try
	}
	return found.State == tried.State && found.Reason == tried.Reason && found.Worker == tried.Worker &&
		found.Attempt == tried.Attempt && found.Message == tried.Message
}

// acknowledge removes the message from the stream: the user's slot is free.
func (w *Worker) acknowledge(ctx context.Context, a *activation) {
	var err error
	for range ackTries {
		if err = once(ctx, a.delivery.DoubleAck); err == nil {
			return
		}
		if !sleep(ctx, firstPause) {
			break
		}
	}
	w.logOf(a).Warn("a settled activation could not be acknowledged", "error", err)
}

// timings fills in what is known of the stages up to now.
func (w *Worker) timings(a *activation, t faena.Timings) faena.Timings {
	total := w.waited(a)
	t.QueueUS = max(0, total-time.Since(a.received)).Microseconds()
	t.PullUS, t.StartUS, t.TotalUS = a.pullUS, a.startUS, total.Microseconds()
	return t
}
