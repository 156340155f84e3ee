package worker

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// sweepTimeout bounds one sweep; removing what a dead worker left takes a while each.
	sweepTimeout = 5 * time.Minute
	// lastSweepFor bounds what a worker that ends does about containers that are left: the engine may be away for good.
	lastSweepFor = 10 * time.Second
)

// sweeper removes containers that nobody owns: those whose worker's lock file is unheld, and those of this worker
// that its pool does not know (the engine made one after its answer was given up). Owned by one goroutine.
type sweeper struct {
	w *Worker
	// unknown are containers of our own that the pool did not know, and since when. One that is just being made is not in
	// the pool yet, so only one that stays unknown for longer than that may take counts.
	unknown map[string]time.Time
}

// sweeps removes orphans every minute, once the first sweep is done.
func (w *Worker) sweeps(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-w.swept:
	}
	s := sweeper{w: w}
	t := time.NewTicker(w.every.sweep)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := s.sweep(ctx, false); err != nil && ctx.Err() == nil {
			w.log.Warn("containers without an owner could not be looked for", "error", err)
		}
	}
}

// firstSweep removes what an earlier life of this worker, or another worker, left. Nothing is claimed before.
func (w *Worker) firstSweep(ctx context.Context) error {
	select {
	case <-w.swept:
		return nil
	default:
	}
	s := sweeper{w: w}
	if err := s.sweep(ctx, true); err != nil {
		return err
	}
	// Nothing of this life has a socket yet: nothing is claimed before.
	if err := clearSockets(filepath.Join(w.o.StateDir, "run")); err != nil {
		return err
	}
	close(w.swept)
	return nil
}

// sweep looks once. With first true every container of this worker is one of an earlier life.
func (s *sweeper) sweep(ctx context.Context, first bool) error {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	w := s.w
	before, starting := w.pool.ids(), w.pool.stats().Starting
	owned, err := w.o.Engine.Owned(ctx)
	if err != nil {
		return err
	}
	starting = max(starting, w.pool.stats().Starting)
	known := w.pool.ids() // after the list: what is made in between is not on the list
	unknown, now := map[string]time.Time{}, time.Now()
	missing := 0
	for id := range before {
		if known[id] && !slices.ContainsFunc(owned, func(c Owned) bool { return c.ID == id }) {
			missing++
		}
	}
	var removing errgroup.Group
	removing.SetLimit(removals)
	for _, c := range owned {
		orphan := false
		switch {
		case c.LockFile != w.owner.path:
			orphan = !alive(c.LockFile)
		case !inPool(known, c.ID):
			since, seen := s.unknown[c.ID]
			if !seen {
				since = now
			}
			unknown[c.ID] = since
			orphan = first || now.Sub(since) >= w.every.launch
		}
		if orphan {
			removing.Go(func() error { s.remove(ctx, c); return nil })
		}
	}
	s.unknown = unknown
	w.o.Observer.Containers(max(0, len(unknown)-starting), missing) // what is just being made is not in the pool yet
	return removing.Wait()
}

func inPool(ids map[string]bool, id string) bool { _, known := ids[id]; return known }

func (s *sweeper) remove(ctx context.Context, c Owned) {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	if err := s.w.o.Engine.Remove(ctx, c.ID); err != nil {
		s.w.log.Warn("a container without an owner could not be removed", "container", c.ID, "owner", c.Worker, "error", err)
		return
	}
	s.w.o.Observer.Removed("orphan")
	s.w.log.Info("a container without an owner was removed", "container", c.ID, "owner", c.Worker)
}

// lastSweep removes what the pool, which is closed, could not: the engine was away just then, or made a container after all. Whatever
// worker of this host comes next removes what stays.
func (w *Worker) lastSweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastSweepFor)
	defer cancel()
	err := retry(ctx, func(ctx context.Context) error {
		owned, err := w.o.Engine.Owned(ctx)
		if err != nil {
			return err
		}
		var removing errgroup.Group
		removing.SetLimit(removals)
		for _, c := range owned {
			if c.LockFile == w.owner.path {
				removing.Go(func() error { return w.o.Engine.Remove(ctx, c.ID) })
			}
		}
		return removing.Wait()
	})
	if err != nil {
		w.log.Warn("containers of this worker may be left; the next one on this host removes them", "error", err)
	}
}

// clearSockets removes the directories that an earlier life of this worker left.
func clearSockets(runDir string) error {
	old, err := os.ReadDir(runDir)
	if err != nil {
		return err
	}
	for _, e := range old {
		if err := os.RemoveAll(filepath.Join(runDir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
