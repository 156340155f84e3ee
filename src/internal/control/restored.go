package control

import (
	"context"
	"errors"
	"fmt"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
)

// restoredMessage is what is said of an activation that a backup had live.
const restoredMessage = "It had not ended when the backup was made that this installation was restored from. It may have run since, where the backup is from."

// Live lists what has not ended in a group.
func (c *Control) Live(ctx context.Context, group string) (live []faena.Record, err error) {
	err = c.eachRecord(ctx, group, func(r *faena.Record, _ uint64) error {
		if !r.State.Terminal() {
			live = append(live, *r)
		}
		return nil
	})
	return live, err
}

// LoseLive settles what has not ended in a group as lost, for faena.ReasonRestored, and empties its queue and its backlog: for an
// installation that is made of a backup, while nothing of it runs. Where it is cut short it may be repeated. What ended and is not in
// history yet stays, for the recorder. It returns what it has settled.
func (c *Control) LoseLive(ctx context.Context, group string) (lost []faena.Record, err error) {
	err = c.eachRecord(ctx, group, func(r *faena.Record, rev uint64) error {
		if !r.State.Terminal() {
			ended, err := c.loseRestored(ctx, r, rev)
			if err != nil {
				return err
			}
			if ended {
				lost = append(lost, *r)
			}
		}
		return c.dropMessage(ctx, r)
	})
	if err != nil {
		return lost, err
	}
	return lost, errors.Join(c.emptyQueue(ctx, group), c.emptyBacklog(ctx, group))
}

// loseRestored settles one; ended is false where history knows its end: an end there counts.
func (c *Control) loseRestored(ctx context.Context, r *faena.Record, rev uint64) (ended bool, err error) {
	_, err = c.o.Documents.Activation(ctx, r.User, r.ID)
	if err == nil {
		return false, c.o.Bus.PurgeRecord(ctx, r.Group, r.User, r.ID)
	}
	if !faena.IsKind(err, faena.KindNotFound) {
		return false, err
	}
	if err := r.Fail(faena.ReasonRestored, restoredMessage, clock.Now()); err != nil {
		return false, err
	}
	_, err = c.o.Bus.UpdateRecord(ctx, r, rev)
	return err == nil, err
}

// eachRecord goes through a group's bucket. What cannot be read is another version's, and stays.
func (c *Control) eachRecord(ctx context.Context, group string, do func(r *faena.Record, rev uint64) error) error {
	users, err := c.o.Bus.LiveIDs(ctx, group)
	if err != nil {
		return err
	}
	for user, ids := range users {
		for _, id := range ids {
			r, rev, err := c.o.Bus.Record(ctx, group, user, id)
			if faena.IsKind(err, faena.KindNotFound) || errors.Is(err, faena.ErrSchema) || errors.Is(err, faena.ErrUnreadable) {
				continue
			}
			if err == nil {
				err = do(r, rev)
			}
			if err != nil {
				return fmt.Errorf("activation %s: %w", id, err)
			}
		}
	}
	return nil
}

// emptyQueue removes what stands in slots without a live record.
func (c *Control) emptyQueue(ctx context.Context, group string) error {
	active, err := c.o.Bus.ActiveByUser(ctx, group)
	if err != nil {
		return err
	}
	s := newSweeper(c)
	for user := range active {
		busy, err := c.o.Bus.BusySlots(ctx, group, user)
		if err != nil {
			return err
		}
		for slot := range busy {
			if err := s.message(ctx, group, user, slot); err != nil {
				return err
			}
		}
	}
	return nil
}

// emptyBacklog removes what waits without a live record.
func (c *Control) emptyBacklog(ctx context.Context, group string) error {
	waiting, err := c.o.Bus.BacklogByUser(ctx, group)
	if err != nil {
		return err
	}
	for user := range waiting {
		for from := uint64(1); ; {
			w, err := c.o.Bus.BacklogNext(ctx, group, user, from)
			if faena.IsKind(err, faena.KindNotFound) {
				break
			}
			if err != nil {
				return err
			}
			from = w.Sequence + 1
			r, _, err := c.o.Bus.Record(ctx, group, w.User, w.ID)
			switch {
			case errors.Is(err, faena.ErrSchema), errors.Is(err, faena.ErrUnreadable), err == nil && !r.State.Terminal():
				continue
			case err != nil && !faena.IsKind(err, faena.KindNotFound):
				return err
			}
			if err := c.o.Bus.DeleteBacklog(ctx, group, w.Sequence); err != nil {
				return err
			}
		}
	}
	return nil
}
