package worker

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pingTimeout is how long the engine may take to answer. One that hangs is as good as away.
const pingTimeout = 5 * time.Second

// gate stops the places from taking activations while the worker is not ready, or drains because it was asked to.
type gate struct {
	mu       sync.Mutex
	reason   string             // why it is not ready; empty when it is
	draining bool               // nothing is taken, and what has not started is handed back
	doubtful bool               // what is taken now would be set aside
	change   chan struct{}      // closed, and replaced, at every change
	open     context.Context    // of those that passed; one for all, so that a warm place pays nothing
	shut     context.CancelFunc // ends open

	claiming context.Context         // of the worker; set by begin
	duty     context.Context         // ends when nothing more is to be started; claiming's child
	dismiss  context.CancelCauseFunc // ends duty
}

// starting is why a worker is not ready at first.
const starting = "The worker is starting."

func newGate(draining bool) *gate {
	return &gate{reason: starting, draining: draining, change: make(chan struct{}), shut: func() {}}
}

// begin lets the gate open for as long as claiming lasts.
func (g *gate) begin(claiming context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.claiming = claiming
	g.duty, g.dismiss = context.WithCancelCause(claiming)
	g.changed()
}

// set says why the worker is not ready; an empty reason says that it is. It reports whether that changed anything.
func (g *gate) set(reason string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reason == reason {
		return false
	}
	g.reason = reason
	g.changed()
	return true
}

// drain begins to drain, or ends it. It reports whether that changed anything.
func (g *gate) drain(yes bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining == yes {
		return false
	}
	g.draining = yes
	if g.claiming != nil {
		if yes {
			g.dismiss(errDrained)
		} else {
			g.duty, g.dismiss = context.WithCancelCause(g.claiming)
		}
		g.changed()
	}
	return true
}

// doubt keeps the places from taking what would be set aside, as long as that is so.
func (g *gate) doubt(yes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.doubtful != yes {
		g.doubtful = yes
		g.changed()
	}
}

// changed opens or closes the gate. The caller holds the lock.
func (g *gate) changed() {
	g.shut()
	if g.passable() {
		g.open, g.shut = context.WithCancel(g.duty)
	}
	close(g.change)
	g.change = make(chan struct{})
}

func (g *gate) passable() bool {
	return g.claiming != nil && g.reason == "" && !g.draining && !g.doubtful
}

// drains reports whether it drains because it was asked to.
func (g *gate) drains() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.draining
}

func (g *gate) notReady() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

// pass waits until the gate is open. Of the contexts that it returns open ends when the gate closes, and duty when nothing more is
// to be started; ok is false when ctx, which is that of begin, has ended.
func (g *gate) pass(ctx context.Context) (open, duty context.Context, ok bool) {
	for ctx.Err() == nil {
		g.mu.Lock()
		passable, open, duty, change := g.passable(), g.open, g.duty, g.change
		g.mu.Unlock()
		if passable {
			return open, duty, true
		}
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
	return nil, nil, false
}

// health asks the engine and looks at the disk, and opens or closes the gate for claiming.
func (w *Worker) health(ctx context.Context) {
	t := time.NewTicker(w.every.ping)
	defer t.Stop()
	for {
		w.checkHealth(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (w *Worker) checkHealth(ctx context.Context) {
	reason, before := w.unwell(ctx), w.gate.notReady()
	if ctx.Err() != nil || !w.gate.set(reason) {
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
		return fmt.Sprintf("The container engine does not answer: %v. On its host systemctl status docker says more.", err)
	}
	if err := w.o.CheckNetwork(ctx); err != nil {
		return fmt.Sprintf("The network of the containers is not as it must be: %v", err)
	}
	if err := w.firstSweep(context.WithoutCancel(ctx)); err != nil {
		return fmt.Sprintf("What an earlier worker left could not be removed: %v", err)
	}
	free, _, err := w.o.Disk.Usage()
	if err != nil {
		return fmt.Sprintf("The disk cannot be looked at: %v", err)
	}
	if free < w.o.Disk.MinFreeBytes {
		return fmt.Sprintf("The disk of %s has %d MiB free, %d MiB are kept for what already runs (FAENA_DISK_MIN_FREE). docker system df shows what takes the room.",
			w.o.Disk.Path, free>>20, w.o.Disk.MinFreeBytes>>20)
	}
	return ""
}
