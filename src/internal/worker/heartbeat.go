package worker

import (
	"context"
	"fmt"
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
		StartedAt: w.started, SeenAt: clock.Now(), Draining: w.gate.drains()}
	select {
	case <-w.draining:
		d.Draining = true
	default:
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
