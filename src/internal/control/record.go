package control

import (
	"context"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

const (
	// recordBatch and recordWait bound what one write to the document store carries, and how long a record waits
	// for it. Superseded versions of a record vanish meanwhile, so that most of what is fetched is terminal.
	recordBatch = 256
	recordWait  = 200 * time.Millisecond
	// dropFor bounds the removal of what belongs to a batch that was recorded.
	dropFor = 10 * time.Second
	// activeCounter, completedCounter and failedCounter are the names of a user's counters.
	activeCounter    = "activations.active"
	completedCounter = "activations.completed"
	failedCounter    = "activations.failed"
	// projectEvery is how often the counters of users whose records changed are projected.
	projectEvery = 500 * time.Millisecond
	// activeWithin bounds the list of active ones: what is asked of a server that has just gone is asked again soon.
	activeWithin = 3 * time.Second
	// usersPage is how many users are read at once.
	usersPage = 1000
)

// record moves terminal records of a group into the document store until ctx ends. At least once: a record that is
// inserted again is left as it is. While the store is away the bucket keeps them.
func (c *Control) record(ctx context.Context, group string) error {
	loop := "recorder of " + group
	return c.o.Bus.Terminal(ctx, group, recordBatch, recordWait, func(ctx context.Context, batch []faena.Record) error {
		c.o.Pulse.Beat(loop)
		defer c.o.Pulse.Rest(loop)
		failpoint.Hit("recorder/before-insert")
		if err := c.o.Documents.Insert(ctx, batch); err != nil {
			return err
		}
		failpoint.Hit("recorder/inserted")
		// Whatever ends meanwhile: the records are purged next, and then nobody knows what belonged to them.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropFor)
		defer cancel()
		c.dropMessages(ctx, group, batch)
		failpoint.Hit("recorder/messages-dropped")
		c.dropParameters(ctx, group, batch)
		failpoint.Hit("recorder/before-purge")
		for i := range batch {
			r := &batch[i]
			c.tally.touch(r.User)
			c.o.Observer.Recorded(r)
		}
		return nil
	}, c.file)
}

// dropMessages deletes messages that a worker left behind when it died between settling and acknowledging. One
// question for each user tells which slots are worth a look.
func (c *Control) dropMessages(ctx context.Context, group string, batch []faena.Record) {
	busy := make(map[string]map[int]struct{})
	for i := range batch {
		r := &batch[i]
		if r.Backlogged { // it ended there: whoever ended it was killed before it took it out
			c.drop(ctx, r)
			continue
		}
		slots, asked := busy[r.User]
		if !asked {
			var err error
			if slots, err = c.o.Bus.BusySlots(ctx, group, r.User); err != nil {
				return // the worker that meets such a message acknowledges it
			}
			busy[r.User] = slots
		}
		if _, ok := slots[r.Slot]; !ok {
			continue
		}
		c.drop(ctx, r)
	}
}

// drop is dropMessage for who goes on where that fails: whoever meets the message of an ended activation removes it.
func (c *Control) drop(ctx context.Context, r *faena.Record) {
	if err := c.dropMessage(ctx, r); err != nil {
		c.logOf(r).Warn("the message of an ended activation stays until a worker, or the leader, meets it", "error", err)
	}
}

// dropParameters deletes the large parameters of activations that have ended: nobody will read them again.
func (c *Control) dropParameters(ctx context.Context, group string, batch []faena.Record) {
	for i := range batch {
		object := batch[i].ParameterObject
		if object == "" {
			continue
		}
		if err := c.deleteObject(ctx, group, object); err != nil {
			c.logOf(&batch[i]).Warn("a parameter stays until it expires", "object", object, "error", err)
		}
	}
}

// tellLeader tells the leader, until ctx ends, whose counters may have changed by what this instance did. The message may be
// lost: all counters are projected once a minute.
func (c *Control) tellLeader(ctx context.Context) error {
	for sleep(ctx, projectEvery) == nil {
		if c.leading.Load() {
			continue // its projection takes them
		}
		for user := range c.tally.take() {
			if err := c.o.Bus.PublishChanged(changedActivity, user, c.o.Instance); err != nil {
				c.tally.touch(user) // told when the connection is back
			}
		}
	}
	return nil
}

// project writes the users' counters into KV until ctx ends: the leader's work. They are computed from the stream's subjects
// and the usage documents, never counted up, so they cannot drift.
func (c *Control) project(ctx context.Context) {
	p := projection{c: c, written: make(map[counter]int64), dirty: make(map[string]struct{})}
	var last, doubted time.Time // when all users were projected, and written anew whatever was written before
	failing := false
	pause := projectEvery
	for sleep(ctx, pause) == nil {
		for user := range c.tally.take() {
			p.dirty[user] = struct{}{}
		}
		all := time.Since(last) >= c.projectAll
		if !all && len(p.dirty) == 0 {
			continue
		}
		began := time.Now()
		if all && time.Since(doubted) >= c.projectAll {
			p.doubt()
			doubted = began
		}
		err := p.write(ctx, all)
		pause = projectEvery
		if err == nil {
			pause = max(pause, 2*time.Since(began)) // a long queue takes a while to list
		}
		if err != nil && !failing && ctx.Err() == nil { // once: it is tried twice a second
			c.log.Warn("the counters could not be projected; they follow when the queue and the store answer", "error", err)
		}
		failing = err != nil
		if all { // also where the store is away: those who are known follow it as soon as it answers
			last = time.Now()
		}
	}
}

// counter is one of a user's.
type counter struct{ user, name string }

// projection remembers what was projected last. Owned by the projector's goroutine.
type projection struct {
	c       *Control
	written map[counter]int64
	dirty   map[string]struct{} // users to project
}

// write projects the dirty users, or all. Active ones come first: they need the queue alone.
func (p *projection) write(ctx context.Context, all bool) error {
	active := make(map[string]int)
	for _, group := range p.c.groups.names() {
		listed, cancel := context.WithTimeout(ctx, activeWithin)
		byUser, err := p.c.o.Bus.ActiveByUser(listed, group)
		cancel()
		if err != nil {
			return err
		}
		for user, n := range byUser {
			active[user] += n
		}
	}
	var away error // of the documents
	if all {
		for user := range active {
			p.dirty[user] = struct{}{}
		}
		away = p.everybody(ctx)
	}
	for user := range p.dirty {
		if err := p.put(ctx, user, activeCounter, int64(active[user])); err != nil {
			return err
		}
	}
	if away != nil {
		return away
	}
	for user := range p.dirty {
		usage, err := p.c.o.Documents.UserUsage(ctx, user)
		if err != nil {
			return err
		}
		if err := p.put(ctx, user, completedCounter, usage.Completed); err != nil {
			return err
		}
		if err := p.put(ctx, user, failedCounter, usage.Failed); err != nil {
			return err
		}
		if active[user] == 0 { // a user with active ones stays dirty: nobody announces the last acknowledgement
			delete(p.dirty, user)
		}
	}
	return nil
}

// everybody makes all users dirty: those who have a profile, since the counters may be of a process that was killed
// before it projected the last change, and those who had one.
func (p *projection) everybody(ctx context.Context) error {
	for c := range p.written {
		p.dirty[c.user] = struct{}{}
	}
	for after, more := "", true; more; {
		users, err := p.c.o.Documents.Users(ctx, after, usersPage)
		if err != nil {
			return err
		}
		for _, u := range users {
			p.dirty[u.Name], after = struct{}{}, u.Name
		}
		more = len(users) == usersPage
	}
	return nil
}

// doubt makes what was written be written again: another instance that led before may have woken up and finished what it was
// writing.
func (p *projection) doubt() {
	for k := range p.written {
		p.written[k] = -1
	}
}

// put writes a counter that has changed since it was written last.
func (p *projection) put(ctx context.Context, user, name string, n int64) error {
	k := counter{user, name}
	if last, known := p.written[k]; known && last == n {
		return nil
	}
	if err := p.c.o.Bus.PutCounter(ctx, user, name, n); err != nil {
		return err
	}
	failpoint.Hit("leader/counter-written")
	p.written[k] = n
	return nil
}
