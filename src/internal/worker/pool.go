package worker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// warmTTL ends the promise of a spec's warm containers when a function was not used for so long: the worker is
	// not told that a function is deleted.
	warmTTL = 24 * time.Hour
	// refillPause is how long a shelf is left alone after a container for its stock could not be made.
	refillPause = 30 * time.Second
	// removals is how many containers are removed at once.
	removals = 4
	// launchTimeout bounds making one container, from its creation to the first word of its init.
	launchTimeout = 60 * time.Second
	// removeTimeout bounds removing one.
	removeTimeout = 30 * time.Second
)

// shelfKey is what a container serves. A function that was deleted and made again begins with revision 1 again, so
// the time of the revision belongs to its identity.
type shelfKey struct {
	user, function string
	revision       int
	created        int64
}

func keyOf(r *faena.Revision) shelfKey {
	return shelfKey{r.User, r.Function, r.Number, r.CreatedAt.UnixNano()}
}

// shelf holds the containers of one revision. The pool's lock guards it.
type shelf struct {
	key      shelfKey
	rev      *faena.Revision
	memory   int64
	milli    int64
	idle     []*container // the least recently used first
	busy     int
	starting int
	waiting  int
	used     time.Time // last taken from
	noRefill time.Time // until then
}

func (s *shelf) fresh() bool { return s.rev.Spec.Isolation == faena.IsolationFresh }
func (s *shelf) empty() bool { return len(s.idle)+s.busy+s.starting+s.waiting == 0 }

// launcher makes containers.
type launcher interface {
	launch(ctx context.Context, rev *faena.Revision) (*container, error)
}

// waiter is an activation that waits for a container.
type waiter struct {
	shelf *shelf
	grant chan grant // of capacity 1
}

type grant struct {
	c   *container
	err error
}

// pool holds every container of the worker. See the package comment for the states of a container.
type pool struct {
	launcher launcher
	idleTTL  time.Duration
	log      *slog.Logger
	starts   chan struct{} // a place for each container that is being started
	removes  chan struct{} // a place for each container that is being removed
	wg       sync.WaitGroup
	ctx      context.Context // of launches, detached from who asks: the container serves the next one
	stop     context.CancelFunc
	after    context.Context // of removals: does not end

	mu      sync.Mutex
	ledger  ledger
	shelves map[shelfKey]*shelf
	current map[[2]string]*shelf // user and function → the shelf used last: only that one keeps a stock
	waiters []*waiter            // in order of arrival
	all     map[*container]struct{}
	refills int // containers being made for a stock: one at a time, so that they do not slow what runs
	closed  bool
}

func newPool(c Capacity, idleTTL time.Duration, starts int, l launcher, log *slog.Logger) *pool {
	return &pool{launcher: l, idleTTL: idleTTL, log: log, starts: make(chan struct{}, starts),
		removes: make(chan struct{}, removals), ledger: ledger{total: c}, shelves: map[shelfKey]*shelf{},
		current: map[[2]string]*shelf{}, all: map[*container]struct{}{}, closed: true}
}

// open lets the pool make containers; ctx is that of its whole life and must not end before close has returned.
func (p *pool) open(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after = ctx
	p.ctx, p.stop = context.WithCancel(ctx)
	p.closed = false
}

// take gives an idle container of the revision, or nil where there is none or somebody else waits for it.
func (p *pool) take(rev *faena.Revision) *container {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shelves[keyOf(rev)]
	if s == nil || len(s.idle) == 0 || len(p.waiters) > 0 || !p.ledger.cpuFits(s.milli) {
		return nil
	}
	return p.pop(s)
}

// pop takes the most recently used idle container.
func (p *pool) pop(s *shelf) *container {
	c := s.idle[len(s.idle)-1]
	s.idle = s.idle[:len(s.idle)-1]
	s.busy++
	s.used = time.Now()
	p.ledger.cpu += s.milli
	p.current[[2]string{s.key.user, s.key.function}] = s
	c.state = stateBusy
	return c
}

// wait gives a container of the revision, making one where there is none and capacity allows, and making room by
// removing idle ones of others. It waits until ctx ends; who came first is served first.
func (p *pool) wait(ctx context.Context, rev *faena.Revision) (*container, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errAborted
	}
	s := p.shelfFor(rev)
	if !p.ledger.possible(s.memory) {
		p.prune(s)
		p.mu.Unlock()
		return nil, &faena.Error{Kind: faena.KindInvalid, Reason: string(faena.ReasonStartFailed), Component: faena.ComponentWorker,
			Message: fmt.Sprintf("The function asks for %d MiB of memory; this worker has %d MiB for all.", s.memory>>20, p.ledger.total.MemoryBytes>>20)}
	}
	w := &waiter{shelf: s, grant: make(chan grant, 1)}
	s.waiting++
	p.waiters = append(p.waiters, w)
	p.schedule()
	p.mu.Unlock()

	select {
	case g := <-w.grant:
		return g.c, g.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	if i := slices.Index(p.waiters, w); i >= 0 {
		p.dequeue(i)
		p.schedule()
	}
	p.mu.Unlock()
	select {
	case g := <-w.grant: // it was given in the same moment
		if g.c != nil {
			p.release(g.c, false)
		}
	default:
	}
	return nil, context.Cause(ctx)
}

// shelfFor returns the shelf of a revision, making it where there is none.
func (p *pool) shelfFor(rev *faena.Revision) *shelf {
	key := keyOf(rev)
	s := p.shelves[key]
	if s == nil {
		s = &shelf{key: key, rev: rev, memory: rev.Spec.MemoryBytes, milli: p.ledger.milli(rev.Spec.CPUs)}
		p.shelves[key] = s
	}
	return s
}

func (p *pool) dequeue(i int) {
	p.waiters[i].shelf.waiting--
	p.waiters = slices.Delete(p.waiters, i, i+1)
}

// schedule gives idle containers to those who wait, and starts what they need. Nobody who needs memory overtakes
// another who does, and nobody who needs CPU another who does, so that a large function is not starved by small
// ones; a container that is idle already goes past those who wait for memory. The caller holds the lock.
func (p *pool) schedule() {
	cpuShort, memoryShort := false, false
	wanted := map[*shelf]int{}
	for i := 0; i < len(p.waiters); {
		w := p.waiters[i]
		s := w.shelf
		if len(s.idle) > 0 && !cpuShort {
			if p.ledger.cpuFits(s.milli) {
				w.grant <- grant{c: p.pop(s)}
				p.dequeue(i)
				continue
			}
			cpuShort = true
		}
		if wanted[s]++; wanted[s] > s.starting+len(s.idle) && !memoryShort {
			if p.makeRoom(s.memory) {
				p.start(s, false)
			} else {
				memoryShort = true
			}
		}
		i++
	}
	if !memoryShort {
		p.refill()
	}
}

// makeRoom reports whether a container of so much memory may be made now. Where it may not, the least recently used
// idle containers are on their way out when it returns, unless even that would not be enough.
func (p *pool) makeRoom(memory int64) bool {
	if p.ledger.fits(memory) {
		return true
	}
	for !p.ledger.willFit(memory) {
		c := p.evictable()
		if c == nil {
			return false
		}
		p.takeOff(c)
		p.remove(c)
	}
	return false
}

// evictable is the least recently used idle container: of those beyond a stock, otherwise of all, but none that
// somebody waits for.
func (p *pool) evictable() *container {
	var best *container
	bestSpare := false
	for _, s := range p.shelves {
		if len(s.idle) == 0 || s.waiting > 0 {
			continue
		}
		c, spare := s.idle[0], len(s.idle) > p.stock(s)
		if best == nil || spare && !bestSpare || spare == bestSpare && c.idleSince.Before(best.idleSince) {
			best, bestSpare = c, spare
		}
	}
	return best
}

// stock is how many idle containers the shelf should have: of reuse what warm asks for beyond the busy ones, of
// fresh at least one while the function is in use. Only the revision that a function used last keeps a stock.
func (p *pool) stock(s *shelf) int {
	unused := time.Since(s.used)
	if p.current[[2]string{s.key.user, s.key.function}] != s || unused > warmTTL {
		return 0
	}
	n := s.rev.Spec.Warm
	if !s.fresh() {
		return max(0, n-s.busy)
	}
	if unused < p.idleTTL {
		n = max(n, 1)
	}
	return n
}

// refill starts one container for a shelf whose stock is short, if there is room without removing anything.
func (p *pool) refill() {
	if p.closed || p.refills > 0 {
		return
	}
	now := time.Now()
	for _, s := range p.current {
		if len(s.idle)+s.starting-s.waiting < p.stock(s) && now.After(s.noRefill) && p.ledger.fits(s.memory) {
			p.refills++
			p.start(s, true)
			return
		}
	}
}

// start makes a container in the background. The caller holds the lock.
func (p *pool) start(s *shelf, refill bool) {
	p.ledger.add(s.memory)
	s.starting++
	p.wg.Go(func() {
		c, err := p.launch(s)
		p.started(s, c, err, refill)
	})
}

func (p *pool) launch(s *shelf) (*container, error) {
	select {
	case p.starts <- struct{}{}:
		defer func() { <-p.starts }()
	case <-p.ctx.Done():
		return nil, errAborted
	}
	ctx, cancel := context.WithTimeout(p.ctx, launchTimeout)
	defer cancel()
	return p.launcher.launch(ctx, s.rev)
}

// started puts a new container on its shelf, or tells the first who waits why there is none.
func (p *pool) started(s *shelf, c *container, err error, refill bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.starting--
	if refill {
		p.refills--
	}
	if err != nil {
		p.ledger.drop(s.memory)
		p.failed(s, err, refill)
		p.prune(s)
		p.schedule()
		return
	}
	c.shelf = s
	p.all[c] = struct{}{}
	if p.closed {
		p.remove(c)
		return
	}
	p.wg.Go(func() { p.mourn(c) })
	p.putOn(c)
	p.schedule()
}

func (p *pool) failed(s *shelf, err error, refill bool) {
	s.noRefill = time.Now().Add(refillPause)
	for i, w := range p.waiters {
		if w.shelf == s && !refill {
			w.grant <- grant{err: err}
			p.dequeue(i)
			return
		}
	}
	if !p.closed {
		p.log.Warn("a container for the stock could not be made", "function", s.key.function, "user", s.key.user, "error", err)
	}
}

// mourn waits until the container's init is gone. An idle container is removed then; of a busy one its run knows.
func (p *pool) mourn(c *container) {
	select {
	case <-c.removed:
		return
	case <-c.conn.Dead():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.state == stateIdle {
		p.takeOff(c)
		p.remove(c)
		p.schedule()
	}
}

func (p *pool) putOn(c *container) {
	c.state, c.idleSince = stateIdle, time.Now()
	c.shelf.idle = append(c.shelf.idle, c)
}

func (p *pool) takeOff(c *container) {
	if i := slices.Index(c.shelf.idle, c); i >= 0 {
		c.shelf.idle = slices.Delete(c.shelf.idle, i, i+1)
	}
}

// release gives a busy container back. It is removed where it is retired or its revision asks for fresh ones, used
// or not: what was taken is never given to another.
func (p *pool) release(c *container, retire bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := c.shelf
	s.busy--
	p.ledger.cpu -= s.milli
	select {
	case <-c.conn.Dead():
		retire = true
	default:
	}
	if retire || p.closed || s.fresh() {
		p.remove(c)
	} else {
		p.putOn(c)
	}
	if len(p.waiters) > 0 || s.rev.Spec.Warm > 0 || s.fresh() {
		p.schedule()
	}
}

// remove ends a container in the background; its memory counts until it is gone. The caller holds the lock and has
// taken it off its shelf.
func (p *pool) remove(c *container) {
	c.state = stateRemoved
	p.ledger.leave(c.shelf.memory)
	p.wg.Go(func() {
		c.end()
		p.removes <- struct{}{}
		err := c.remove(p.after)
		<-p.removes
		if err != nil {
			p.log.Warn("a container could not be removed, the sweep will try again", "container", c.id, "error", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.all, c)
		p.ledger.left(c.shelf.memory)
		p.prune(c.shelf)
		p.schedule()
	})
}

// prune forgets a shelf that nothing stands on and that keeps no stock.
func (p *pool) prune(s *shelf) {
	if !s.empty() || p.stock(s) > 0 || p.shelves[s.key] != s {
		return
	}
	delete(p.shelves, s.key)
	if f := [2]string{s.key.user, s.key.function}; p.current[f] == s {
		delete(p.current, f)
	}
}
