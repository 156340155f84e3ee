package control

import (
	"context"
	"fmt"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
)

// rereadEvery is how often a waiting call reads its record again, since a Completed message may be lost.
const rereadEvery = 15 * time.Second

// noWorkerGrace is how long a group must be without a worker before a synchronous call is given up: a worker that
// restarts is back by then.
const noWorkerGrace = 3 * time.Second

// expireAfter is how much later than its worker an API ends what has expired.
const expireAfter = 500 * time.Millisecond

// notReadyGrace is how long the workers of a group may all be unable to take anything before it is given up too.
const notReadyGrace = 30 * time.Second

// waiters are the synchronous calls of this instance by activation id.
type waiters struct {
	mu      sync.Mutex
	waiting map[string]*waiter
	drained chan struct{} // closed when calls must answer now
	idle    chan struct{} // closed when draining and nothing waits
	closing bool
}

type waiter struct {
	user, group string
	done        chan *faena.Record // holds the terminal record; of capacity one
	again       chan struct{}      // a hint to read the record; of capacity one
}

func newWaiters() *waiters {
	return &waiters{waiting: make(map[string]*waiter), drained: make(chan struct{}), idle: make(chan struct{})}
}

func (w *waiters) add(r *faena.Record) *waiter {
	x := &waiter{user: r.User, group: r.Group, done: make(chan *faena.Record, 1), again: make(chan struct{}, 1)}
	w.mu.Lock()
	w.waiting[r.ID] = x
	w.mu.Unlock()
	return x
}

func (w *waiters) remove(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, id)
	w.settleIdle()
}

// settleIdle closes idle once. The caller holds mu.
func (w *waiters) settleIdle() {
	if w.closing && len(w.waiting) == 0 {
		select {
		case <-w.idle:
		default:
			close(w.idle)
		}
	}
}

// deliver hands a terminal record to the call that waits for it, if one does.
func (w *waiters) deliver(r *faena.Record) {
	w.mu.Lock()
	x := w.waiting[r.ID]
	w.mu.Unlock()
	if x == nil || x.user != r.User || x.group != r.Group {
		return
	}
	select {
	case x.done <- r:
	default: // a second Completed of the same activation
	}
}

// lookAgain tells every waiting call to read its record: Completed messages may have been lost.
func (w *waiters) lookAgain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.waiting {
		select {
		case x.again <- struct{}{}:
		default:
		}
	}
}

func (w *waiters) drain(ctx context.Context, after time.Duration) {
	w.mu.Lock()
	w.closing = true
	w.settleIdle()
	w.mu.Unlock()
	t := time.NewTimer(after)
	defer t.Stop()
	select {
	case <-w.idle:
		return
	case <-t.C:
	case <-ctx.Done():
	}
	w.answer()
	select {
	case <-w.idle:
	case <-ctx.Done():
	}
}

// answer makes every call that waits answer now.
func (w *waiters) answer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.drained:
	default:
		close(w.drained)
	}
}

// completed takes a Completed message: a hint that an activation of this instance has ended.
func (c *Control) completed(r *faena.Record) {
	c.slots.of(r.Group, r.User).free(r.Slot)
	c.tally.touch(r.User)
	c.waits.deliver(r)
}

// await waits for the end of an activation that was admitted with record r. It returns the terminal record, or the
// record as it is where the wait was longer than c.syncWait or the instance is stopping. An activation that found no
// worker is an error: it was not run, and may be later.
func (c *Control) await(ctx context.Context, w *waiter, r *faena.Record) (*faena.Record, error) {
	wait := time.NewTimer(c.syncWait)
	defer wait.Stop()
	reread := time.NewTicker(rereadEvery)
	defer reread.Stop()
	absent := c.gauge.watch(r.Group)
	defer absent.stop()
	late := time.NewTimer(time.Until(r.AdmittedAt.Add(r.StartWithin())) + expireAfter)
	defer late.Stop()
	for {
		select {
		case done := <-w.done:
			return ran(done)
		case <-ctx.Done():
			return nil, ctx.Err() // the caller went away; the activation goes on
		case <-wait.C:
			return r, nil
		case <-c.waits.drained:
			return r, nil
		case <-absent.C:
			c.giveUp(ctx, r)
		case <-late.C:
			c.expire(ctx, r)
		case <-reread.C:
		case <-w.again:
		}
		if now, _, err := c.find(ctx, r.User, r.ID); err == nil {
			if r = now; r.State.Terminal() {
				return ran(r)
			}
		}
	}
}

// giveUp settles a queued activation for which no worker is there, and frees its slot. Where the queue does not answer,
// the next look at the workers tries again. What has been started once waits for its retry.
func (c *Control) giveUp(ctx context.Context, r *faena.Record) {
	c.gauge.mu.Lock()
	has, _ := c.gauge.hasWorker(r.Group)
	c.gauge.mu.Unlock()
	if has || r.Attempt > 0 { // it is back, or it was
		return
	}
	_, err := c.endQueued(ctx, r, faena.ReasonNoWorker, "No worker of group "+r.Group+" is there, or is ready, to run it. Try again later.")
	if err != nil && ctx.Err() == nil {
		c.logOf(r).Warn("an activation for which there is no worker could not be ended yet", "error", err)
	}
}

// expire settles an activation that no worker took in time, while all of them are busy: a worker that meets it would do
// the same. A retry has a latest start of its own, which the sweeper looks after.
func (c *Control) expire(ctx context.Context, r *faena.Record) {
	if r.Attempt > 0 {
		return
	}
	_, err := c.endQueued(ctx, r, faena.ReasonExpired, fmt.Sprintf("No worker could start it within %s.", r.StartWithin()))
	if err != nil && ctx.Err() == nil {
		c.logOf(r).Warn("an activation that has expired could not be ended; the worker that meets it does", "error", err)
	}
}

// ran returns a terminal record, or the error for one that found no worker.
func ran(r *faena.Record) (*faena.Record, error) {
	if r.Reason != faena.ReasonNoWorker {
		return r, nil
	}
	return nil, &faena.Error{Kind: faena.KindUnavailable, Reason: string(faena.ReasonNoWorker), Component: faena.ComponentQueue,
		Message: r.Message, Retryable: true, RetryAfter: 5 * time.Second, Activation: r.ID}
}
