package worker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
)

// heartbeats tells every few seconds that this worker is there, well within faena.HeartbeatTTL.
func (w *Worker) heartbeats(ctx context.Context) {
	t := time.NewTicker(w.every.heartbeat)
	defer t.Stop()
	draining := w.draining
	for {
		w.o.Pulse.Beat("heartbeat")
		w.beat(ctx)
		select {
		case <-ctx.Done():
			return
		case <-draining: // is told at once
			draining = nil
		case <-w.news: // likewise
		case <-t.C:
		}
	}
}

// beat publishes one heartbeat. One that fails is a warning: the next follows soon.
func (w *Worker) beat(ctx context.Context) {
	err := once(ctx, func(ctx context.Context) error { return w.o.Bus.Heartbeat(ctx, w.Describe()) })
	if err != nil && ctx.Err() == nil {
		w.log.Warn("no heartbeat could be published", "error", err)
	}
}

// Describe returns what the heartbeat says: what this worker can run and what it is doing.
func (w *Worker) Describe() faena.Worker {
	s := w.pool.stats()
	d := faena.Worker{Schema: faena.SchemaVersion, ID: w.o.ID, Group: w.o.Group, Host: w.o.Host, Version: w.o.Version,
		Places: w.o.Capacity.Places, MemoryBytes: w.o.Capacity.MemoryBytes, MilliCPUs: w.o.Capacity.MilliCPUs,
		Busy: int(w.busy.Load()), Containers: s.Starting + s.Idle + s.Busy, NotReady: w.gate.notReady(), Unfiltered: w.o.Unfiltered,
		StartedAt: w.started, SeenAt: clock.Now(), Draining: w.gate.drains(), Engine: w.advice()}
	if d.Draining { // until somebody ends that; one that is being stopped is away soon, or back
		d.NotReady = "It was drained: faena workers resume " + w.o.ID
	}
	select {
	case <-w.draining:
		d.Draining = true
	default:
	}
	return d
}

// advises asks the engine about its settings, which may change while this worker runs: at the start, and then each minute.
func (w *Worker) advises(ctx context.Context) {
	if w.o.Advise == nil {
		return
	}
	t := time.NewTicker(w.every.advice)
	defer t.Stop()
	for {
		w.askAdvice(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// askAdvice has the next heartbeat, which is at once where something has changed, say what the engine says. An engine that does not
// answer makes the worker not ready, which is told elsewhere; until it does, what it said last stands.
func (w *Worker) askAdvice(ctx context.Context) {
	now, err := w.o.Advise(ctx, w.o.Capacity.Containers)
	if err != nil {
		w.log.Debug("the engine was not asked about its settings", "error", err)
		return
	}
	before := w.engine.Swap(&now)
	if before != nil && before.Version == now.Version && slices.Equal(before.Advice, now.Advice) {
		return
	}
	select {
	case w.news <- struct{}{}:
	default: // one is due already
	}
}

// advice is what the engine has said, and that images must be removed for want of room; nil before it was asked.
func (w *Worker) advice() *faena.Engine {
	said := w.engine.Load()
	if said == nil {
		return nil
	}
	d := &faena.Engine{Version: said.Version, Advice: said.Advice[:min(len(said.Advice), faena.MaxAdvice-1)]}
	if free, total, err := w.o.Disk.Usage(); err == nil && total > 0 && w.o.Disk.full(w.o.Disk.High) {
		d.Advice = append(slices.Clone(d.Advice), fmt.Sprintf("%s=%d", faena.AdviceDiskHigh, (total-free)*100/total))
	}
	return d
}

// Stats returns the containers of the pool by state, for metrics.
func (w *Worker) Stats() PoolStats { return w.pool.stats() }

// leave deletes the heartbeat, so that the APIs know at once. Nothing is lost without: it expires.
func (w *Worker) leave(ctx context.Context) error {
	err := once(ctx, func(ctx context.Context) error { return w.o.Bus.RemoveHeartbeat(ctx, w.o.Group, w.o.ID) })
	if err != nil {
		return fmt.Errorf("delete the heartbeat: %w", err)
	}
	return nil
}
