package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// again reports whether an activation whose attempt has ended for reason is run once more, and after how long. What a worker that
// stops has cut short is no fault of the function: nothing is gained by a pause.
func (w *Worker) again(a *activation, reason faena.Reason, attempt int) (after time.Duration, again bool) {
	after, again = a.rev.Spec.Retry(reason, attempt, rand.Float64())
	if reason == faena.ReasonWorkerLost {
		after = 0
	}
	return after, again
}

// requeueRun queues for its next attempt what this worker ran.
func (w *Worker) requeueRun(a *activation, out outcome, delay time.Duration) {
	a.mu.Lock()
	rec, rev := a.record, a.recordRev
	a.mu.Unlock()
	w.settle(a, rec, rev, settlement{
		apply: func(r *faena.Record) error {
			if r.CancelRequested { // after the run had ended
				r.Warm, r.PeakMemoryBytes, r.Remarks, r.Log = a.warm, out.peak, out.remarks, cutLog(a.log.blob())
				r.Timings = w.timings(a, r.Timings)
				r.Timings.RunUS = out.runUS
			}
			return w.requeue(a, r, out.reason, out.message, delay)
		},
		mine: func(r *faena.Record) bool { return r.HeldBy(w.o.ID, rec.Attempt) },
	})
}

// requeue makes a running record queued for its next attempt, or cancelled where its user has asked for that.
func (w *Worker) requeue(a *activation, r *faena.Record, reason faena.Reason, message string, delay time.Duration) error {
	if r.CancelRequested {
		return r.Fail(faena.ReasonCancelled, fmt.Sprintf("Cancelled by its user. Attempt %d had ended before: %s", r.Attempt, message), clock.Now())
	}
	var parameter *faena.Blob
	if delay > faena.MaxSlotDelay {
		parameter = &a.delivery.Message.Parameter
	}
	return r.Requeue(reason, message, delay, w.waited(a), parameter, w.o.ServerNow(), clock.Now())
}

// requeued lets go of a message whose record is queued for its next attempt: of one that waits in the backlog the slot is free,
// any other keeps its slot and comes again when it is due.
func (w *Worker) requeued(ctx context.Context, a *activation, r *faena.Record) {
	failpoint.Hit("worker/record-requeued")
	last := r.Failures[len(r.Failures)-1]
	w.o.Observer.Retried(last.Reason)
	w.logOf(a).Info("an activation is tried again", "attempt", last.Attempt, "reason", last.Reason, "not_before", r.NotBefore)
	if r.Backlogged {
		w.acknowledge(ctx, a)
		failpoint.Hit("worker/requeued-acknowledged")
		return
	}
	w.giveBack(a, r.NotBefore.Sub(w.o.ServerNow()))
}

// unprepared deals with an activation that has no container; seen is what its record said when that was begun.
func (w *Worker) unprepared(a *activation, seen *faena.Record, err error) {
	switch {
	case errors.Is(err, errDrained), errors.Is(err, errAborted), errors.Is(err, errFenced):
		w.setAside(a, err)
		return
	case faena.IsKind(err, faena.KindUnavailable) || errors.Is(err, context.DeadlineExceeded):
		w.logOf(a).Warn("an activation could not be made ready and is handed back", "error", err)
		w.giveBack(a, handBack)
		return
	case !a.delivery.Redelivered && mayPass(err):
		w.logOf(a).Warn("a container could not be started; it is tried once more", "error", err)
		w.giveBack(a, startAgain)
		return
	}
	ended := errors.Is(err, errExpired) || errors.Is(err, errCancelled) || errors.Is(err, errSuperseded)
	if !ended {
		w.logOf(a).Info("an activation could not be made ready", "error", err)
	}
	rec, rev, readErr := w.readSoon(context.WithoutCancel(a.ctx), a)
	if readErr != nil {
		w.setAside(a, readErr)
		return
	}
	v := w.judgeAgain(a, seen, rec)
	switch {
	case a.lapsed(w.every.fence):
		w.setAside(a, errFenced)
		return
	case v == leave, v != drop && errors.Is(err, errSuperseded):
		w.setAside(a, errTaken)
		return
	case v != proceed:
	case !ended:
		w.failUnrun(a, rec, rev, err)
		return
	// By a hair: only the latest start can have ended the preparation of a record that may proceed.
	case rec.State == faena.StateRunning:
		v = lose
	default:
		v = expire
	}
	w.conclude(a, v, rec, rev)
}

// failUnrun settles an activation that could not be started, or queues it for its next attempt: that it could not counts as one
// where the function has retries.
func (w *Worker) failUnrun(a *activation, rec *faena.Record, rev uint64, err error) {
	reason, message := reasonOf(err), messageOf(err)
	if a.rev.Spec.Retries == 0 {
		w.settleUnrun(a, rec, rev, reason, message)
		return
	}
	tried := *rec
	if err := w.take(a, &tried); err != nil {
		w.setAside(a, err)
		return
	}
	delay, again := w.again(a, reason, tried.Attempt)
	again = again && !faena.IsKind(err, faena.KindGone) // what is gone does not come back
	a.ended()
	s := settlement{mine: asSeen(rec), apply: func(r *faena.Record) error {
		if err := w.take(a, r); err != nil {
			return err
		}
		if again {
			return w.requeue(a, r, reason, message, delay)
		}
		r.StartedAt = nil
		r.Timings = w.timings(a, r.Timings)
		return r.Fail(reason, message, clock.Now())
	}}
	if !again {
		s.letter = w.letter(a, &tried, reason, message)
	}
	w.settle(a, rec, rev, s)
}

// mayPass reports whether the engine has failed for what may be a passing reason of its own: it stops, for example.
func mayPass(err error) bool {
	e, ok := errors.AsType[*faena.Error](err)
	return ok && e.Retryable && e.Component == faena.ComponentEngine && e.Reason == string(faena.ReasonStartFailed)
}
