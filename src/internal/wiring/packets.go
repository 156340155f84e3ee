package wiring

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"faena.dev/faena/internal/dockerengine"
	"faena.dev/faena/internal/packets"
)

// guard keeps the packets of a worker's containers where they may go. It is safe for concurrent use.
type guard struct {
	docker     *dockerengine.Engine
	network    string
	rules      *packets.Rules // nil where nothing is filtered
	unfiltered string         // why not; "" where they are

	mu sync.Mutex
	id string // of the network
}

// newGuard makes the network of the containers and puts their packet rules into force. Where that is not possible, and not allowed to
// be missing, it is a settingError. Any other error may pass: nothing runs unfiltered for it.
func newGuard(ctx context.Context, docker *dockerengine.Engine, o WorkerOptions) (*guard, error) {
	g := &guard{docker: docker, network: o.Engine.Network}
	if err := g.ensure(ctx); err != nil {
		return nil, err
	}
	rules := packets.Options{Name: ruleName(o), Bridge: dockerengine.BridgeName(g.network)}
	for _, e := range o.Pool.Allow {
		rules.Allow = append(rules.Allow, packets.Exception(e))
	}
	var err error
	switch g.rules, err = packets.Open(rules); {
	case err == nil:
		return g, nil
	case !errors.Is(err, packets.ErrCannot):
		return nil, fmt.Errorf("filter the packets of functions: %w", err)
	case !o.Pool.AllowUnfiltered:
		return nil, settingError{fmt.Errorf("the packets of functions cannot be filtered, so they would reach this host and all that it reaches: %w. "+
			"If that may be, set FAENA_ALLOW_UNFILTERED=true (faena up --allow-unfiltered)", err)}
	}
	g.unfiltered = err.Error()
	o.Logger.Warn("the packets of functions are not filtered: they reach this host and all that it reaches", "reason", g.unfiltered)
	return g, nil
}

// ruleName names the rules of a worker. Its directory is in it, which it holds locked: several installations may have a worker of one
// name on one host.
func ruleName(o WorkerOptions) string {
	sum := sha256.Sum256([]byte(o.DataDir))
	return o.Pool.ID + "-" + hex.EncodeToString(sum[:4])
}

func (g *guard) ensure(ctx context.Context) error {
	id, err := g.docker.EnsureNetwork(ctx, g.network)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.id = id
	g.mu.Unlock()
	return nil
}

// check puts right what has changed: the network, which somebody may have removed, and the rules.
func (g *guard) check(ctx context.Context) error {
	if err := g.ensure(ctx); err != nil || g.rules == nil {
		return err
	}
	return g.rules.Check()
}

// join is the network that a new container joins. Its id, not its name: one of that name that somebody made meanwhile has another
// bridge, which no rule knows.
func (g *guard) join() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.id
}

// started keeps a container that has just been started, which is on the bridge by then, from the others. Nothing of the function's
// runs in it yet.
func (g *guard) started() error {
	if g.rules == nil {
		return nil
	}
	if err := g.rules.Isolate(); err != nil {
		return fmt.Errorf("keep the container from others: %w", err)
	}
	return nil
}

// Close removes the rules. The containers must be gone.
func (g *guard) Close() error {
	if g.rules == nil {
		return nil
	}
	return g.rules.Close()
}
