package worker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// progress confirms everything that the worker holds and re-reads its records: one ticker for all. A confirmation is
// a request that the server answers; one without an answer is none.
type progress struct {
	w     *Worker
	tick  time.Duration
	vigil vigil

	mu     sync.Mutex // guards closed, so that nothing starts once the loop waits for wg
	closed bool
	wg     sync.WaitGroup
}

// loop runs until ctx ends, and waits for the checks that are under way.
func (p *progress) loop(ctx context.Context) {
	defer p.close()
	t := time.NewTicker(p.tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			p.w.o.Pulse.Beat("progress")
			at := clock.SinceBoot()
			p.vigil.look(at, p.w.every.stall)
			p.w.gate.doubt(p.vigil.doubtful(at, p.w.every.stall))
			p.w.held.each(func(a *activation) { p.look(ctx, a) })
			p.w.later.each(func(a *activation) { p.look(ctx, a) })
		}
	}
}

func (p *progress) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.wg.Wait()
}

// look fences what was not confirmed for too long, and starts a check of what is due.
func (p *progress) look(ctx context.Context, a *activation) {
	if a.lapsed(p.w.every.fence) {
		if !a.now().over {
			a.stop(errFenced)
		}
		return
	}
	if a.unconfirmed() >= p.w.every.progress {
		p.check(ctx, a, true)
	}
}

// check confirms and re-reads one in the background. What asks while that is under way makes it re-read once more,
// so that a cancellation is never missed by a moment.
func (p *progress) check(ctx context.Context, a *activation, confirm bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || a.checks.Add(1) > 1 {
		return
	}
	p.wg.Go(func() {
		for {
			asked := a.checks.Load()
			p.confirm(ctx, a, confirm)
			if a.checks.CompareAndSwap(asked, 0) {
				return
			}
			confirm = false
		}
	})
}

func (p *progress) confirm(ctx context.Context, a *activation, confirm bool) {
	left := clock.SinceBoot()
	if a.lapsed(p.w.every.fence) { // since it was looked at: this process, or its host, has stood still
		return
	}
	if confirm {
		if err := once(ctx, a.delivery.Confirm); err != nil {
			if ctx.Err() == nil {
				p.w.logOf(a).Warn("an activation could not be confirmed", slog.Any("error", err))
			}
			return
		}
		a.confirmedAt.Store(int64(left))
		a.entry.confirmed(a.delivery.Sequence, left)
		failpoint.Hit("worker/confirmed")
	}
	// The attempt is read before the record and the end after it: a claim or a settle of our own in between must not
	// look like somebody else's.
	before := a.now()
	if before.over { // whatever the record says, there is nothing to stop
		return
	}
	var rec *faena.Record
	err := once(ctx, func(ctx context.Context) (err error) {
		rec, _, err = p.w.o.Bus.Record(ctx, a.group, a.user, a.id)
		if faena.IsKind(err, faena.KindNotFound) {
			rec, err = nil, nil
		}
		return err
	})
	if err != nil {
		return // the next tick tries again; the fence is for what stays away
	}
	if a.now().over {
		return
	}
	switch stands(rec, p.w.o.ID, before, a.delivery.Sequence) {
	case wanted:
		a.stop(errCancelled)
	case superseded:
		a.stop(errSuperseded)
	case ours:
	}
}

// cancelled is called with the id of an activation whose cancellation is asked for: its record is looked at now.
func (p *progress) cancelled(ctx context.Context, id string) {
	if a := p.w.held.get(id); a != nil && ctx.Err() == nil {
		p.check(ctx, a, false)
	}
}

// doubtFor is how long after a stall all has come that had been waiting for this process.
const doubtFor = 5 * time.Second

// vigil notices that this process has stood still: it was stopped, or its host was. What arrives then may have waited for it for
// so long that somebody else has been given it meanwhile. It is safe for concurrent use.
type vigil struct {
	last  atomic.Int64 // the last look; nanoseconds since the host's start, as all times here
	until atomic.Int64 // until when what arrives is doubtful
}

// look is called often.
func (v *vigil) look(now, stall time.Duration) {
	if now-time.Duration(v.last.Swap(int64(now))) >= stall {
		v.until.Store(int64(now + doubtFor))
	}
}

// doubtful reports whether what arrives now may have waited for longer than stall.
func (v *vigil) doubtful(now, stall time.Duration) bool {
	return now-time.Duration(v.last.Load()) >= stall || now < time.Duration(v.until.Load())
}
