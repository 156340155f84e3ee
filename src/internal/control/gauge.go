package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// gaugeEvery is how often storage and workers are looked at.
	gaugeEvery = time.Second
	// softLimit is how full a store may be before new work is refused: what is accepted must still be settled.
	softLimit = 0.8
)

// gauge knows, at most a second old, whether new work may be taken: how full the stores are and which groups have
// a worker.
type gauge struct {
	bus    Bus
	groups func() []string
	saw    func(context.Context, []faena.Worker) // is told of the workers at each look
	pulse  Pulse

	mu      sync.Mutex
	full    map[string]string   // group → which store is over softLimit
	waiting map[string]float64  // group → how full its backlog is
	places  map[string]int      // of workers that take activations, by group
	seen    map[string]sighting // of workers, by group
	watches map[*absence]struct{}
	started time.Time
	err     atomic.Pointer[string] // the last look's failure, for readiness
}

func newGauge(bus Bus, groups func() []string, saw func(context.Context, []faena.Worker)) *gauge {
	return &gauge{bus: bus, groups: groups, saw: saw, pulse: noPulse{}, full: make(map[string]string), waiting: make(map[string]float64),
		seen: make(map[string]sighting), watches: make(map[*absence]struct{}), started: time.Now()}
}

// sighting is when a group's workers were seen last.
type sighting struct {
	any   time.Time // whatever it said of itself
	ready time.Time // one that takes activations
	why   string    // what one that is not ready says; "" where one is
}

// run looks once a second until ctx ends. A look that fails leaves the last known values.
func (g *gauge) run(ctx context.Context) error {
	for {
		g.pulse.Beat("gauge")
		if err := sleep(ctx, gaugeEvery); err != nil {
			return nil
		}
		_ = g.look(ctx) // the readiness tells
	}
}

// look looks at the workers and at what the groups store, and notes what is wrong. It returns an error where nothing was seen.
func (g *gauge) look(ctx context.Context) error {
	seen, err := g.see(ctx)
	if err == nil {
		g.err.Store(nil)
		return nil
	}
	text := oneLine(err)
	g.err.Store(&text)
	if seen {
		return nil
	}
	return err
}

// see does that. A group that does not answer hides no other.
func (g *gauge) see(ctx context.Context) (seen bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*gaugeEvery)
	defer cancel()
	workers, err := g.bus.Workers(ctx)
	if err != nil {
		return false, fmt.Errorf("look at the workers: %w", err)
	}
	g.seenNow(workers)
	var some atomic.Bool
	groups := g.groups()
	errs := make([]error, len(groups))
	var wg sync.WaitGroup
	for i, group := range groups {
		wg.Go(func() {
			fill, what, _, err := g.bus.Fill(ctx, group)
			if err != nil {
				errs[i] = fmt.Errorf("look at the storage of group %s: %w", group, err)
				return
			}
			some.Store(true)
			g.filled(group, fill, what)
			if fill, err = g.bus.BacklogFill(ctx, group); err != nil {
				errs[i] = fmt.Errorf("look at the backlog of group %s: %w", group, err)
				return
			}
			g.mu.Lock()
			g.waiting[group] = fill
			g.mu.Unlock()
		})
	}
	wg.Wait()
	err = errors.Join(errs...)
	g.saw(ctx, workers) // last: it may have to wait for the store
	return some.Load(), err
}

func (g *gauge) filled(group string, fill float64, what string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.full, group)
	if fill >= softLimit {
		g.full[group] = fmt.Sprintf("%s is %.0f %% full", what, 100*fill)
	}
}

// seenNow notes which workers there are, and tells the calls that wait in a group without one.
func (g *gauge) seenNow(workers []faena.Worker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.places = make(map[string]int)
	for _, w := range workers {
		if w.NotReady == "" && !w.Draining {
			g.places[w.Group] += w.Places
		}
		s := g.seen[w.Group]
		switch s.any = now; {
		case w.NotReady == "":
			s.ready, s.why = now, ""
		case s.ready != now:
			s.why = w.NotReady
		}
		g.seen[w.Group] = s
	}
	for a := range g.watches {
		if has, _ := g.hasWorker(a.group); !has {
			select {
			case a.C <- struct{}{}:
			default:
			}
		}
	}
}

// capacity is how many activations of a group can run at once, by the last look; at least one.
func (g *gauge) capacity(group string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(g.places[group], 1)
}

// hasWorker reports whether the group had a worker lately, and one that was ready not long ago: an engine that restarts
// is back by then. why says what is amiss, also before it counts. The caller holds mu.
func (g *gauge) hasWorker(group string) (has bool, why string) {
	s := g.seen[group]
	if s.any.IsZero() {
		s.any = g.started
	}
	if s.ready.IsZero() {
		s.ready = g.started
	}
	if time.Since(s.any) >= noWorkerGrace {
		return false, "none in group " + group
	}
	if s.why != "" {
		why = "none of group " + group + " is ready: " + s.why
	}
	return time.Since(s.ready) < notReadyGrace, why
}

// forget drops what was seen of a group that was removed.
func (g *gauge) forget(group string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.full, group)
	delete(g.waiting, group)
	delete(g.seen, group)
}

// admits returns the error for new work in a group whose stores are nearly full.
func (g *gauge) admits(group string) error {
	g.mu.Lock()
	what := g.full[group]
	g.mu.Unlock()
	if what == "" {
		return nil
	}
	return faena.Unavailable(faena.ComponentQueue, "storage_nearly_full",
		"New activations are refused until there is room: "+what+".", nil)
}

// admitsWaiting returns the error for new work that has to wait, in a group whose backlog is nearly full: there must be room for the
// retries of what was accepted, whoever has filled it.
func (g *gauge) admitsWaiting(group string) error {
	g.mu.Lock()
	fill := g.waiting[group]
	g.mu.Unlock()
	if fill < softLimit {
		return nil
	}
	return faena.Unavailable(faena.ComponentQueue, "storage_nearly_full",
		fmt.Sprintf("Activations that have to wait are refused until there is room: the backlog of group %s is %.0f %% full.", group, 100*fill), nil)
}

// absence tells a waiting call, on C, that its group has no worker; once a second while that is so.
type absence struct {
	C     chan struct{}
	group string
	g     *gauge
}

func (g *gauge) watch(group string) *absence {
	a := &absence{C: make(chan struct{}, 1), group: group, g: g}
	g.mu.Lock()
	g.watches[a] = struct{}{}
	g.mu.Unlock()
	return a
}

func (a *absence) stop() {
	a.g.mu.Lock()
	delete(a.g.watches, a)
	a.g.mu.Unlock()
}
