package telemetry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Liveness knows whether the loops of a daemon go on. A loop beats when it begins a round, within the bound, whether what it speaks to
// answers or not: each call that it makes has an end. One that waits for nothing in particular rests meanwhile. It is safe for
// concurrent use.
type Liveness struct {
	bound time.Duration

	mu     sync.Mutex
	beats  map[string]time.Time // of the loops that do not rest
	probes []func(context.Context) error
}

// NewLiveness makes one. bound is how long a round may take.
func NewLiveness(bound time.Duration) *Liveness {
	return &Liveness{bound: bound, beats: map[string]time.Time{}}
}

// Beat says that a loop goes on. With the first beat it is known.
func (l *Liveness) Beat(loop string) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beats[loop] = now
}

// Rest says that a loop has nothing to do, however long, until its next beat.
func (l *Liveness) Rest(loop string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.beats, loop)
}

// Probe adds a question that Check asks each time. It ends with its context.
func (l *Liveness) Probe(ask func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.probes = append(l.probes, ask)
}

// Check returns an error that names the loops that stand still, and what a probe says.
func (l *Liveness) Check(ctx context.Context) error {
	var still []string
	l.mu.Lock()
	for loop, last := range l.beats {
		if since := time.Since(last); since > l.bound {
			still = append(still, fmt.Sprintf("%s for %s", loop, since.Round(time.Second)))
		}
	}
	probes := slices.Clone(l.probes)
	l.mu.Unlock()
	var errs []error
	if len(still) > 0 {
		slices.Sort(still)
		errs = append(errs, fmt.Errorf("loops stand still: %s", strings.Join(still, ", ")))
	}
	for _, ask := range probes {
		errs = append(errs, ask(ctx))
	}
	return errors.Join(errs...)
}
