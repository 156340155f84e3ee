package dockerengine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
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
// network's id. A container that joins it by that id cannot be on another one, whoever makes networks meanwhile. A
// network of that name that is something else is KindConflict: it is not ours to change. One bridge serves all,
// because a network per function exhausts the engine's address pool at about 30.
//
// Several workers may call it at once. The engine would then make several networks of one name, none of which can be
// used by that name, but never two with the same bridge: so who is refused for the bridge's name waits for the other.
func (e *Engine) EnsureNetwork(ctx context.Context, name string) (id string, err error) {
	ctx, done := e.deadline(ctx, e.timeouts.Create)
	defer done()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := e.client.NetworkInspect(ctx, name, network.InspectOptions{})
		if err == nil {
			return found.ID, isolated(found)
		}
		var made network.CreateResponse
		if errdefs.IsNotFound(err) {
			made, err = e.client.NetworkCreate(ctx, name, network.CreateOptions{Driver: "bridge",
				Options: map[string]string{optionICC: "false", optionBridge: BridgeName(name)}, Labels: map[string]string{"faena.network": name}})
		}
		if err == nil || !(errdefs.IsConflict(err) || strings.Contains(err.Error(), "same bridge name")) {
			return made.ID, e.failed(ctx, "make network "+name, err)
		}
		select {
		case <-ctx.Done():
			return "", e.failed(ctx, "make network "+name, err)
		case <-tick.C:
		}
	}
}

// BridgeName is the interface, on the engine's host, of the network that EnsureNetwork makes. Linux allows 15 bytes.
func BridgeName(network string) string {
	sum := sha256.Sum256([]byte(network))
	return "faena-" + hex.EncodeToString(sum[:4])
}

// isolated checks that a network that was there before is the one that EnsureNetwork would make, but for its addresses. The name of
// its bridge counts too: packet rules go by it.
func isolated(n network.Inspect) error {
	if n.Driver == "bridge" && n.Options[optionICC] == "false" && n.Options[optionBridge] == BridgeName(n.Name) {
		return nil
	}
	return &faena.Error{Kind: faena.KindConflict, Reason: "network_conflict", Component: faena.ComponentEngine,
		Message: fmt.Sprintf("The engine has a network %q that is not Faena's: driver %s, options %v. Faena's is a bridge with %s=false and %s=%s. Remove it with `docker network rm %s`, or choose another name.",
			n.Name, n.Driver, n.Options, optionICC, optionBridge, BridgeName(n.Name), n.Name)}
}
