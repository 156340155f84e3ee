package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
	"faena.dev/faena/internal/sandbox"
)

const (
	// handBack is how long a message that cannot be run here now stays away.
	handBack = time.Second
	// startAgain is how long one stays away whose container the engine could not start for what may be its own reasons.
	startAgain = 5 * time.Second
	// copyPause is how long a copy of what this worker holds stays away.
	copyPause = 5 * time.Second
)

var errExpired = errors.New("past its latest start")

// handle does all with one delivery, from the first look at its record to its acknowledgement. duty ends when nothing more is to
// be started; e is where the delivery stands in the journal.
func (w *Worker) handle(duty, running context.Context, e *entry, d Delivery) {
	a := newActivation(running, w.o.Group, d, e, time.Now())
	defer a.stop(nil)
	// Before it is noted, and before any answer: nobody knows who holds it now.
	if w.progress.vigil.doubtful(clock.SinceBoot(), w.every.stall) {
		a.fenced.Store(true)
		w.setAside(a, errFenced)
		return
	}
	e.hold(&a.delivery, time.Duration(a.confirmedAt.Load()))
	if a.id != "" {
		if !w.held.add(a) {
			// It was delivered again while it is held here. Its holder goes on, fences or settles; this copy comes back later and
			// finds out, unless it is run here.
			w.giveBack(a, copyPause)
			return
		}
		defer w.held.remove(a)
	}
	failpoint.Hit("worker/delivered")
	if !d.readable() {
		w.refuse(a)
		return
	}
	if duty.Err() != nil {
		w.setAside(a, errDrained)
		return
	}
	v, rec, rev, err := w.look(a)
	if err != nil || v != proceed {
		w.letGo(a, v, rec, rev, err)
		return
	}
	c, err := w.prepare(duty, a, rec)
	if err != nil {
		w.unprepared(a, rec, err)
		return
	}
	failpoint.Hit("worker/prepared")
	v, rec, rev, err = w.claim(a.ctx, a, rec, rev)
	if err != nil || v != proceed {
		w.pool.release(c, false)
		w.letGo(a, v, rec, rev, err)
		return
	}
	out := w.run(a, c)
	a.ended()
	failpoint.Hit("worker/ran")
	w.pool.release(c, out.retire)
	if out.silent {
		a.entry.clear()
		return
	}
	w.settleRun(a, out)
}

// letGo deals with an activation that is not run here now: err says why nothing is known of it, or v what to do with it.
func (w *Worker) letGo(a *activation, v verdict, rec *faena.Record, rev uint64, err error) {
	if err != nil {
		w.setAside(a, err)
		return
	}
	w.conclude(a, v, rec, rev)
}

// prepare returns a container for the activation, taken from the pool or made; meanwhile the progress loop confirms
// it and looks for a cancellation. It gives up at the activation's latest start, and when the worker drains.
func (w *Worker) prepare(duty context.Context, a *activation, rec *faena.Record) (*container, error) {
	if !a.rev.HasCommand() {
		return nil, &faena.Error{Kind: faena.KindInvalid, Reason: string(faena.ReasonNoCommand), Component: faena.ComponentFunction,
			Message: "The image has neither ENTRYPOINT nor CMD, and the function's spec names no command."}
	}
	if err := w.fetchParameter(a); err != nil {
		return nil, err
	}
	if c := w.pool.take(a.rev); c != nil {
		a.warm = true
		return c, nil
	}
	ctx, cancel := context.WithTimeoutCause(a.ctx, latestStart(rec, &a.rev.Spec)-w.waited(a), errExpired)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(duty, func() { stop(errDrained) })()

	pulled, release, err := w.images.ensure(ctx, a.rev)
	a.pullUS = pulled.Microseconds()
	if err != nil {
		return nil, causeOr(ctx, err)
	}
	defer release()
	began := time.Now()
	c, err := w.pool.wait(ctx, a.rev)
	a.startUS = time.Since(began).Microseconds()
	if err != nil {
		return nil, causeOr(ctx, err)
	}
	a.warm = c.made.Before(began)
	return c, nil
}

// causeOr is why ctx ended where it has, and err otherwise.
func causeOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// fetchParameter sets the activation's parameter, read from the object store where it is large.
func (w *Worker) fetchParameter(a *activation) error {
	p := a.delivery.Message.Parameter
	if p.Object == "" {
		a.parameter = p.Inline
		return nil
	}
	err := retryObject(a.ctx, func(ctx context.Context) (err error) {
		a.parameter, err = w.o.Bus.Object(ctx, a.group, p.Object)
		if faena.IsKind(err, faena.KindNotFound) || faena.IsKind(err, faena.KindGone) {
			err = permanent{&faena.Error{Kind: faena.KindGone, Reason: string(faena.ReasonStartFailed), Component: faena.ComponentStore,
				Message: "The activation's parameter is not in the object store any more.", Err: err}}
		}
		return err
	})
	if err != nil {
		return causeOr(a.ctx, err)
	}
	return nil
}

// outcome is how a run ended. reason is empty for success.
type outcome struct {
	reason    faena.Reason
	message   string
	exit      sandbox.Exit
	exited    bool // the main process ended by itself, so exit tells of it
	result    []byte
	truncated bool
	peak      int64
	remarks   []string
	runUS     int64
	retire    bool // the container must not be used again
	silent    bool // the activation is somebody else's: say nothing
}

// run runs the activation's process in the container to its end.
func (w *Worker) run(a *activation, c *container) outcome {
	spec := &a.rev.Spec
	timeout := spec.Timeout()
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(a.ctx, timeout, errTimeout)
	defer cancel()
	sink := sink{w: w, a: a, limit: spec.ResultLimitBytes}
	exit, err := c.conn.Run(ctx, w.startOf(a, c, began.Add(timeout)), stdinOf(a), sink.write)
	out := outcome{exit: exit, exited: err == nil, result: sink.result, truncated: sink.tooLarge, runUS: exit.RunUS}
	if out.runUS == 0 {
		out.runUS = time.Since(began).Microseconds()
	}
	met := c.account()
	out.peak = met.peak
	switch {
	case err == nil:
		w.verdictOf(a, &out, met)
	case sink.tooLarge:
		out.reason = faena.ReasonResultTooLarge
		out.message = fmt.Sprintf("The function wrote more than %d bytes to its standard output, which is its limit. The first %d are kept.",
			spec.ResultLimitBytes, len(sink.result))
	default:
		out.truncated = len(out.result) > 0
		w.cutShort(a, &out, ctx, err, met)
	}
	out.retire = err != nil || met.ooms > 0 || exit.Tampered != ""
	for _, c := range spec.Capabilities {
		if !slices.Contains(w.o.Capabilities, c) {
			out.remarks = append(out.remarks, "The capability "+c+" was not given: FAENA_WORKER_CAPABILITIES of the worker does not have it.")
		}
	}
	if w.o.Unfiltered != "" {
		out.remarks = append(out.remarks, "It ran without packet rules, and could reach whatever the worker's host reaches.")
	}
	if met.forks > 0 {
		out.remarks = append(out.remarks, fmt.Sprintf("The limit of %d processes was met %d times.", spec.PIDs, met.forks))
	}
	return out
}

// cutShort says why a run did not come to its own end.
func (w *Worker) cutShort(a *activation, out *outcome, ctx context.Context, err error, met metLimits) {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errTimeout):
		out.reason = faena.ReasonTimeout
		out.message = fmt.Sprintf("The function ran longer than its timeout of %s and was killed.", a.rev.Spec.Timeout())
	case errors.Is(cause, errCancelled):
		out.reason, out.message = faena.ReasonCancelled, "Cancelled by its user while it ran."
	case errors.Is(cause, errAborted):
		out.reason, out.message = faena.ReasonWorkerLost, "The worker was stopped while the function ran."
	case errors.Is(cause, errFenced), errors.Is(cause, errSuperseded):
		out.silent = true
		why := "superseded"
		if errors.Is(cause, errFenced) {
			why = "fenced"
		}
		w.o.Observer.Abandoned(why)
		w.logOf(a).Warn("an activation was killed and given up", "reason", why)
	case met.ooms > 0:
		out.reason, out.message = faena.ReasonOOMKilled, oomMessage(a)
	default:
		out.reason = faena.ReasonStartFailed
		out.message = "The function's container went away while it ran."
		w.logOf(a).Warn("a container went away while it ran", "error", err)
	}
}
