package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// releasing is one activation on its way from the backlog into a slot.
type releasing struct {
	user   *waitingUser
	slots  *userSlots
	share  share
	entry  faena.Waiting
	record *faena.Record
	rev    uint64
	age    time.Duration // since the record was put into the backlog
	slot   int           // reserved; -1 where the record has one already
	// before is closed when the user's activation before this one was published, published when this one was.
	before, published chan struct{}
	err               error
}

// share is what a user may use of a group.
type share struct{ limit, below int }

// next finds the user's next activation that can be released, with a slot for it: nil where there is none now. more reports
// whether it is worth looking further.
func (r *releaser) next(ctx context.Context, u *waitingUser) (_ *releasing, more bool, err error) {
	s, err := r.share(ctx, u.name)
	gone := faena.IsKind(err, faena.KindNotFound)
	if err != nil && !gone {
		return nil, false, err
	}
	slots, slot := r.c.slots.of(r.group, u.name), -1
	if !gone {
		var ok bool
		if slot, ok, err = slots.takeNow(ctx, s.limit, s.below, slotsYoung); err != nil {
			return nil, false, err
		}
		if !ok {
			most := slotPauseMost
			if s.limit == 0 { // it may be long until there is one
				most = againPauseMost
			}
			u.wait(most)
			return nil, false, nil
		}
	}
	x, more, err := r.pick(ctx, u, gone)
	switch {
	case x != nil && x.record.Backlogged:
		x.slot = slot
	case slot >= 0: // there is nobody for it, or he has one
		slots.free(slot)
	}
	if x != nil {
		x.slots, x.share = slots, s
	}
	return x, more, err
}

// pick goes through what waits of the user until there is one that can be released.
func (r *releaser) pick(ctx context.Context, u *waitingUser, gone bool) (_ *releasing, more bool, err error) {
	for range skipAtOnce {
		w, found, err := r.entry(ctx, u)
		if err != nil || !found {
			return nil, false, err
		}
		x := &releasing{user: u, entry: w, slot: -1}
		ready, err := r.judge(ctx, x, gone)
		if err != nil {
			u.again(r.c.o.Bus.ServerNow(), w.Sequence)
			return nil, false, err
		}
		if ready {
			return x, true, nil
		}
	}
	return nil, true, nil
}

// known is a document as it is remembered or, where the store answers, as it is.
func known[T any](ctx context.Context, r *releaser, c *cache[T], user, name string) (T, error) {
	if time.Now().Before(r.away) {
		if v, ok := c.peek(user, name); ok {
			return v, nil
		}
		var none T
		return none, faena.Unavailable(faena.ComponentStore, "store_unavailable", "The document store was away just now.", nil)
	}
	v, err := c.get(ctx, user, name)
	if faena.IsKind(err, faena.KindUnavailable) {
		r.away = time.Now().Add(awayPause)
	}
	return v, err
}

// share is what the user may use. Where that is not known since the store is away it is one slot, which every user has.
// KindNotFound where the user is gone.
func (r *releaser) share(ctx context.Context, user string) (share, error) {
	profile, err := known(ctx, r, r.c.users, "", user)
	if faena.IsKind(err, faena.KindUnavailable) {
		return share{1, 1}, nil
	}
	if err != nil {
		return share{}, err
	}
	limit, _ := profile.Limit(r.group) // 0 where it is not granted any more: it waits until it expires
	return share{limit, asyncShare(limit)}, nil
}

// entry is the user's next message: a retry whose time has come, or the oldest that was not looked at.
func (r *releaser) entry(ctx context.Context, u *waitingUser) (w faena.Waiting, found bool, err error) {
	for {
		now := r.c.o.Bus.ServerNow()
		sequence, due := u.due(now)
		if !due {
			if u.end {
				return w, false, nil
			}
			sequence = u.from
		}
		w, err = r.c.o.Bus.BacklogNext(ctx, r.group, u.name, sequence)
		none := faena.IsKind(err, faena.KindNotFound)
		switch {
		case err != nil && !none:
			if due {
				u.again(now, sequence)
			}
			return w, false, err
		case due && (none || w.Sequence != sequence): // it has gone meanwhile
		case none:
			u.end = true
			return w, false, nil
		case due:
			return w, true, nil
		default:
			u.from = w.Sequence + 1
			return w, true, nil
		}
	}
}

// judge reads the record of what waits, and settles or removes what is not to be released; ready is true where it is.
func (r *releaser) judge(ctx context.Context, x *releasing, userGone bool) (ready bool, err error) {
	c, w := r.c, x.entry
	x.record, x.rev, x.age, err = c.o.Bus.RecordAge(ctx, r.group, w.User, w.ID)
	switch {
	case faena.IsKind(err, faena.KindNotFound):
		return false, r.remove(ctx, w)
	case errors.Is(err, faena.ErrSchema), errors.Is(err, faena.ErrUnreadable): // of another version: for an API that reads it
		x.user.odd++
		return false, nil
	case err != nil:
		return false, err
	case x.record.State != faena.StateQueued:
		return false, r.remove(ctx, w)
	case w.Err != nil: // likewise
		x.user.odd++
		return false, nil
	case !x.record.Backlogged: // who released it was killed before it could remove this, or before it could publish it
		return true, nil
	case userGone:
		_, err = c.endQueued(ctx, x.record, faena.ReasonCancelled, "Its user was deleted.")
		return false, err
	case x.age > x.record.StartWithin():
		return false, c.endExpired(ctx, x.record)
	case x.record.NotBefore != nil && x.record.NotBefore.After(c.o.Bus.ServerNow()):
		x.user.later(*x.record.NotBefore, w.Sequence)
		return false, nil
	}
	if _, err := known(ctx, r, c.functions, w.User, x.record.Function); faena.IsKind(err, faena.KindNotFound) {
		_, err = c.endQueued(ctx, x.record, faena.ReasonFunctionDeleted, functionGone)
		return false, err
	}
	return true, nil // also where the store is away: the message has the revision
}

func (r *releaser) remove(ctx context.Context, w faena.Waiting) error {
	err := r.c.o.Bus.DeleteBacklog(ctx, r.group, w.Sequence)
	failpoint.Hit("leader/backlog-deleted")
	return err
}

// releaseAll releases what was gathered, all at once but for the publications of one user, which keep their order. What fails is
// looked at again.
func (r *releaser) releaseAll(ctx context.Context, batch []*releasing) (err error) {
	last := make(map[*waitingUser]chan struct{})
	var wg sync.WaitGroup
	for _, x := range batch {
		x.before, x.published = last[x.user], make(chan struct{})
		last[x.user] = x.published
		wg.Go(func() { x.err = r.release(ctx, x) })
	}
	wg.Wait()
	for _, x := range batch {
		if x.err == nil {
			x.user.pause = 0
		}
	}
	for _, x := range batch {
		if x.err != nil {
			x.user.again(r.c.o.Bus.ServerNow(), x.entry.Sequence)
			if !errors.Is(x.err, faena.ErrStale) { // that is no failure: somebody else has changed it
				err = fmt.Errorf("activation %s: %w", x.entry.ID, x.err)
			}
		}
	}
	return err
}

// release gives an activation its slot: first in the record, then by its message; then it is taken out of the backlog.
func (r *releaser) release(ctx context.Context, x *releasing) error {
	err := r.assign(ctx, x)
	if x.before != nil {
		<-x.before
	}
	if err == nil {
		err = r.publish(ctx, x)
	}
	close(x.published)
	if err != nil {
		if x.slot >= 0 {
			x.slots.free(x.slot)
		}
		return err
	}
	r.c.tally.touch(x.record.User)
	r.c.o.Observer.Released(r.group)
	return r.remove(ctx, x.entry)
}

// assign writes the slot into the record of one that has none.
func (r *releaser) assign(ctx context.Context, x *releasing) error {
	if !x.record.Backlogged {
		return nil
	}
	next := *x.record
	if err := next.Release(x.slot, x.age); err != nil {
		return err
	}
	return r.update(ctx, x, next)
}

func (r *releaser) update(ctx context.Context, x *releasing, next faena.Record) error {
	rev, err := r.c.o.Bus.UpdateRecord(ctx, &next, x.rev)
	if err != nil {
		return err
	}
	failpoint.Hit("leader/slot-assigned")
	x.record, x.rev = &next, rev
	return nil
}

// publish puts the message into the record's slot. Where somebody else's stands there, ours was never stored, or its end is in the
// record: it moves to another one.
func (r *releaser) publish(ctx context.Context, x *releasing) error {
	for tries := 0; ; tries++ {
		rec := x.record
		m := *x.entry.Message
		m.Record, m.RecordRevision = rec, x.rev
		_, _, err := r.c.o.Bus.Publish(ctx, rec.User, rec.Group, rec.Slot, rec.Publication, &m)
		if errors.Is(err, faena.ErrSlotTaken) {
			x.slots.occupied(rec.Slot)
			there, looked := r.c.inSlot(ctx, rec)
			if looked != nil {
				return looked
			}
			if x.slot = -1; !there && tries < casTries {
				if err = r.move(ctx, x); err != nil {
					return err
				}
				continue
			}
			if there {
				err = nil
			}
		}
		if err == nil {
			failpoint.Hit("leader/released")
			x.slots.occupied(rec.Slot)
		}
		return err
	}
}

// move gives it another slot.
func (r *releaser) move(ctx context.Context, x *releasing) error {
	slot, ok, err := x.slots.takeNow(ctx, x.share.limit, x.share.below, slotsYoung)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: its slot is in use, and there is no other one", faena.ErrStale)
	}
	x.slot = slot
	next := *x.record
	next.Slot = slot
	return r.update(ctx, x, next)
}
