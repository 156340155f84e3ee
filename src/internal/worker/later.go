package worker

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// later are the messages that this worker hands back after a while, as many as there are slots. It holds them until then, in no place:
// it confirms them, and they stand in its journal, so that its next life hands them back should this one be killed. The server at times
// keeps much longer what is handed back to it with a delay (natsbus/DESIGN.md). It is safe for concurrent use.
type later struct {
	mu      sync.Mutex
	waiting map[*activation]*time.Timer
	closed  bool           // nothing is put off any more
	handing sync.WaitGroup // what is due and being handed back
}

// each calls fn for every one, under the lock.
func (l *later) each(fn func(*activation)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a := range l.waiting {
		fn(a)
	}
}

// take takes one out that is due. Whoever has it calls handing.Done.
func (l *later) take(a *activation) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, waits := l.waiting[a]; !waits {
		return false
	}
	delete(l.waiting, a)
	l.handing.Add(1)
	return true
}

// postpone hands a message back when delay is over. It reports false where this worker has no time for that any more.
func (w *Worker) postpone(a *activation, delay time.Duration) bool {
	l := &w.later
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	// Without what it ran with and wrote, and without its place's entry: the place takes the next one.
	b := &activation{delivery: Delivery{Acker: a.delivery.Acker, Sequence: a.delivery.Sequence, User: a.user, ID: a.id},
		group: a.group, user: a.user, id: a.id, trace: a.trace, ctx: context.WithoutCancel(a.ctx), entry: w.journal.spareEntry(), phase: phase{over: true}}
	b.confirmedAt.Store(a.confirmedAt.Load())
	b.fenced.Store(a.fenced.Load())
	b.entry.hold(&b.delivery, time.Duration(b.confirmedAt.Load()))
	a.entry.clear()
	if l.waiting == nil {
		l.waiting = make(map[*activation]*time.Timer)
	}
	l.waiting[b] = time.AfterFunc(delay, func() {
		if l.take(b) {
			defer l.handing.Done()
			w.handOver(b)
		}
	})
	return true
}

// handOverAll hands back at once whatever waits, and puts nothing off from then on. What is not handed back within handBackFor comes
// again after AckWait.
func (w *Worker) handOverAll() {
	l := &w.later
	l.mu.Lock()
	l.closed = true
	rest := slices.Collect(maps.Keys(l.waiting))
	for a, timer := range l.waiting {
		timer.Stop()
		delete(l.waiting, a)
	}
	l.mu.Unlock()
	until := time.Now().Add(handBackFor)
	var handing errgroup.Group
	handing.SetLimit(handBacks)
	for _, a := range rest {
		handing.Go(func() error {
			if time.Now().Before(until) {
				w.handOver(a)
			}
			return nil
		})
	}
	_ = handing.Wait() // each has told its own
	l.handing.Wait()
}
