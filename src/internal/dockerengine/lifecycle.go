package dockerengine

import (
	"context"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"faena.dev/faena/internal/faena"
)

// Create makes a container, not started, and returns its id. What the engine refuses is start_failed, an image that
// it does not have is KindNotFound.
func (e *Engine) Create(ctx context.Context, c Container) (string, error) {
	if err := c.validate(); err != nil {
		return "", startFailed(err)
	}
	ctx, done := e.deadline(ctx, e.timeouts.Create)
	defer done()
	c.CPUs = min(c.CPUs, float64(e.info.CPUs)) // an engine refuses more than the host has, which is no limit anyway
	made, err := e.client.ContainerCreate(ctx, c.config(), c.hostConfig(e.speaks("1.41")), nil, nil, c.Name)
	if errdefs.IsNotFound(err) {
		return "", &faena.Error{Kind: faena.KindNotFound, Reason: string(faena.ReasonStartFailed), Component: faena.ComponentEngine,
			Message: "The container could not be made: " + bounded(engineWords(err)), Retryable: true, Err: err}
	}
	if err != nil {
		return "", startFailed(e.failed(ctx, "create container", err))
	}
	for _, w := range made.Warnings {
		e.log.WarnContext(ctx, "engine warned of a container", "container_id", made.ID, "warning", w)
	}
	return made.ID, nil
}

// Start starts a container. What the engine refuses is start_failed.
func (e *Engine) Start(ctx context.Context, id string) error {
	ctx, done := e.deadline(ctx, e.timeouts.Start)
	defer done()
	return startFailed(e.failed(ctx, "start container", e.client.ContainerStart(ctx, id, container.StartOptions{})))
}

// Kill ends all processes of a container at once. One that does not run, or is absent, is no error.
func (e *Engine) Kill(ctx context.Context, id string) error {
	ctx, done := e.deadline(ctx, e.timeouts.Remove)
	defer done()
	err := e.client.ContainerKill(ctx, id, "SIGKILL")
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return nil
	}
	return e.failed(ctx, "kill container", err)
}

// Remove kills and removes a container with its anonymous volumes, whatever state it is in, paused included. When it
// returns nil the container is gone; one that is absent is no error.
func (e *Engine) Remove(ctx context.Context, id string) error {
	ctx, done := e.deadline(ctx, e.timeouts.Remove)
	defer done()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := e.client.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err == nil || !removing(err) {
			return e.failed(ctx, "remove container", err)
		}
		select {
		case <-ctx.Done():
			return e.failed(ctx, "remove container", err)
		case <-tick.C:
		}
	}
}

// removing reports whether a removal failed only because something else is ending the container: another removal, or
// the container itself, which the engine then fails to kill and answers 500. It is what a container does whose socket
// its worker has just closed.
func removing(err error) bool {
	return errdefs.IsConflict(err) || strings.Contains(err.Error(), "is not running")
}

// Owned lists the containers that a worker made, in whatever state; an empty worker lists those of all.
func (e *Engine) Owned(ctx context.Context, worker string) ([]OwnedContainer, error) {
	ctx, done := e.deadline(ctx, e.timeouts.Call)
	defer done()
	label := LabelWorker
	if worker != "" {
		label += "=" + worker
	}
	list, err := e.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", label))})
	if err != nil {
		return nil, e.failed(ctx, "list containers", err)
	}
	out := make([]OwnedContainer, 0, len(list))
	for _, s := range list {
		out = append(out, ownedFrom(s))
	}
	return out, nil
}
