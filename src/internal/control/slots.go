package control

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
)

// slotMemory is how long the answer of the stream, and a "full", are believed.
const slotMemory = 50 * time.Millisecond

// slotAsker is what the picker asks when belief is not enough.
type slotAsker interface {
	BusySlots(ctx context.Context, group, user string) (map[int]struct{}, error)
}

// slots picks slots for users. The stream decides who is admitted (one message per slot, design section 3 step 1);
// what is kept here is only a belief about which slots are free, to hit one at the first try. A belief that is
// wrong costs a try, never a wrong admission.
type slots struct {
	ask   slotAsker
	now   func() time.Time
	mu    sync.Mutex
	users map[slotOwner]*userSlots
}

type slotOwner struct{ group, user string }

func newSlots(ask slotAsker) *slots {
	return &slots{ask: ask, now: time.Now, users: make(map[slotOwner]*userSlots)}
}

func (s *slots) of(group, user string) *userSlots {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := slotOwner{group, user}
	u := s.users[o]
	if u == nil {
		u = &userSlots{owner: o, parent: s, busy: make(map[int]belief)}
		s.users[o] = u
	}
	return u
}

// belief is why a slot counts as in use. An answer of the stream that was asked for before since does not overrule it.
type belief struct {
	since    time.Time
	reserved bool // a publication into it is under way
}

// asyncShare is how many of a user's slots asynchronous calls may use: a fifth is left to synchronous ones.
func asyncShare(limit int) int {
	if limit >= 5 {
		return limit * 4 / 5
	}
	return limit
}

// userSlots is what is believed of one user's slots in one group.
type userSlots struct {
	owner  slotOwner
	parent *slots

	mu   sync.Mutex
	busy map[int]belief
	// known is when the last answer of the stream came; zero before the first.
	known time.Time
	// overhang is true while a slot at or above the limit is in use: then slots are counted before one is taken.
	overhang bool
	limit    int
	asking   *slotQuestion
}

// slotQuestion is one request to the stream that several callers wait for.
type slotQuestion struct {
	done chan struct{}
	err  error
}

// wait waits for the answer. again is true where there is none for a reason that is not ours: the time of who asked was over, or it was
// the leader, and is it no more.
func (q *slotQuestion) wait(ctx context.Context) (again bool, err error) {
	select {
	case <-q.done:
		again = ctx.Err() == nil && (errors.Is(q.err, context.Canceled) || errors.Is(q.err, context.DeadlineExceeded))
		return again, q.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// take reserves a slot below limit (below reserveBelow, where an asynchronous call leaves the rest to synchronous
// ones). It returns a KindLimit error where the user has none free, even after slotMemory.
func (u *userSlots) take(ctx context.Context, limit, below int) (int, error) {
	for round := 0; ; round++ {
		u.mu.Lock()
		if limit < u.limit || u.known.IsZero() {
			u.overhang = true
		}
		u.limit = limit
		fresh := u.parent.now().Sub(u.known) < slotMemory
		if !u.overhang || fresh {
			if slot, ok := u.reserve(limit, below); ok {
				u.mu.Unlock()
				return slot, nil
			}
		}
		known := u.known
		u.mu.Unlock()
		if round == 2 {
			return 0, atLimit(u.owner, limit, below)
		}
		if round == 1 && fresh {
			if err := sleep(ctx, slotMemory-u.parent.now().Sub(known)); err != nil {
				return 0, err
			}
		}
		if err := u.refresh(ctx, slotMemory); err != nil {
			return 0, err
		}
	}
}

// takeNow is take for who tries again soon anyway: it does not wait, and an answer of the stream that is older than within is not
// enough to say that there is no free slot.
func (u *userSlots) takeNow(ctx context.Context, limit, below int, within time.Duration) (slot int, ok bool, err error) {
	u.mu.Lock()
	u.overhang = u.overhang || limit < u.limit || u.known.IsZero()
	u.limit = limit
	if !u.overhang {
		slot, ok = u.reserve(limit, below)
	}
	u.mu.Unlock()
	if ok {
		return slot, true, nil
	}
	if err := u.refresh(ctx, within); err != nil {
		return 0, false, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	slot, ok = u.reserve(limit, below)
	return slot, ok, nil
}

// reserve takes a slot that is believed free. The caller holds mu.
func (u *userSlots) reserve(limit, below int) (int, bool) {
	if len(u.busy) >= limit { // counts an overhang too
		return 0, false
	}
	for slot := range below {
		if _, taken := u.busy[slot]; !taken {
			u.busy[slot] = belief{u.parent.now(), true}
			return slot, true
		}
	}
	return 0, false
}

// occupied notes that a message stands in a slot: ours, or somebody else's where the stream has refused ours.
func (u *userSlots) occupied(slot int) {
	u.mu.Lock()
	u.busy[slot] = belief{u.parent.now(), false}
	u.mu.Unlock()
}

// free notes that a slot's message is gone, or that its reservation was given up.
func (u *userSlots) free(slot int) {
	u.mu.Lock()
	delete(u.busy, slot)
	u.mu.Unlock()
}

// refresh asks the stream, once for all who wait, unless the last answer is younger than within.
func (u *userSlots) refresh(ctx context.Context, within time.Duration) error {
	u.mu.Lock()
	if u.parent.now().Sub(u.known) < within {
		u.mu.Unlock()
		return nil
	}
	q := u.asking
	if q != nil {
		u.mu.Unlock()
		if again, err := q.wait(ctx); !again {
			return err
		}
		return u.refresh(ctx, within)
	}
	q = &slotQuestion{done: make(chan struct{})}
	u.asking = q
	asked := u.parent.now()
	u.mu.Unlock()

	busy, err := u.parent.ask.BusySlots(ctx, u.owner.group, u.owner.user)

	u.mu.Lock()
	if err == nil {
		u.learn(busy, asked)
	}
	q.err = err
	u.asking = nil
	u.mu.Unlock()
	close(q.done)
	return err
}

// learn takes over an answer of the stream. What changed here after the question was asked stays as it is.
func (u *userSlots) learn(busy map[int]struct{}, asked time.Time) {
	for slot, b := range u.busy {
		if _, still := busy[slot]; !still && !b.reserved && b.since.Before(asked) {
			delete(u.busy, slot)
		}
	}
	u.overhang = false
	for slot := range busy {
		if _, have := u.busy[slot]; !have {
			u.busy[slot] = belief{asked, false}
		}
		if slot >= u.limit {
			u.overhang = true
		}
	}
	u.known = u.parent.now()
}

func atLimit(o slotOwner, limit, below int) error {
	message := "User " + o.user + " has " + plural(limit, "active activation") + " in group " + o.group + ", which is the limit."
	if below < limit {
		message = "User " + o.user + " has no room for an asynchronous activation in group " + o.group + ": they may use " +
			strconv.Itoa(below) + " of " + plural(limit, "slot") + "."
	}
	return &faena.Error{Kind: faena.KindLimit, Reason: "limit_reached", Component: faena.ComponentQueue,
		Message: message + " Try again when one has ended.", Retryable: true, RetryAfter: time.Second}
}
