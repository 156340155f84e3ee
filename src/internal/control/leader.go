package control

import (
	"context"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// leaderLease is the lease of the instance that leads.
const leaderLease = "leader"

// leaseSlack is how long before its lease may run out a leader stops: what it has begun must have ended by then, mostly.
const leaseSlack = time.Second

// lead makes this instance the leader when nobody is, until ctx ends. The leader does what need not be done by each instance:
// it projects the counters, releases what waits, sweeps and prunes. Nothing of that is wrong when two do it for a moment: every change of a record
// is a compare-and-set, counters are set to what they are computed to be, and what is pruned twice is gone.
func (c *Control) lead(ctx context.Context) error {
	for {
		c.o.Pulse.Beat("leader")
		began := time.Now()
		rev, held, err := c.o.Bus.HoldLease(ctx, leaderLease, c.o.Instance, 0)
		if err == nil && held {
			failpoint.Hit("leader/lease-taken")
			c.term(ctx, rev, began.Add(faena.LeaseTTL))
		}
		if err := sleep(ctx, faena.LeaseEvery); err != nil {
			return nil
		}
	}
}

// term leads until the lease is lost or ctx ends. expires is when the lease runs out unless it is renewed.
func (c *Control) term(ctx context.Context, rev uint64, expires time.Time) {
	c.log.Info("this instance leads now")
	c.o.Observer.Leading(true)
	working, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, work := range []func(context.Context){c.project, c.release, c.sweep, c.prune} {
		wg.Go(func() { work(working) })
	}
	c.leading.Store(true)
	rev = c.renew(ctx, rev, expires)
	c.leading.Store(false)
	stop()
	c.o.Pulse.Beat("leader")
	wg.Wait()
	c.o.Observer.Leading(false)
	c.log.Info("this instance does not lead any more")
	if ctx.Err() == nil {
		return
	}
	// Another one need not wait for the lease to run out.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := c.o.Bus.DropLease(ctx, leaderLease, rev); err != nil {
		c.log.Warn("the lease of the leader could not be given up; it runs out", "error", err)
	}
}

// renew renews the lease until that fails for certain, or for too long, or ctx ends, and returns its last revision. A process
// that was paused wakes up here with a lease that somebody else may have: it does not go by the clock alone.
func (c *Control) renew(ctx context.Context, rev uint64, expires time.Time) uint64 {
	for {
		c.o.Pulse.Beat("leader")
		until := expires.Add(-leaseSlack)
		if sleep(ctx, min(faena.LeaseEvery, time.Until(until))) != nil {
			return rev
		}
		began := time.Now()
		if !began.Before(until) {
			return rev
		}
		try, cancel := context.WithDeadline(ctx, until)
		next, held, err := c.o.Bus.HoldLease(try, leaderLease, c.o.Instance, rev)
		cancel()
		switch {
		case err == nil && !held:
			return rev
		case err == nil:
			rev, expires = next, began.Add(faena.LeaseTTL)
		}
	}
}
