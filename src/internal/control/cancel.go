package control

import (
	"context"
	"errors"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// casTries bounds how often a change of a record is tried again because somebody else changed it first.
const casTries = 20

// Cancel ends a queued activation at once and asks the worker of a running one to kill it; the record says which.
// It is idempotent: an activation that has ended is returned as it is.
func (c *Control) Cancel(ctx context.Context, user, id string) (faena.Record, error) {
	if !faena.ValidActivationID(id) {
		return faena.Record{}, faena.NotFound("activation", id)
	}
	for range casTries {
		r, rev, err := c.find(ctx, user, id)
		if err != nil {
			return faena.Record{}, err
		}
		switch {
		case r.State.Terminal() || rev == 0:
			return *r, nil
		case r.State == faena.StateQueued:
			ended, err := c.endQueued(ctx, r, faena.ReasonCancelled, "Cancelled by its user before it started.")
			if err != nil {
				return faena.Record{}, err
			}
			if ended != nil {
				return *ended, nil
			}
		default:
			if !r.CancelRequested {
				r.CancelRequested = true
				if _, err := c.o.Bus.UpdateRecord(ctx, r, rev); errors.Is(err, faena.ErrStale) {
					continue
				} else if err != nil {
					return faena.Record{}, queueError(err)
				}
				failpoint.Hit("api/cancel-asked")
			}
			// A hint; the worker also sees the flag when it next reads the record.
			if err := c.o.Bus.RequestCancel(ctx, r.Group, id); err != nil {
				c.logOf(r).Warn("a cancellation could not be announced", "error", err)
			}
			return *r, nil
		}
	}
	return faena.Record{}, faena.Unavailable(faena.ComponentQueue, "contended",
		"The activation changed again and again while it was cancelled. Try again.", nil)
}

// endQueued settles a queued activation for reason, after its dead letter where there is one to write, then deletes its message so that
// its slot is free at once, and tells the API that waits. It returns nil, nil where the activation is not queued any more, or it is late for an attempt that
// is over.
func (c *Control) endQueued(ctx context.Context, seen *faena.Record, reason faena.Reason, message string) (*faena.Record, error) {
	r, rev, err := c.o.Bus.Record(ctx, seen.Group, seen.User, seen.ID)
	if err != nil {
		if faena.IsKind(err, faena.KindNotFound) {
			return nil, nil // recorded meanwhile
		}
		return nil, queueError(err)
	}
	late := reason == faena.ReasonExpired || reason == faena.ReasonNoWorker
	if r.State != faena.StateQueued || late && r.Attempt != seen.Attempt { // a later attempt has a time of its own
		return nil, nil
	}
	was := *r
	if err := r.Fail(reason, message, clock.Now()); err != nil {
		return nil, err
	}
	if err := c.bury(ctx, &was, reason, message); err != nil {
		return nil, queueError(err)
	}
	if _, err := c.o.Bus.UpdateRecord(ctx, r, rev); errors.Is(err, faena.ErrStale) {
		return nil, nil
	} else if err != nil {
		return nil, queueError(err)
	}
	failpoint.Hit("api/queued-ended")
	c.drop(ctx, r)
	failpoint.Hit("api/message-dropped")
	if err := c.o.Bus.Complete(ctx, r); err != nil {
		c.logOf(r).Warn("the end of an activation could not be announced", "error", err)
	}
	return r, nil
}

// dropMessage deletes the activation's message where it still stands in its place. That of one that was just released may stand in
// both: what is left in the backlog the leader removes.
func (c *Control) dropMessage(ctx context.Context, r *faena.Record) error {
	if r.Backlogged {
		w, err := c.o.Bus.BacklogMessage(ctx, r.Group, r.User, r.ID)
		if faena.IsKind(err, faena.KindNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return c.o.Bus.DeleteBacklog(ctx, r.Group, w.Sequence)
	}
	id, seq, err := c.o.Bus.SlotMessage(ctx, r.Group, r.User, r.Slot)
	if faena.IsKind(err, faena.KindNotFound) || err == nil && id != r.ID {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.o.Bus.DeleteMessage(ctx, r.Group, seq); err != nil {
		return err
	}
	c.slots.of(r.Group, r.User).free(r.Slot)
	return nil
}
