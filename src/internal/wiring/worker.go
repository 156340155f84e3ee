package wiring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"faena.dev/faena/internal/buildinfo"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/dockerengine"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/registry"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/telemetry"
	"faena.dev/faena/internal/worker"
)

// WorkerOptions are what a worker is put together from.
type WorkerOptions struct {
	DataDir    string
	Pool       config.Pool
	Engine     config.Engine
	Registries registry.Rules
	Bus        *natsbus.Bus
	Identity   seal.Identity
	Metrics    *telemetry.Metrics
	Pulse      worker.Pulse // optional
	Logger     *slog.Logger
}

// Worker is a worker with what it holds open.
type Worker struct {
	*worker.Worker
	engine     *dockerengine.Engine
	guard      *guard
	deliveries *natsbus.Deliveries
	log        *slog.Logger
}

// NewWorker opens the engine, makes the network with its packet rules, and puts a worker together that is not running. The caller closes it
// after Run has returned.
func NewWorker(ctx context.Context, o WorkerOptions) (_ *Worker, err error) {
	if err := checkInit(o.Engine.InitPath); err != nil {
		return nil, err
	}
	docker, err := dockerengine.Open(ctx, dockerengine.Options{Host: o.Engine.DockerHost, Logger: o.Logger})
	if err != nil {
		return nil, fmt.Errorf("open the Docker Engine, which FAENA_DOCKER_HOST or DOCKER_HOST names: %w", err)
	}
	if err := oldEngine(ctx, docker, o.Engine.DockerHost); err != nil {
		return nil, errors.Join(err, docker.Close())
	}
	w := &Worker{engine: docker, log: o.Logger}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	about, err := docker.Info(ctx)
	if err != nil {
		return nil, err
	}
	if about.Rootless {
		return nil, settingError{fmt.Errorf("the Docker Engine %s is rootless: containers are then in a network that this worker neither sees nor filters. "+
			"Let FAENA_DOCKER_HOST name one that root runs, such as unix:///var/run/docker.sock", docker.Host())}
	}
	if w.guard, err = newGuard(ctx, docker, o); err != nil {
		return nil, err
	}
	if w.deliveries, err = o.Bus.Deliveries(o.Pool.Group); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name this host: %w", err)
	}
	w.Worker, err = worker.New(worker.Options{
		ID: o.Pool.ID, Group: o.Pool.Group, Host: host, Version: buildinfo.Read().Version,
		StateDir: o.DataDir, InitPath: o.Engine.InitPath, Network: o.Engine.Network, CheckNetwork: w.guard.check, Unfiltered: w.guard.unfiltered,
		Advise:   w.advise(o),
		Capacity: worker.Capacity{Places: o.Pool.Places, MemoryBytes: int64(o.Pool.Memory), MilliCPUs: int64(o.Pool.CPUs * 1000), Containers: o.Pool.Containers},
		IdleTTL:  o.Pool.IdleTTL, Starts: o.Pool.Starts, Capabilities: o.Pool.Capabilities,
		Disk: worker.DiskOptions{Path: cmp.Or(o.Pool.DiskPath, about.RootDir), MinFreeBytes: int64(o.Pool.DiskMinFree),
			High: o.Pool.DiskHigh, Low: o.Pool.DiskLow},
		Bus: o.Bus, Deliveries: deliveries{w.deliveries}, Engine: engine{docker, w.guard}, Registries: registry.NewResolver(o.Registries),
		Opener: seal.NewOpener(o.Identity), Observer: o.Metrics, Pulse: o.Pulse, ServerNow: o.Bus.ServerNow, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	o.Metrics.Pool(func() telemetry.PoolStats { return telemetry.PoolStats(w.Stats()) })
	return w, nil
}

// advise asks the engine about its settings. Where Docker Hub is no registry that images may come from, it needs no mirror.
func (w *Worker) advise(o WorkerOptions) func(context.Context, int) (faena.Engine, error) {
	hub := o.Registries.AllowsHub()
	return func(ctx context.Context, containers int) (faena.Engine, error) {
		said, err := w.engine.Advise(ctx, w.guard.join(), containers)
		if !hub {
			said.Advice = slices.DeleteFunc(said.Advice, func(code string) bool { return code == faena.AdviceNoMirror })
		}
		return said, err
	}
}

// checkInit returns a settingError where FAENA_INIT_PATH names no program.
func checkInit(path string) error {
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0) {
		err = fmt.Errorf("%s is no program", path)
	}
	if err != nil {
		return settingError{fmt.Errorf("FAENA_INIT_PATH, the first process of every container: %w", err)}
	}
	return nil
}

// Close lets go of the engine and the queue, and removes the packet rules.
func (w *Worker) Close() {
	if w.deliveries != nil {
		_ = w.deliveries.Close() // the connection that it belongs to is closed next
	}
	if w.guard != nil {
		if err := w.guard.Close(); err != nil {
			w.log.Warn("the packet rules stay until a worker of this name starts", "error", err)
		}
	}
	_ = w.engine.Close() // idle connections only
}

// deliveries are the queue's as a worker wants them.
type deliveries struct{ *natsbus.Deliveries }

// Next implements worker.Deliveries.
func (d deliveries) Next(ctx context.Context) (worker.Delivery, error) {
	m, err := d.Deliveries.Next(ctx)
	if err != nil {
		return worker.Delivery{}, err
	}
	return worker.Delivery{Acker: m, Message: m.Message, Err: m.Err, Sequence: m.Sequence, Redelivered: m.Redelivered,
		Published: m.Published, User: m.User, Slot: m.Slot, ID: m.ID, Raw: m.Raw}, nil
}

// RulesOf are the rules for registries that the settings give.
func RulesOf(c config.Registries) registry.Rules {
	return registry.Rules{Registries: c.Allowed, PrivateNetworks: c.PrivateNetworks, PrivateHosts: c.PrivateHosts, Insecure: c.Insecure}
}
