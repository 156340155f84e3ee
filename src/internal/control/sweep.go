package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

const (
	// lookAtMost is the longest pause between two looks at one activation.
	lookAtMost = time.Hour
	// expireSlack is how much later than its worker, and than the API that waits, the sweeper ends what has expired.
	expireSlack = 2 * time.Second
)

// sweep settles what nobody else will, until ctx ends (design section 3, step 8): a queued activation past its latest start,
// and one whose message is gone. An activation is looked at when it is half a minute, one, two, four minutes old and so on, and
// when it expires, so that a long queue costs little.
func (c *Control) sweep(ctx context.Context) {
	s := newSweeper(c)
	defer s.books.forget()
	failing := false
	pause := c.sweepEvery
	for sleep(ctx, pause) == nil {
		began := time.Now()
		err := s.round(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			c.log.Warn("what nobody would settle could not be swept; it is tried again", "error", err)
		}
		failing = err != nil
		pause = max(c.sweepEvery, time.Duration(c.sweepRest)*time.Since(began))
	}
}

// sweeper remembers when each live activation is to be looked at next. Owned by one goroutine.
type sweeper struct {
	c    *Control
	next map[uuid.UUID]int64 // in milliseconds of the servers' clock, as in the ids

	books conservation

	asked, answers bool // whether the store answers, asked once in a round
}

func newSweeper(c *Control) *sweeper {
	return &sweeper{c: c, next: make(map[uuid.UUID]int64), books: conservation{c: c, off: make(map[string]map[string]*imbalance)}}
}

// round looks at everything that is due. What fails in one group, or of one user, hides no other.
func (s *sweeper) round(ctx context.Context) error {
	still := make(map[uuid.UUID]int64, len(s.next))
	var failed error
	s.asked = false
	groups := s.c.groups.names()
	s.books.forget(groups...)
	for _, group := range groups {
		live, err := s.c.o.Bus.LiveIDs(ctx, group)
		if err == nil {
			err = errors.Join(s.records(ctx, group, live, still), s.balance(ctx, group, live))
		} else {
			maps.Copy(still, s.next) // its activations are not new the next time
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = fmt.Errorf("group %s: %w", group, err)
		}
	}
	s.next = still
	return failed
}

// records looks at the activations of a group that are due, and notes in still when each is next.
func (s *sweeper) records(ctx context.Context, group string, live map[string][]string, still map[uuid.UUID]int64) (failed error) {
	first := s.c.orphanAge / 2
	for user, ids := range live {
		for _, id := range ids {
			key, err := uuid.Parse(id)
			if err != nil {
				continue // not ours
			}
			now := s.c.o.Bus.ServerNow()
			due, known := s.next[key]
			if !known { // the clock of who made the id may be ahead
				due = min(admitted(key).Add(first).UnixMilli(), now.Add(first).UnixMilli())
			}
			if now.UnixMilli() >= due {
				again, err := s.look(ctx, group, user, id)
				if err != nil && ctx.Err() != nil {
					return err
				}
				if err != nil {
					failed, again = err, s.c.sweepEvery
				}
				due = now.Add(again).UnixMilli()
			}
			still[key] = due
		}
	}
	return failed
}

// admitted is the time in an activation's id (RFC 9562 section 5.7), by the clock of the API that admitted it.
func admitted(id uuid.UUID) time.Time {
	sec, nsec := id.Time().UnixTime()
	return time.Unix(sec, nsec)
}

// look settles an activation that has expired or has no message, and otherwise returns when to look again. Ages are by the
// server's clock.
func (s *sweeper) look(ctx context.Context, group, user, id string) (again time.Duration, err error) {
	r, rev, age, err := s.c.o.Bus.RecordAge(ctx, group, user, id)
	if faena.IsKind(err, faena.KindNotFound) || errors.Is(err, faena.ErrSchema) || errors.Is(err, faena.ErrUnreadable) {
		return lookAtMost, nil // it was purged meanwhile, or is for an API that reads it, or is none
	}
	if err != nil {
		return 0, err
	}
	young := age < s.c.orphanAge // or it was claimed, or moved, meanwhile
	if again = min(age, lookAtMost); young {
		again = s.c.orphanAge - age
	}
	if r.State.Terminal() {
		if young {
			return again, nil // the recorder's
		}
		return min(again, 4*s.c.orphanAge), s.remind(ctx, r, rev)
	}
	if r.State == faena.StateQueued {
		left := r.StartWithin() + expireSlack - age
		if left <= 0 {
			return again, s.c.endExpired(ctx, r)
		}
		again = min(again, left)
	}
	if young {
		return again, nil
	}
	there, err := s.c.inPlace(ctx, r)
	if err != nil || there {
		return again, err
	}
	if r.Backlogged && r.Parameter != nil { // a worker has put it back, and the API that was to file it was killed
		return again, s.c.file(ctx, r)
	}
	if err := s.c.lose(ctx, r, rev); !errors.Is(err, faena.ErrStale) {
		return again, err
	}
	return again, nil
}

// remind makes the recorder be given an ended record again. What was given to an API that was killed, or handed back while the
// store was away, comes again by itself after a minute, unless anything is purged at that moment: the server (2.15.2) then
// forgets it for another minute, and so on.
func (s *sweeper) remind(ctx context.Context, r *faena.Record, rev uint64) error {
	if !s.asked {
		s.asked, s.answers = true, s.c.o.Documents.Ping(ctx) == nil
	}
	if !s.answers {
		return nil // it will be recorded when the store is back
	}
	if _, err := s.c.o.Bus.UpdateRecord(ctx, r, rev); err != nil && !errors.Is(err, faena.ErrStale) {
		return err
	}
	return nil
}

// endExpired settles an activation that no worker took in time.
func (c *Control) endExpired(ctx context.Context, r *faena.Record) error {
	ended, err := c.endQueued(ctx, r, faena.ReasonExpired, fmt.Sprintf("No worker could start it within %s.", r.StartWithin()))
	if ended != nil {
		c.o.Observer.Swept(faena.ReasonExpired)
	}
	return err
}

// inPlace reports whether the activation's message stands in its slot, or in the backlog: also that of one which has a slot may
// stand there alone, where the leader that gave it that was killed before it published. What is released goes from there to its slot
// while we look, so that the slot is the last to be looked at.
func (c *Control) inPlace(ctx context.Context, r *faena.Record) (bool, error) {
	if !r.Backlogged {
		if there, err := c.inSlot(ctx, r); err != nil || there {
			return there, err
		}
	}
	if r.Instance != "" && r.Attempt == 0 {
		return false, nil // whoever waits for its end lets only retries wait there
	}
	_, err := c.o.Bus.BacklogMessage(ctx, r.Group, r.User, r.ID)
	switch {
	case !faena.IsKind(err, faena.KindNotFound):
		return err == nil, err
	case r.Backlogged:
		return false, nil
	}
	return c.inSlot(ctx, r)
}

// inSlot reports whether the activation's message stands in its slot.
func (c *Control) inSlot(ctx context.Context, r *faena.Record) (bool, error) {
	id, _, err := c.o.Bus.SlotMessage(ctx, r.Group, r.User, r.Slot)
	if faena.IsKind(err, faena.KindNotFound) {
		return false, nil
	}
	return id == r.ID, err
}

// lose settles an activation whose message is gone: no worker will meet it. One that had been started leaves a dead letter. One that
// runs all the same loses the record, and throws its result away. faena.ErrStale where the record does not stand at rev any more; r is
// of no use then.
func (c *Control) lose(ctx context.Context, r *faena.Record, rev uint64) error {
	message := "Its message is not in the queue: the API that admitted it has ended half-way, or the queue has lost it."
	was := *r
	if err := r.Fail(faena.ReasonWorkerLost, message, clock.Now()); err != nil {
		return err
	}
	if err := c.bury(ctx, &was, faena.ReasonWorkerLost, message); err != nil {
		return err
	}
	if _, err := c.o.Bus.UpdateRecord(ctx, r, rev); err != nil {
		return err
	}
	failpoint.Hit("leader/lost-recorded")
	c.o.Observer.Swept(faena.ReasonWorkerLost)
	c.logOf(r).Warn("an activation without a message was settled as lost")
	if err := c.o.Bus.Complete(ctx, r); err != nil {
		c.logOf(r).Warn("the end of an activation could not be announced", "error", err)
	}
	return nil
}

// balance compares a group's records with its messages.
func (s *sweeper) balance(ctx context.Context, group string, live map[string][]string) (err error) {
	l := listing{group: group, live: live}
	if l.waiting, err = s.c.o.Bus.BacklogByUser(ctx, group); err != nil {
		return err
	}
	if l.active, err = s.c.o.Bus.ActiveByUser(ctx, group); err != nil {
		return err
	}
	return errors.Join(s.messages(ctx, &l), s.books.reckon(ctx, &l))
}

// messages deletes messages that no worker would run, where users have more of them than records: they hold slots, and where
// a group has no worker nobody acknowledges them.
func (s *sweeper) messages(ctx context.Context, l *listing) (failed error) {
	group := l.group
	for user, n := range l.active {
		if n+l.waiting[user] <= len(l.live[user]) {
			continue
		}
		busy, err := s.c.o.Bus.BusySlots(ctx, group, user)
		if err != nil {
			return err
		}
		for slot := range busy {
			if err := s.message(ctx, group, user, slot); err != nil {
				failed = err
			}
		}
	}
	return failed
}

// message deletes the message in a slot whose record is absent or ended.
func (s *sweeper) message(ctx context.Context, group, user string, slot int) error {
	id, seq, err := s.c.o.Bus.SlotMessage(ctx, group, user, slot)
	if faena.IsKind(err, faena.KindNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r, _, err := s.c.o.Bus.Record(ctx, group, user, id)
	switch {
	case faena.IsKind(err, faena.KindNotFound):
	case errors.Is(err, faena.ErrSchema), errors.Is(err, faena.ErrUnreadable):
		return nil // for an API that reads it, or for an operator
	case err != nil:
		return err
	case !r.State.Terminal():
		return nil
	}
	if err := s.c.o.Bus.DeleteMessage(ctx, group, seq); err != nil {
		return err
	}
	failpoint.Hit("leader/message-deleted")
	s.c.slots.of(group, user).free(slot)
	s.c.log.Warn("the message of an activation that has ended was removed", "activation_id", id, "group", group, "user", user)
	return nil
}
