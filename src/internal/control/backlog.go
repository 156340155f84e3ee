package control

import (
	"context"
	"fmt"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

const (
	// backlogMemory is how long it is believed how much of a user waits; longer where asking takes long, by so many times.
	backlogMemory = time.Second
	backlogRest   = 20
	// backlogAnswer is how long it is waited for that where a call might not have to wait in the backlog.
	backlogAnswer = time.Second
)

// backlogAsker is who knows.
type backlogAsker interface {
	BacklogSize(ctx context.Context, group, user string) (int, error)
}

// backlogs believes how much of each user waits in the backlog: what the stream said last, and what this instance and, as far as
// their hints come through, the others have added since. A belief that is wrong lets more wait than may: as many as calls are under way
// at all APIs together, with those whose hints are on their way to another API, or are lost until the stream is asked again. Or it lets
// a call overtake those that wait. It loses nothing. A limit that nobody is at is never held against a call for longer than backlogMemory.
type backlogs struct {
	ask   backlogAsker
	now   func() time.Time
	mu    sync.Mutex
	users map[slotOwner]*userBacklog
}

func newBacklogs(ask backlogAsker) *backlogs {
	return &backlogs{ask: ask, now: time.Now, users: make(map[slotOwner]*userBacklog)}
}

func (s *backlogs) of(group, user string) *userBacklog {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := slotOwner{group, user}
	b := s.users[o]
	if b == nil {
		b = &userBacklog{owner: o, parent: s}
		s.users[o] = b
	}
	return b
}

// heard takes a hint that something was added, by this instance or another one.
func (s *backlogs) heard(group, user string) {
	s.mu.Lock()
	b := s.users[slotOwner{group, user}]
	s.mu.Unlock()
	if b == nil {
		return // nobody has asked for it
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.echoes > 0 {
		b.echoes--
	} else {
		b.size++
		b.added++
	}
}

// userBacklog is what is believed of one user in one group.
type userBacklog struct {
	owner  slotOwner
	parent *backlogs

	mu     sync.Mutex
	size   int
	added  int       // ever
	echoes int       // hints of our own that have not come back
	known  time.Time // when the stream was asked last; zero: never
	again  time.Duration
	silent time.Time // until then it is not asked for a call that may not need it: it did not answer
	asking *slotQuestion
}

// any reports whether something of the user waits: what comes now has to wait behind it. Where the stream does not answer what was
// believed last counts, or that nothing waits: a call for which there is a slot needs no backlog.
func (b *userBacklog) any(ctx context.Context) bool {
	b.mu.Lock()
	silent := b.parent.now().Before(b.silent)
	b.mu.Unlock()
	var err error
	if !silent {
		ctx, cancel := context.WithTimeout(ctx, backlogAnswer)
		defer cancel()
		err = b.refresh(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.silent = b.parent.now().Add(backlogMemory)
	}
	return b.size > 0
}

// add counts one more. It returns a KindLimit error where limit wait already.
func (b *userBacklog) add(ctx context.Context, limit int) error {
	if err := b.refresh(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.size >= limit {
		return &faena.Error{Kind: faena.KindLimit, Reason: "backlog_full", Component: faena.ComponentQueue, Retryable: true, RetryAfter: time.Second,
			Message: fmt.Sprintf("%s of user %s wait in group %s, which is the limit (FAENA_BACKLOG_LIMIT). Try again when some have started.",
				plural(limit, "activation"), b.owner.user, b.owner.group)}
	}
	b.size++
	b.added++
	return nil
}

// stored notes that one has been put there, of which a hint will be heard.
func (b *userBacklog) stored() {
	b.mu.Lock()
	b.echoes++
	b.mu.Unlock()
}

// drop takes back what was counted.
func (b *userBacklog) drop() {
	b.mu.Lock()
	b.size = max(0, b.size-1)
	b.mu.Unlock()
}

// refresh asks the stream where its last answer is old: one asks, and the others go by what is believed meanwhile. Where nothing
// is believed yet they wait.
func (b *userBacklog) refresh(ctx context.Context) error {
	b.mu.Lock()
	q, first := b.asking, b.known.IsZero()
	if !first && (q != nil || b.parent.now().Sub(b.known) < b.again) {
		b.mu.Unlock()
		return nil
	}
	if q != nil {
		b.mu.Unlock()
		if again, err := q.wait(ctx); !again {
			return err
		}
		return b.refresh(ctx)
	}
	q = &slotQuestion{done: make(chan struct{})}
	b.asking = q
	before, asked := b.added, b.parent.now()
	b.mu.Unlock()

	n, err := b.parent.ask.BacklogSize(ctx, b.owner.group, b.owner.user)

	b.mu.Lock()
	if err == nil {
		b.known = b.parent.now()
		b.again = max(backlogMemory, backlogRest*b.known.Sub(asked))
		b.size, b.echoes = n+b.added-before, 0
	}
	q.err, b.asking = err, nil
	b.mu.Unlock()
	close(q.done)
	return err
}

// file puts into the backlog what a worker has put back for a later retry: only APIs publish. It may be called again for the same
// record, by several instances. Of a function that is gone nothing is run again. The workers of a group may write what they like into
// its bucket: no revision of another group is given to them.
func (c *Control) file(ctx context.Context, r *faena.Record) error {
	rev, err := c.o.Documents.Revision(ctx, r.User, r.Function, r.Revision)
	if faena.IsKind(err, faena.KindNotFound) || err == nil && !revisionOf(&rev, r) {
		_, err := c.endQueued(ctx, r, faena.ReasonFunctionDeleted, functionGone)
		return err
	}
	if err != nil {
		return err
	}
	if rev.Spec.Group != r.Group { // the revision, with what is sealed in it, is not for the workers of this group
		_, err := c.endQueued(ctx, r, faena.ReasonWorkerLost, "Its function is of another group: a worker has changed its record.")
		return err
	}
	m := &faena.Message{Schema: faena.SchemaVersion, ID: r.ID, Revision: &rev, Parameter: *r.Parameter}
	if err := c.o.Bus.PublishBacklog(ctx, r.User, r.Group, r.Publication, m); err != nil {
		return fmt.Errorf("file activation %s: %w", r.ID, err)
	}
	failpoint.Hit("recorder/filed")
	c.hint(r)
	return nil
}

// functionGone is what is said of an activation that is not run for that.
const functionGone = "Its function was deleted while it waited."

// hint tells the leader that something waits, and the others that it is one more. It may be lost: the leader looks every few
// seconds.
func (c *Control) hint(r *faena.Record) {
	if err := c.o.Bus.PublishChanged(changedBacklog, r.User, r.Group); err != nil {
		c.logOf(r).Debug("the leader could not be told of an activation that waits", "error", err)
	}
}

// waiting counts what waits of a user, over all groups.
func (c *Control) waiting(ctx context.Context, user string) (n int64, err error) {
	for _, group := range c.groups.names() { // also those that are not granted any more
		size, err := c.o.Bus.BacklogSize(ctx, group, user)
		if err != nil {
			return 0, queueError(err)
		}
		n += int64(size)
	}
	return n, nil
}
