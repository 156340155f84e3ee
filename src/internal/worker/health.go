package worker

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pingTimeout is how long the engine may take to answer. One that hangs is as good as away.
const pingTimeout = 5 * time.Second

// gate stops the places from taking activations while the worker is not ready.
type gate struct {
	mu     sync.Mutex
	reason string             // why it is closed; empty when open
	change chan struct{}      // closed, and replaced, at every change
	open   context.Context    // of those that passed; one for all, so that a warm place pays nothing
	shut   context.CancelFunc // ends open
}

// starting is why a worker is not ready at first.
const starting = "The worker is starting."

func newGate() *gate {
	return &gate{reason: starting, change: make(chan struct{}), shut: func() {}}
}

// set opens the gate for an empty reason, for as long as ctx lasts, and closes it for any other. It reports whether
// that changed anything.
func (g *gate) set(ctx context.Context, reason string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reason == reason {
		return false
	}
	if reason != "" {
		g.shut()
	} else {
		g.open, g.shut = context.WithCancel(ctx)
	}
	g.reason = reason
	close(g.change)
	g.change = make(chan struct{})
	return true
}

func (g *gate) notReady() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

// pass waits until the gate is open. The context that it returns ends when the gate closes or ctx does; ok is false
// when ctx has ended.
func (g *gate) pass(ctx context.Context) (open context.Context, ok bool) {
	for ctx.Err() == nil {
		g.mu.Lock()
		reason, open, change := g.reason, g.open, g.change
		g.mu.Unlock()
		if reason == "" {
			return open, true
		}
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
	return nil, false
}

// health asks the engine and looks at the disk, and opens or closes the gate for claiming.
func (w *Worker) health(ctx, claiming context.Context) {
	t := time.NewTicker(w.every.ping)
	defer t.Stop()
	for {
		w.checkHealth(ctx, claiming)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (w *Worker) checkHealth(ctx, claiming context.Context) {
	reason, before := w.unwell(ctx), w.gate.notReady()
	if ctx.Err() != nil || !w.gate.set(claiming, reason) {
		return
	}
	switch {
	case reason == "":
		w.log.Info("ready for activations")
	case before == "" || before == starting:
		w.log.Warn("not ready for activations", "reason", reason) // once: how much room there is changes all the time
	}
	w.beat(ctx)
}

// unwell says in a sentence why nothing may be claimed, or returns nothing.
func (w *Worker) unwell(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if err := w.o.Engine.Ping(ctx); err != nil {
		return fmt.Sprintf("The container engine does not answer: %v", err)
	}
	if err := w.firstSweep(context.WithoutCancel(ctx)); err != nil {
		return fmt.Sprintf("What an earlier worker left could not be removed: %v", err)
	}
	free, _, err := w.o.Disk.Usage()
	if err != nil {
		return fmt.Sprintf("The disk cannot be looked at: %v", err)
	}
	if free < w.o.Disk.MinFreeBytes {
		return fmt.Sprintf("The disk has %d MiB free, %d MiB are kept for what already runs.", free>>20, w.o.Disk.MinFreeBytes>>20)
	}
	return ""
}
