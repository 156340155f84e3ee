package control

import (
	"context"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// recordBatch and recordWait bound what one write to the document store carries, and how long a record waits
	// for it. Superseded versions of a record vanish meanwhile, so that most of what is fetched is terminal.
	recordBatch = 256
	recordWait  = 200 * time.Millisecond
	// activeCounter, completedCounter and failedCounter are the names of a user's counters.
	activeCounter    = "activations.active"
	completedCounter = "activations.completed"
	failedCounter    = "activations.failed"
	// projectEvery is how often the counters of users whose records changed are projected; projectAll of all.
	projectEvery = 500 * time.Millisecond
	projectAll   = 60 * time.Second
)

// record moves terminal records of a group into the document store until ctx ends. At least once: a record that is
// inserted again is left as it is. While the store is away the bucket keeps them.
func (c *Control) record(ctx context.Context, group string) error {
	return c.o.Bus.Terminal(ctx, group, recordBatch, recordWait, func(ctx context.Context, batch []faena.Record) error {
		if err := c.o.Documents.Insert(ctx, batch); err != nil {
			return err
		}
		c.dropMessages(ctx, group, batch)
		for i := range batch {
			r := &batch[i]
			c.tally.recorded.Add(1)
			c.tally.touch(r.User)
			c.o.Observer.Recorded(r)
		}
		return nil
	})
}

// dropMessages deletes messages that a worker left behind when it died between settling and acknowledging. One
// question for each user tells which slots are worth a look.
func (c *Control) dropMessages(ctx context.Context, group string, batch []faena.Record) {
	busy := make(map[string]map[int]struct{})
	for i := range batch {
		r := &batch[i]
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
		if err := c.dropMessage(ctx, r); err != nil {
			c.log.Warn("the message of an ended activation stays until a worker meets it", "activation_id", r.ID, "error", err)
		}
	}
}

// project writes the users' counters into KV until ctx ends. They are computed from the stream's subjects and the
// usage documents, never counted up, so they cannot drift.
func (c *Control) project(ctx context.Context) error {
	p := projection{c: c, active: make(map[string]int), dirty: make(map[string]struct{})}
	var last time.Time // when all users were projected
	for {
		if err := sleep(ctx, projectEvery); err != nil {
			return nil
		}
		for user := range c.tally.take() {
			p.dirty[user] = struct{}{}
		}
		all := time.Since(last) >= projectAll
		if !all && len(p.dirty) == 0 {
			continue
		}
		if err := p.write(ctx, all); err != nil {
			c.log.Warn("the counters could not be projected; they follow when the queue and the store answer", "error", err)
			continue
		}
		if all {
			last = time.Now()
		}
	}
}

// projection remembers what was projected last. Owned by the projector's goroutine.
type projection struct {
	c      *Control
	active map[string]int      // as last written, by user
	dirty  map[string]struct{} // users to project
}

func (p *projection) write(ctx context.Context, all bool) error {
	now := make(map[string]int)
	for _, group := range p.c.o.Groups {
		byUser, err := p.c.o.Bus.ActiveByUser(ctx, group)
		if err != nil {
			return err
		}
		for user, n := range byUser {
			now[user] += n
		}
	}
	if all {
		for user := range p.active {
			p.dirty[user] = struct{}{}
		}
		for user := range now {
			p.dirty[user] = struct{}{}
		}
	}
	for user := range p.dirty {
		if err := p.writeUser(ctx, user, now[user]); err != nil {
			return err
		}
		if now[user] == 0 { // a user with active ones stays dirty: nobody announces the last acknowledgement
			delete(p.dirty, user)
		}
	}
	return nil
}

func (p *projection) writeUser(ctx context.Context, user string, active int) error {
	if last, known := p.active[user]; !known || last != active {
		if err := p.c.o.Bus.PutCounter(ctx, user, activeCounter, int64(active)); err != nil {
			return err
		}
		p.active[user] = active
	}
	usage, err := p.c.o.Documents.UserUsage(ctx, user)
	if err != nil {
		return err
	}
	if err := p.c.o.Bus.PutCounter(ctx, user, completedCounter, usage.Completed); err != nil {
		return err
	}
	return p.c.o.Bus.PutCounter(ctx, user, failedCounter, usage.Failed)
}
