package dockerengine

import (
	"context"
	"fmt"
	"maps"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"

	"faena.dev/faena/internal/faena"
)

// DefaultNetwork is the bridge that all functions with a network share.
const DefaultNetwork = "faena"

// optionICC is the bridge driver's switch for traffic between containers.
const optionICC = "com.docker.network.bridge.enable_icc"

// EnsureNetwork makes the shared bridge without traffic between its containers, where it does not exist yet. A
// network of that name that is something else is KindConflict: it is not ours to change. One bridge serves all,
// because a network per function exhausts the engine's address pool at about 30.
func (e *Engine) EnsureNetwork(ctx context.Context, name string) error {
	ctx, done := e.deadline(ctx, e.timeouts.Create)
	defer done()
	found, err := e.client.NetworkInspect(ctx, name, network.InspectOptions{})
	if errdefs.IsNotFound(err) {
		_, err = e.client.NetworkCreate(ctx, name, network.CreateOptions{Driver: "bridge",
			Options: map[string]string{optionICC: "false"}, Labels: map[string]string{"faena.network": name}})
		if err == nil {
			return nil
		}
		if errdefs.IsConflict(err) { // made by another worker meanwhile
			found, err = e.client.NetworkInspect(ctx, name, network.InspectOptions{})
		}
	}
	if err != nil {
		return e.failed(ctx, "make network "+name, err)
	}
	return isolated(found)
}

// isolated checks that a network that was there before is the one that EnsureNetwork would make.
func isolated(n network.Inspect) error {
	if n.Driver == "bridge" && n.Options[optionICC] == "false" {
		return nil
	}
	return &faena.Error{Kind: faena.KindConflict, Reason: "network_conflict", Component: faena.ComponentEngine,
		Message: fmt.Sprintf("The engine has a network %q that is not Faena's: driver %s, options %v. Remove it with `docker network rm %s`, or choose another name.",
			n.Name, n.Driver, maps.Clone(n.Options), n.Name)}
}
