package control

import (
	"context"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// cutWait is how long a call waits for the end of a backup's cut before it is refused.
	cutWait = 5 * time.Second
	// lateMost bounds what is removed only after a backup; more than that goes by its age.
	lateMost = 100_000
)

// cut is where a backup stops what would make its parts disagree:
//
//	Pause    nothing is admitted and nothing is released from the backlog; what is under way has ended. What workers do goes on.
//	KeepAll  no object is removed, as long as objects are read that something in the backup refers to
//
// It is safe for concurrent use.
type cut struct {
	mu     sync.Mutex
	paused chan struct{} // closed at the end of the pause; nil where there is none
	inside int
	// waiting is how many wait for the end of the pause.
	waiting int
	none    chan struct{} // closed when nothing is inside any more; nil where nobody waits for that

	keepers int
	late    []object
}

type object struct{ group, name string }

// enter is called before an admission or a release, leave after it. It waits for the end of a pause, at most for within.
func (g *cut) enter(ctx context.Context, within time.Duration) error {
	limit := time.NewTimer(within)
	defer limit.Stop()
	for {
		g.mu.Lock()
		paused := g.paused
		if paused == nil {
			g.inside++
			g.mu.Unlock()
			return nil
		}
		g.waiting++
		g.mu.Unlock()
		err := waitFor(ctx, paused, limit.C)
		g.mu.Lock()
		g.waiting--
		g.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// waitFor waits for the end of a pause.
func waitFor(ctx context.Context, paused <-chan struct{}, limit <-chan time.Time) error {
	select {
	case <-paused:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-limit:
		e := faena.Unavailable(faena.ComponentQueue, "backup_in_progress", "A backup is being made, so the activation was not accepted. Try again.", nil)
		e.RetryAfter = cutWait
		return e
	}
}

func (g *cut) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.none != nil {
		close(g.none)
		g.none = nil
	}
}

// Pause stops admission, and releases from the backlog, until resume is called. What is under way has ended when it returns. It fails
// where another pause lasts, and when ctx ends.
func (c *Control) Pause(ctx context.Context) (resume func(), err error) {
	g := &c.cut
	g.mu.Lock()
	if g.paused != nil {
		g.mu.Unlock()
		return nil, &faena.Error{Kind: faena.KindConflict, Reason: "backup_in_progress", Component: faena.ComponentCaller, Message: "Another backup is being made."}
	}
	paused := make(chan struct{})
	g.paused = paused
	var none chan struct{}
	if g.inside > 0 {
		none = make(chan struct{})
		g.none = none
	}
	g.mu.Unlock()
	resume = sync.OnceFunc(func() {
		g.mu.Lock()
		g.paused, g.none = nil, nil
		g.mu.Unlock()
		close(paused)
	})
	if none == nil {
		return resume, nil
	}
	select {
	case <-none:
		return resume, nil
	case <-ctx.Done():
		resume()
		return nil, ctx.Err()
	}
}

// KeepObjects puts off the removal of objects until done is called.
func (c *Control) KeepObjects() (done func(context.Context)) {
	c.cut.mu.Lock()
	c.cut.keepers++
	c.cut.mu.Unlock()
	return func(ctx context.Context) {
		c.cut.mu.Lock()
		var late []object
		if c.cut.keepers--; c.cut.keepers == 0 {
			late, c.cut.late = c.cut.late, nil
		}
		c.cut.mu.Unlock()
		for _, o := range late {
			if err := c.o.Bus.DeleteObject(ctx, o.group, o.name); err != nil {
				c.log.Warn("objects stay until they are too old: they could not be removed after the backup", "object", o.name, "error", err)
				return
			}
		}
	}
}

// deleteObject removes an object that nothing refers to any more, or has it removed after the backup that is being made.
func (c *Control) deleteObject(ctx context.Context, group, name string) error {
	c.cut.mu.Lock()
	kept := c.cut.keepers > 0
	if kept && len(c.cut.late) < lateMost {
		c.cut.late = append(c.cut.late, object{group, name})
	}
	c.cut.mu.Unlock()
	if kept {
		return nil
	}
	return c.o.Bus.DeleteObject(ctx, group, name)
}
