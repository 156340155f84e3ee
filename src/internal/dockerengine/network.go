package dockerengine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"

	"faena.dev/faena/internal/faena"
)

// DefaultNetwork is the bridge that all functions with a network share.
const DefaultNetwork = "faena"

// Options of the engine's bridge driver.
const (
	optionICC    = "com.docker.network.bridge.enable_icc" // traffic between containers
	optionBridge = "com.docker.network.bridge.name"
)

// EnsureNetwork makes the shared bridge without traffic between its containers, where it does not exist yet, and returns the
// network's id. A container that joins it by that id cannot be on another one, whoever makes networks meanwhile. One bridge serves
// all, because a network per function exhausts the engine's address pool at about 30.
//
// The engine lets several networks have one name where they are made at the same time, and then starts no container on any of them.
// Faena's is the one with its bridge, of which the engine allows no two. Any other of that name is KindConflict, also beside Faena's:
// it is not ours to change. Several workers may call it at once: who is refused for the bridge's name takes what the other made.
func (e *Engine) EnsureNetwork(ctx context.Context, name string) (id string, err error) {
	ctx, done := e.deadline(ctx, e.timeouts.Create)
	defer done()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if id, err = e.findNetwork(ctx, name); err != nil || id != "" {
			return id, err
		}
		made, err := e.client.NetworkCreate(ctx, name, network.CreateOptions{Driver: "bridge",
			Options: map[string]string{optionICC: "false", optionBridge: BridgeName(name)}, Labels: map[string]string{"faena.network": name}})
		if err == nil || !(errdefs.IsConflict(err) || strings.Contains(err.Error(), "same bridge name")) {
			return made.ID, withoutPool(e.failed(ctx, "make network "+name, err))
		}
		select {
		case <-ctx.Done():
			return "", e.failed(ctx, "make network "+name, err)
		case <-tick.C:
		}
	}
}

// withoutPool adds to the error of an engine that has no addresses left for a network what to do.
func withoutPool(err error) error {
	if err == nil || !strings.Contains(err.Error(), "address pool") { // "all predefined address pools have been fully subnetted", in 20.10 other words
		return err
	}
	return fmt.Errorf(`%w: remove networks that nothing needs (docker network prune), or let "default-address-pools" in /etc/docker/daemon.json have more`, err)
}

// findNetwork returns the id of Faena's network of that name, "" where nothing has the name.
func (e *Engine) findNetwork(ctx context.Context, name string) (id string, err error) {
	list, err := e.client.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", name))})
	if err != nil {
		return "", e.failed(ctx, "find network "+name, err)
	}
	for _, n := range list {
		switch {
		case n.Name != name: // the filter also takes a part of a name
		case isolated(n) != nil:
			return "", isolated(n)
		default:
			id = n.ID
		}
	}
	return id, nil
}

// BridgeName is the interface, on the engine's host, of the network that EnsureNetwork makes. Linux allows 15 bytes.
func BridgeName(network string) string {
	sum := sha256.Sum256([]byte(network))
	return "faena-" + hex.EncodeToString(sum[:4])
}

// isolated checks that a network that was there before is the one that EnsureNetwork would make, but for its addresses. The name of
// its bridge counts too: packet rules go by it.
func isolated(n network.Summary) error {
	if n.Driver == "bridge" && n.Options[optionICC] == "false" && n.Options[optionBridge] == BridgeName(n.Name) {
		return nil
	}
	return &faena.Error{Kind: faena.KindConflict, Reason: "network_conflict", Component: faena.ComponentEngine,
		Message: fmt.Sprintf("The engine has a network %q that is not Faena's: driver %s, options %v. Faena's is a bridge with %s=false and %s=%s. Remove it with `docker network rm %.12s`, or choose another name.",
			n.Name, n.Driver, n.Options, optionICC, optionBridge, BridgeName(n.Name), n.ID)}
}
