package wiring

import (
	"context"
	"strconv"

	"faena.dev/faena/internal/dockerengine"
	"faena.dev/faena/internal/worker"
)

// engine is the Docker Engine as a worker wants it.
type engine struct {
	*dockerengine.Engine
	guard *guard
}

var _ worker.Engine = engine{}

// Create implements worker.Containers.
func (e engine) Create(ctx context.Context, s worker.ContainerSpec) (string, error) {
	return e.Engine.Create(ctx, dockerengine.Container{
		Name: s.Name, Image: s.Image,
		Labels: map[string]string{
			dockerengine.LabelWorker: s.Worker, dockerengine.LabelLockFile: s.LockFile, dockerengine.LabelUser: s.User,
			dockerengine.LabelFunction: s.Function, dockerengine.LabelRevision: strconv.Itoa(s.Revision),
		},
		InitPath: s.InitPath, SocketDir: s.SocketDir, User: s.RunAs, WorkingDir: s.WorkingDir,
		MemoryBytes: s.MemoryBytes, CPUs: s.CPUs, PIDs: s.PIDs, TmpfsBytes: s.TmpfsBytes, Volumes: s.Volumes,
		WritableRoot: s.WritableRoot, Capabilities: s.Capabilities, Network: e.guard.join(),
	})
}

// Owned implements worker.Containers: those of every worker.
func (e engine) Owned(ctx context.Context) ([]worker.Owned, error) {
	list, err := e.Engine.Owned(ctx, "")
	if err != nil {
		return nil, err
	}
	out := make([]worker.Owned, 0, len(list))
	for _, c := range list {
		out = append(out, worker.Owned{ID: c.ID, Worker: c.Worker, LockFile: c.LockFile})
	}
	return out, nil
}

// Images implements worker.Images.
func (e engine) Images(ctx context.Context) ([]worker.Image, error) {
	list, err := e.Engine.Images(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]worker.Image, 0, len(list))
	for _, i := range list {
		out = append(out, worker.Image(i))
	}
	return out, nil
}

// Cgroup implements worker.Containers. A worker calls it for every container, when its init has spoken and before anything of the
// function's runs in it, whether the engine has already said that the container is started or not: so this is where it is kept apart
// from the others.
func (e engine) Cgroup(id string, pid int) (worker.Cgroup, error) {
	if err := e.guard.started(); err != nil {
		return nil, err
	}
	c, err := e.Stats(id, pid)
	if err != nil {
		return nil, err // not c, which would be a nil pointer in an interface
	}
	return c, nil
}
