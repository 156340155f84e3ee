package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
)

// buryFor bounds the writing of a dead letter. Where it does not succeed the activation is not ended, and is looked at again.
const buryFor = 10 * time.Second

// bury writes the dead letter of an activation that is about to end for reason, as a worker does before it settles: of one that nobody
// waits for, which had been started, and which its user has not ended. It may be written again, also by a worker at the same time.
// r is the record before its end.
func (c *Control) bury(ctx context.Context, r *faena.Record, reason faena.Reason, message string) error {
	e, _ := faena.Explain(reason)
	if r.Instance != "" || r.Attempt == 0 || e.State == faena.StateCancelled {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, buryFor)
	defer cancel()
	d := &faena.DeadLetter{Schema: faena.SchemaVersion, ID: r.ID, User: r.User, Group: r.Group, Function: r.Function, Revision: r.Revision,
		Reason: reason, Message: message, Attempts: r.Attempt, At: clock.Now()}
	var err error
	d.Parameter, err = c.keepParameter(ctx, r)
	switch {
	case faena.IsKind(err, faena.KindNotFound), faena.IsKind(err, faena.KindGone), errors.Is(err, faena.ErrUnreadable):
		d.Message += " Its parameter is gone with its message."
	case errors.Is(err, faena.ErrFull):
		d.Message += " Its parameter could not be kept: the object store is full."
	case err != nil:
		return err
	}
	if err != nil { // who redrives it is told that there is none
		d.Parameter = faena.Blob{Object: keptParameter(r.ID)}
	}
	if err := c.o.Bus.PutDeadLetter(ctx, d); err != nil {
		return err
	}
	c.logOf(r).Warn("an activation will not be run any more; its dead letter is written", "reason", reason, "attempts", r.Attempt)
	return nil
}

// keptParameter is the object of a dead letter's parameter: the activation's own goes with its end.
func keptParameter(id string) string { return "dead." + id }

// keepParameter finds an activation's parameter; one that is an object is copied. KindNotFound or KindGone where there is none any more,
// faena.ErrUnreadable where its message cannot be read.
func (c *Control) keepParameter(ctx context.Context, r *faena.Record) (faena.Blob, error) {
	if r.ParameterObject == "" {
		return c.inlineParameter(ctx, r)
	}
	data, err := c.o.Bus.Object(ctx, r.Group, r.ParameterObject)
	if err == nil {
		err = c.o.Bus.PutObject(ctx, r.Group, keptParameter(r.ID), data)
	}
	return faena.Blob{Size: int64(len(data)), Object: keptParameter(r.ID)}, err
}

// inlineParameter is in the record until it is filed, otherwise in the message, which is where inPlace looks for it.
func (c *Control) inlineParameter(ctx context.Context, r *faena.Record) (faena.Blob, error) {
	if r.Parameter != nil {
		return *r.Parameter, nil
	}
	if !r.Backlogged {
		p, err := c.o.Bus.SlotParameter(ctx, r.Group, r.User, r.Slot, r.ID)
		if !faena.IsKind(err, faena.KindNotFound) {
			return p, err
		}
	}
	w, err := c.o.Bus.BacklogMessage(ctx, r.Group, r.User, r.ID)
	switch {
	case err != nil:
		return faena.Blob{}, err
	case w.Err != nil:
		return faena.Blob{}, fmt.Errorf("%w: %w", faena.ErrUnreadable, w.Err)
	}
	return w.Message.Parameter, nil
}
