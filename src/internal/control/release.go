package control

import (
	"container/heap"
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// releaseList is how often a group's backlog is listed: hints are lost with a connection, and entries are left by those who
	// were killed. It pauses at least releaseRest times as long as that took.
	releaseList = 3 * time.Second
	releaseRest = 20
	// pendingPause is the first pause before the queue's length is asked for again where it was long enough; it doubles up to
	// pendingPauseMost. slotPause and slotPauseMost are those of a user without a free slot.
	pendingPause     = time.Millisecond
	pendingPauseMost = 20 * time.Millisecond
	slotPause        = 2 * time.Millisecond
	slotPauseMost    = 100 * time.Millisecond
	// againPauseMost is the longest pause of a user of whom a release has failed, and silentPause that of all where the queue does not
	// answer.
	againPauseMost = 2 * time.Second
	silentPause    = 500 * time.Millisecond
	// rescanEvery is how often a user's part of the backlog is gone through from its beginning where more is left than is known of,
	// and rescanRarely where that is what could not be read the last time.
	rescanEvery  = 10 * time.Second
	rescanRarely = 10 * time.Minute
	// gatherFor is how long what is ready to be released waits for more, while much is looked at in vain.
	gatherFor = 20 * time.Millisecond
	// slotsYoung is how old an answer may be which says that a user has no free slot.
	slotsYoung = time.Millisecond
	// releaseAtOnce bounds the releases under way, and skipAtOnce how many entries are looked at in vain before the next user's
	// turn.
	releaseAtOnce = 32
	skipAtOnce    = 64
	// delayedMost bounds the delayed retries of a user that are remembered. Those beyond are found when there is room.
	delayedMost = 100_000
)

// releases are the releasers that run here, by group: none where this instance does not lead.
type releases struct {
	mu      sync.Mutex
	byGroup map[string]*releaser
}

// heard tells the releaser of a group that something of a user waits.
func (s *releases) heard(group, user string) {
	s.mu.Lock()
	r := s.byGroup[group]
	s.mu.Unlock()
	if r != nil {
		r.hear(map[string]int{user: 1}, false)
	}
}

// release releases what waits in every group, until ctx ends: the leader's work. Two who do it for a moment release nothing twice:
// every change of a record is a compare-and-set, and a publication that is repeated is stored once.
func (c *Control) release(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	stops := make(map[string]context.CancelFunc)
	for {
		names := c.groups.names()
		for name, stop := range stops {
			if !slices.Contains(names, name) {
				stop()
				delete(stops, name)
			}
		}
		for _, name := range names {
			if stops[name] != nil {
				continue
			}
			own, stop := context.WithCancel(ctx)
			stops[name] = stop
			wg.Go(func() {
				defer stop()
				c.releaseGroup(own, name)
			})
		}
		if sleep(ctx, time.Second) != nil {
			return
		}
	}
}

func (c *Control) releaseGroup(ctx context.Context, group string) {
	r := &releaser{c: c, group: group, woken: make(chan struct{}, 1), heardOf: make(map[string]int), users: make(map[string]*waitingUser)}
	c.releases.mu.Lock()
	c.releases.byGroup[group] = r
	c.releases.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { r.list(ctx) })
	r.run(ctx)
	wg.Wait()
	c.releases.mu.Lock()
	if c.releases.byGroup[group] == r { // the group may have been made again meanwhile
		delete(c.releases.byGroup, group)
	}
	c.releases.mu.Unlock()
}

// releaser releases a group's backlog into slots, as design section 3 says under Fairness: while the queue is short, of one user
// after the other, of each the oldest first. All but what is guarded by mu is owned by run.
type releaser struct {
	c     *Control
	group string

	mu      sync.Mutex
	woken   chan struct{} // of capacity one
	heardOf map[string]int
	listed  bool // heardOf is of all

	users  map[string]*waitingUser // who may have something that waits
	order  []*waitingUser          // whose turn it is comes first
	pause  time.Duration           // while the queue is long enough
	failed bool                    // the last round did not get through; said once
	away   time.Time               // until then the document store is not asked: it was away
}

// waitingUser is how far a user's part of the backlog has been gone through.
type waitingUser struct {
	name    string
	from    uint64 // the first sequence that has not been looked at
	end     bool   // there was none
	scanned time.Time
	excess  bool // at the last listing, when all was looked at, there was more than is known of
	odd     int  // what could not be read and stays
	delayed delayed
	look    time.Time // not before
	pause   time.Duration
}

// hear takes how much of users waits: of all, or a hint.
func (r *releaser) hear(users map[string]int, all bool) {
	r.mu.Lock()
	for user, n := range users {
		r.heardOf[user] = max(r.heardOf[user], n)
	}
	r.listed = r.listed || all
	r.mu.Unlock()
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// list lists the backlog now and then until ctx ends.
func (r *releaser) list(ctx context.Context) {
	for {
		began := time.Now()
		if users, err := r.c.o.Bus.BacklogByUser(ctx, r.group); err == nil && len(users) > 0 {
			r.hear(users, true)
		}
		if sleep(ctx, max(releaseList, releaseRest*time.Since(began))) != nil {
			return
		}
	}
}

// run goes round until ctx ends. Where nothing waits it waits for a word.
func (r *releaser) run(ctx context.Context) {
	for ctx.Err() == nil {
		r.learn()
		pause, err := r.round(ctx)
		if err != nil && !r.failed && ctx.Err() == nil {
			r.c.log.Warn("what waits in the backlog could not be released; it is tried again", "group", r.group, "error", err)
		}
		r.failed = err != nil
		if pause <= slotPauseMost { // nothing that is heard would change it
			_ = sleep(ctx, pause)
			continue
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-r.woken:
		case <-t.C:
		}
		t.Stop()
	}
}

// learn takes over what was heard. Of a user of whom more waits than is known of, two listings in a row, something was left behind: it
// is gone through once more.
func (r *releaser) learn() {
	r.mu.Lock()
	heard, listed := r.heardOf, r.listed
	r.heardOf, r.listed = make(map[string]int), false
	r.mu.Unlock()
	for name, n := range heard {
		u := r.users[name]
		if u == nil {
			u = &waitingUser{name: name}
			r.users[name] = u
			r.order = append(r.order, u)
		}
		if listed && u.end {
			u.compare(n)
		}
		u.end = false
	}
}

// compare holds what is known of the user, when all was looked at, against how much was listed.
func (u *waitingUser) compare(n int) {
	every := rescanEvery
	if n <= len(u.delayed)+u.odd {
		every = rescanRarely
	}
	more := n > len(u.delayed)
	if more && u.excess && time.Since(u.scanned) >= every {
		u.from, u.delayed, u.odd, u.scanned, more = 0, nil, 0, time.Now(), false
	}
	u.excess = more
}

// round releases as much as the queue has room for, and returns how long to wait then: 0 is not at all.
func (r *releaser) round(ctx context.Context) (time.Duration, error) {
	r.forget()
	if wait := r.untilReady(); wait > 0 {
		return wait, nil
	}
	pending, err := r.c.o.Bus.Pending(ctx, r.group)
	if err != nil {
		return silentPause, err
	}
	room := min(2*r.c.gauge.capacity(r.group)-pending, releaseAtOnce)
	if room <= 0 {
		r.pause = min(max(2*r.pause, pendingPause), pendingPauseMost)
		return r.pause, nil
	}
	if err := r.c.cut.enter(ctx, cutWait); err != nil {
		return silentPause, nil // a backup is being made
	}
	defer r.c.cut.leave()
	batch, err := r.gather(ctx, room)
	if failed := r.releaseAll(ctx, batch); failed != nil {
		err = failed
	}
	if len(batch) > 0 {
		r.pause = 0
	}
	return 0, err
}

// forget drops users of whom nothing waits.
func (r *releaser) forget() {
	r.order = slices.DeleteFunc(r.order, func(u *waitingUser) bool { return u.end && len(u.delayed) == 0 })
	if len(r.order) != len(r.users) {
		maps.DeleteFunc(r.users, func(_ string, u *waitingUser) bool { return u.end && len(u.delayed) == 0 })
	}
}

// untilReady is how long it is until there is somebody to look at; 0: now.
func (r *releaser) untilReady() time.Duration {
	now, server := time.Now(), r.c.o.Bus.ServerNow()
	wait := time.Hour
	for _, u := range r.order {
		this := max(u.look.Sub(now), 0)
		if u.end {
			this = max(this, u.delayed[0].due.Sub(server))
		}
		wait = min(wait, this)
	}
	return wait
}

// gather picks what is to be released, at most room: one of each user, again and again. Each has a slot, which is reserved. What is
// ready does not wait until all that others have was looked at.
func (r *releaser) gather(ctx context.Context, room int) (batch []*releasing, err error) {
	began, vain := time.Now(), false
	for progress := true; progress && len(batch) < room; {
		progress = false
		for range len(r.order) {
			u := r.order[0]
			r.order = append(r.order[1:], u)
			if time.Now().Before(u.look) || u.end && u.delayed.none(r.c.o.Bus.ServerNow()) {
				continue
			}
			next, more, failed := r.next(ctx, u)
			if failed != nil {
				err = failed
				u.wait(againPauseMost)
				continue
			}
			progress = progress || more
			vain = vain || more && next == nil
			if next != nil {
				batch = append(batch, next)
			}
			if len(batch) == room || vain && len(batch) > 0 && time.Since(began) > gatherFor {
				return batch, err
			}
		}
	}
	return batch, err
}

// wait makes the user wait for twice as long as the last time.
func (u *waitingUser) wait(most time.Duration) {
	u.pause = min(max(2*u.pause, slotPause), most)
	u.look = time.Now().Add(u.pause)
}

// delayed are messages that have been looked at and wait for their time, the earliest first: a heap.
type delayed []delayedMessage

type delayedMessage struct {
	due      time.Time // by the servers' clock
	sequence uint64
}

func (d delayed) none(now time.Time) bool { return len(d) == 0 || d[0].due.After(now) }

func (d delayed) Len() int { return len(d) }
func (d delayed) Less(i, k int) bool {
	return d[i].due.Before(d[k].due) || d[i].due.Equal(d[k].due) && d[i].sequence < d[k].sequence
}
func (d delayed) Swap(i, k int) { d[i], d[k] = d[k], d[i] }
func (d *delayed) Push(x any)   { *d = append(*d, x.(delayedMessage)) }
func (d *delayed) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}

// later remembers a message whose time has not come.
func (u *waitingUser) later(due time.Time, sequence uint64) {
	if len(u.delayed) < delayedMost {
		heap.Push(&u.delayed, delayedMessage{due, sequence})
	}
}

// again remembers a message to be looked at once more, after a pause and before all that were not looked at.
func (u *waitingUser) again(now time.Time, sequence uint64) {
	heap.Push(&u.delayed, delayedMessage{now, sequence})
	u.wait(againPauseMost)
}

// due is the next message whose time has come.
func (u *waitingUser) due(now time.Time) (sequence uint64, ok bool) {
	if u.delayed.none(now) {
		return 0, false
	}
	return heap.Pop(&u.delayed).(delayedMessage).sequence, true
}
