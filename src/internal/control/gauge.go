package control

import (
	"context"
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
	bus      Bus
	groups   []string
	observer Observer
	tally    *tally

	mu      sync.Mutex
	full    map[string]string    // group → which store is over softLimit
	present map[string]time.Time // group → when a worker was last seen
	watches map[*absence]struct{}
	started time.Time
	err     atomic.Pointer[string] // the last look's failure, for readiness
}

func newGauge(bus Bus, groups []string, observer Observer, t *tally) *gauge {
	return &gauge{bus: bus, groups: groups, observer: observer, tally: t, full: make(map[string]string),
		present: make(map[string]time.Time), watches: make(map[*absence]struct{}), started: time.Now()}
}

// run looks once a second until ctx ends. A look that fails leaves the last known values.
func (g *gauge) run(ctx context.Context) error {
	for {
		if err := sleep(ctx, gaugeEvery); err != nil {
			return nil
		}
		err := g.look(ctx)
		if err == nil {
			g.err.Store(nil)
			continue
		}
		text := err.Error()
		g.err.Store(&text)
	}
}

func (g *gauge) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*gaugeEvery)
	defer cancel()
	var live uint64
	for _, group := range g.groups {
		fill, what, records, err := g.bus.Fill(ctx, group)
		if err != nil {
			return fmt.Errorf("look at the storage of group %s: %w", group, err)
		}
		live += records
		g.mu.Lock()
		delete(g.full, group)
		if fill >= softLimit {
			g.full[group] = fmt.Sprintf("%s is %.0f %% full", what, 100*fill)
		}
		g.mu.Unlock()
	}
	g.observer.Drift(g.tally.drift(live))
	workers, err := g.bus.Workers(ctx)
	if err != nil {
		return fmt.Errorf("look at the workers: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range workers {
		g.present[w.Group] = time.Now()
	}
	for a := range g.watches {
		if !g.hasWorker(a.group) {
			select {
			case a.C <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

// hasWorker reports whether the group had a worker lately. The caller holds mu.
func (g *gauge) hasWorker(group string) bool {
	seen := g.present[group]
	if seen.IsZero() {
		seen = g.started
	}
	return time.Since(seen) < noWorkerGrace
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
