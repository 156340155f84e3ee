package worker

import (
	"context"
	"time"
)

// PoolStats counts a worker's containers by state.
type PoolStats struct {
	Starting, Idle, Busy int
	Waiting              int // activations that wait for one
	MemoryBytes          int64
	MilliCPUs            int64
}

// stats counts the containers by state.
func (p *pool) stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := PoolStats{Waiting: len(p.waiters), MemoryBytes: p.ledger.memory, MilliCPUs: p.ledger.cpu}
	for _, s := range p.shelves {
		st.Starting += s.starting
		st.Idle += len(s.idle)
		st.Busy += s.busy
	}
	return st
}

// ids are the engine's ids of all containers that the pool knows; true of those that are not being removed.
func (p *pool) ids() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := make(map[string]bool, len(p.all))
	for c := range p.all {
		ids[c.id] = c.state != stateRemoved
	}
	return ids
}

// loop removes what was idle for too long and fills up stocks, until ctx ends.
func (p *pool) loop(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			p.tidy(now)
		}
	}
}

// tidy removes idle containers beyond a stock whose time is over.
func (p *pool) tidy(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.shelves {
		for len(s.idle) > p.stock(s) && now.Sub(s.idle[0].idleSince) >= p.idleTTL {
			c := s.idle[0]
			p.takeOff(c)
			p.remove(c)
		}
		p.prune(s)
	}
	p.schedule()
}

// close removes every container and waits until all are gone. Those who still wait get an error.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for len(p.waiters) > 0 {
		p.waiters[0].grant <- grant{err: errAborted}
		p.dequeue(0)
	}
	for _, s := range p.shelves {
		for len(s.idle) > 0 {
			c := s.idle[0]
			p.takeOff(c)
			p.remove(c)
		}
	}
	p.mu.Unlock()
	p.stop()
	p.wg.Wait()
}
