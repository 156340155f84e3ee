package control

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
)

const (
	// examineAgain is how old the answer may be to how many of a user's records have ended, while their number is the same.
	examineAgain = time.Minute
	// examineAtOnce is how many records are read at once for that.
	examineAtOnce = 8
)

// listing is what a group has, by user, one asked for after the other.
type listing struct {
	group   string
	live    map[string][]string // records
	active  map[string]int      // messages in slots
	waiting map[string]int      // messages in the backlog
}

// messages is how many the user has.
func (l *listing) messages(user string) int { return l.active[user] + l.waiting[user] }

// imbalance is of a user who has more records than messages, or fewer. While those numbers change it is the difference of a moment:
// records come before their messages and go after them.
type imbalance struct {
	records, messages int
	since             time.Time // when they were first seen to be so many
	examined          time.Time // zero: never
	drift             int
}

// conservation reckons where the activations of each group are (invariant V4). Owned by the sweeper.
type conservation struct {
	c   *Control
	off map[string]map[string]*imbalance // by group and user
}

// reckon tells the observer of a group as it was listed.
func (s *conservation) reckon(ctx context.Context, l *listing) error {
	pending, err := s.c.o.Bus.Pending(ctx, l.group)
	if err != nil {
		return err
	}
	if s.off[l.group] == nil {
		s.off[l.group] = make(map[string]*imbalance)
	}
	off := s.off[l.group]
	is := faena.Conservation{}
	active := 0
	for _, n := range l.active {
		active += n
	}
	for _, n := range l.waiting {
		is.Backlog += n
	}
	is.Queued = min(pending, active)
	is.Running = active - is.Queued
	for user := range l.users() {
		records, messages := len(l.live[user]), l.messages(user)
		is.Ended += max(0, records-messages)
		if records == messages {
			delete(off, user)
			continue
		}
		o := off[user]
		if o == nil || o.records != records || o.messages != messages {
			o = &imbalance{records: records, messages: messages, since: time.Now()}
			off[user] = o
		}
		if time.Since(o.since) >= s.c.driftAfter {
			if err := s.examine(ctx, l, user, o); err != nil {
				return err
			}
			is.Drift += o.drift
		}
	}
	maps.DeleteFunc(off, func(user string, _ *imbalance) bool { return len(l.live[user])+l.messages(user) == 0 })
	s.c.o.Observer.Conserved(l.group, &is)
	return nil
}

// users are all that have anything.
func (l *listing) users() map[string]struct{} {
	users := make(map[string]struct{}, len(l.live))
	for user := range l.live {
		users[user] = struct{}{}
	}
	for _, some := range []map[string]int{l.active, l.waiting} {
		for user := range some {
			users[user] = struct{}{}
		}
	}
	return users
}

// examine finds out how many of a user's records or messages do not belong together. Records that have ended have no message: they
// wait until the document store has them. One that a worker has put back for a retry has none until it is filed.
func (s *conservation) examine(ctx context.Context, l *listing, user string, o *imbalance) error {
	if !o.examined.IsZero() && time.Since(o.examined) < examineAgain {
		return nil
	}
	live := make([]bool, o.records)
	var reads errgroup.Group
	reads.SetLimit(examineAtOnce)
	for i, id := range l.live[user] {
		reads.Go(func() error {
			r, _, err := s.c.o.Bus.Record(ctx, l.group, user, id)
			live[i] = err == nil && !r.State.Terminal()
			if live[i] && r.Backlogged && r.Parameter != nil {
				_, err = s.c.o.Bus.BacklogMessage(ctx, l.group, user, id)
				live[i] = err == nil
			}
			if faena.IsKind(err, faena.KindNotFound) || errors.Is(err, faena.ErrUnreadable) {
				return nil
			}
			if errors.Is(err, faena.ErrSchema) { // another API's; it has a message
				live[i], err = true, nil
			}
			return err
		})
	}
	if err := reads.Wait(); err != nil {
		return err
	}
	n := 0
	for _, yes := range live {
		if yes {
			n++
		}
	}
	o.drift, o.examined = max(n-o.messages, o.messages-n), time.Now()
	return nil
}

// forget tells the observer that nothing more is said of groups other than those.
func (s *conservation) forget(groups ...string) {
	for group := range s.off {
		if !slices.Contains(groups, group) {
			delete(s.off, group)
			s.c.o.Observer.Conserved(group, nil)
		}
	}
}
