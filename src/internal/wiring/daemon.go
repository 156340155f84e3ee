package wiring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/systemd"
	"faena.dev/faena/internal/telemetry"
)

// RunAPI is faena-api: one API instance against NATS servers elsewhere. What it stands on may come later: meanwhile only the
// operations listener and the admin socket are there, and the API's own where systemd has passed it: who calls there is told that it
// is starting. It returns when ctx has ended and all calls are answered.
func RunAPI(ctx context.Context, c config.API, log *slog.Logger) (err error) {
	defer sayStopping(ctx, log)()
	d := &apiDaemon{c: c, log: log, metrics: NewMetrics(), start: newStarter(log), live: telemetry.NewLiveness(roundWithin)}
	defer watched(ctx, d.live, log)()
	defer d.start.follow(ctx)()
	defer func() { err = errors.Join(err, d.opened.close()) }()
	if err := d.open(ctx); err != nil {
		return err
	}
	if err := d.connect(ctx); err != nil {
		return unlessStopped(ctx, err)
	}
	return d.serve(ctx)
}

// apiDaemon is a faena-api on its way from settings to serving.
type apiDaemon struct {
	c         config.API
	log       *slog.Logger
	metrics   *telemetry.Metrics
	start     *starter
	live      *telemetry.Liveness
	opened    closers
	identity  seal.Identity
	ids       *seal.IDs
	sockets   *systemd.Sockets
	documents documents
	bus       *natsbus.Bus
	admin     *admin
	door      *door
	serves    bool // the door does, on the socket that was passed
}

// open opens what this host has by itself, and is told at once what of the settings is wrong.
func (d *apiDaemon) open(ctx context.Context) (err error) {
	if err := makeDataDir(d.c.DataDir, 0o700); err != nil {
		return err
	}
	if d.identity, err = identityOf(d.c.SealKeyFile, d.c.DataDir); err != nil {
		return err
	}
	if d.ids, err = seal.NewIDs(d.identity); err != nil {
		return err
	}
	if d.door, err = newDoor(d.c.Serve, starting{d.start}, d.metrics, d.log); err != nil {
		return settingError{err}
	}
	nkey, err := checkNATS(d.c.NATS)
	if err != nil {
		return err
	}
	if d.sockets, err = systemd.TakeSockets(); err != nil {
		return err
	}
	d.opened.add(func() error { _ = d.sockets.Close(); return nil }) // of a start that has failed for another reason
	stop, err := serveOperations(ctx, d.sockets, d.c.Serve.OperationsListen, d.metrics, d.start.Ready, d.live, d.log)
	if err != nil {
		return err
	}
	d.opened.add(stop)
	if d.documents, err = openDocuments(ctx, d.c, d.log); err != nil {
		return err
	}
	d.opened.add(d.documents.Close)
	d.admin = &admin{groups: d.documents.Groups, nkey: nkey, generate: d.c.Serve.Auth == config.AuthLocal, missing: d.start.Ready, log: d.log}
	if stop, err = d.admin.serve(ctx, d.c.AdminSocket); err != nil {
		return err
	}
	d.opened.add(stop)
	return d.openDoor(ctx)
}

// openDoor serves on the socket that systemd has passed, if it has: who connects there is not refused, whatever is missing. Without it
// nothing listens yet, and who is refused tries another API.
func (d *apiDaemon) openDoor(ctx context.Context) error {
	if d.serves = d.sockets.Passed(socketAPI); d.serves {
		listener, err := listen(ctx, d.sockets, socketAPI, d.c.Serve.Listen)
		if err != nil {
			return err
		}
		if elsewhere(d.c.Serve.Listen, listener.Addr()) {
			d.log.Warn("FAENA_LISTEN does not count where systemd opens the socket: systemctl edit faena-api.socket, or remove the setting",
				"listen", string(d.c.Serve.Listen), "socket", listener.Addr().String())
		}
		d.door.serve(listener)
		base := context.WithoutCancel(ctx)
		d.opened.add(func() error { return d.door.close(base) })
	}
	return d.sockets.Close()
}

// elsewhere reports whether somebody has set an address, with another port than that of the socket which is used instead.
func elsewhere(set config.Address, socket net.Addr) bool {
	_, want, _ := net.SplitHostPort(string(set))
	_, port, err := net.SplitHostPort(socket.String())
	return err == nil && set != config.DefaultAPI().Serve.Listen && want != port
}

// connect waits until the document store and the queue are there and as they should be.
func (d *apiDaemon) connect(ctx context.Context) error {
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return d.start.step(ctx, "documents", d.documents.Ping) })
	parts.Go(func() error {
		o := natsbus.Options{Name: "faena-api", Logger: d.log, Made: d.ids.Made, MaxStore: int64(d.c.Storage.MaxStore), GroupStore: int64(d.c.Storage.GroupStore),
			ObjectTTL: d.c.Retention.Age + objectsOutlive}
		err := d.start.step(ctx, "queue", func(ctx context.Context) (err error) {
			d.bus, err = connect(ctx, d.c.NATS, o)
			return err
		})
		if err != nil {
			return err
		}
		return d.start.step(ctx, "queue", d.bus.Declare)
	})
	err := parts.Wait()
	if d.bus != nil {
		d.opened.add(func() error { d.bus.Close(); return nil })
	}
	return err
}

// objectsOutlive is how much longer than its record an object is kept that nobody has removed with it.
const objectsOutlive = 24 * time.Hour

// serve takes calls until ctx ends.
func (d *apiDaemon) serve(ctx context.Context) error {
	defer keepDeclared(ctx, d.bus, d.log)()
	api, err := NewAPI(APIOptions{Serve: d.c.Serve, Limits: d.c.Limits, Registries: RulesOf(d.c.Registries), Retention: d.c.Retention, NewID: d.ids.New, Bus: d.bus,
		Documents: d.documents, Kind: d.documents.kind, Warning: d.documents.warning, Identity: d.identity, Metrics: d.metrics, Pulse: d.live, Logger: d.log, door: d.door})
	if err != nil {
		return err
	}
	var listener net.Listener
	if !d.serves {
		if listener, err = listen(ctx, d.sockets, socketAPI, d.c.Serve.Listen); err != nil {
			return err
		}
	}
	d.admin.takes(api.Control)
	d.admin.backsUp(&backups{control: api.Control, bus: d.bus, documents: d.documents.file, not: d.documents.noBackup, log: d.log})
	taking := make(chan struct{})
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-taking:
			d.start.done(whileServing(ctx, api.Control.Ready))
		case <-running.Done():
		}
	})
	err = closed(api.Run(ctx, listener, taking))
	stop()
	wg.Wait()
	return err
}

// RunWorker is faena-worker: one worker against NATS servers elsewhere. What it stands on may come later: meanwhile only the
// operations listener is there. It returns when ctx has ended and what it ran has ended too, or was killed at the drain limit.
func RunWorker(ctx context.Context, c config.Worker, log *slog.Logger) (err error) {
	defer sayStopping(ctx, log)()
	d := &workerDaemon{c: c, log: log, metrics: NewMetrics(), start: newStarter(log), live: telemetry.NewLiveness(roundWithin)}
	defer watched(ctx, d.live, log)()
	defer d.start.follow(ctx)()
	defer func() { err = errors.Join(err, d.opened.close()) }()
	if err := d.open(ctx); err != nil {
		return err
	}
	if err := d.connect(ctx); err != nil {
		return unlessStopped(ctx, err)
	}
	base := context.WithoutCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.worker.Run(base) }()
	d.start.done(whileServing(ctx, func(context.Context) ([]string, bool) { return d.worker.missing(d.bus) }))
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(base, c.Pool.DrainWithin)
	defer cancel()
	if err := d.worker.Drain(drain); err != nil {
		log.Warn("what still ran was killed", "error", err)
	}
	return <-ended
}

// workerDaemon is a faena-worker on its way from settings to taking activations.
type workerDaemon struct {
	c        config.Worker
	log      *slog.Logger
	metrics  *telemetry.Metrics
	start    *starter
	live     *telemetry.Liveness
	opened   closers
	identity seal.Identity
	bus      *natsbus.Bus
	worker   *Worker
}

// open is apiDaemon.open.
func (d *workerDaemon) open(ctx context.Context) (err error) {
	if err := makeDataDir(d.c.DataDir, 0o711); err != nil { // containers reach their sockets through it
		return err
	}
	if d.identity, err = identityOf(d.c.SealKeyFile, d.c.DataDir); err != nil {
		return err
	}
	if _, err := checkNATS(d.c.NATS); err != nil {
		return err
	}
	if err := checkInit(d.c.Engine.InitPath); err != nil {
		return err
	}
	sockets, err := systemd.TakeSockets()
	if err != nil {
		return err
	}
	stop, err := serveOperations(ctx, sockets, d.c.OperationsListen, d.metrics, d.start.Ready, d.live, d.log)
	if err != nil {
		return errors.Join(err, sockets.Close())
	}
	d.opened.add(stop)
	return sockets.Close()
}

// connect waits until the queue is there, and the engine.
func (d *workerDaemon) connect(ctx context.Context) error {
	group := d.c.Pool.Group
	err := d.start.step(ctx, "queue", func(ctx context.Context) (err error) {
		d.bus, err = connect(ctx, d.c.NATS, natsbus.Options{Name: "faena-worker", Logger: d.log, Group: group})
		return err
	})
	if err != nil {
		return err
	}
	d.opened.add(func() error { d.bus.Close(); return nil })
	if err := d.start.step(ctx, "queue", func(ctx context.Context) error { return queueOf(ctx, d.bus, group) }); err != nil {
		return err
	}
	err = d.start.step(ctx, "worker", func(ctx context.Context) (err error) {
		d.worker, err = NewWorker(ctx, WorkerOptions{DataDir: d.c.DataDir, Pool: d.c.Pool, Engine: d.c.Engine, Registries: RulesOf(d.c.Registries), Bus: d.bus,
			Identity: d.identity, Metrics: d.metrics, Pulse: d.live, Logger: d.log})
		return err
	})
	if err != nil {
		return err
	}
	d.opened.add(func() error { d.worker.Close(); return nil })
	d.live.Probe(func(context.Context) error { d.worker.deliveries.Waiting(); return nil }) // it does not return where they are stuck
	return nil
}

// queueOf returns an error while a group has no queue.
func queueOf(ctx context.Context, bus *natsbus.Bus, group string) error {
	there, err := bus.HasGroup(ctx, group)
	if err == nil && !there {
		err = fmt.Errorf("group %s is not there yet: start a faena-api, and have an admin make the group (PUT /v1/groups/%s)", group, group)
	}
	return err
}

// keepDeclared declares everything once more whenever the connection to NATS has come back, until stop is called: it may be
// to servers that were installed anew.
func keepDeclared(ctx context.Context, bus *natsbus.Bus, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // a daemon that drains needs it too
	back := make(chan struct{}, 1)
	forget := bus.OnReconnect(func() {
		select {
		case back <- struct{}{}:
		default:
		}
	})
	again := newStarter(log)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-back:
			}
			if again.step(ctx, "queue", bus.Declare) == nil {
				tell(log, systemd.Status(takesActivations))
			}
		}
	})
	return func() { forget(); cancel(); wg.Wait() }
}

// missing is the worker's readiness.
func (w *Worker) missing(bus *natsbus.Bus) (missing []string, ready bool) {
	if !bus.Connected() {
		missing = append(missing, "queue: no connection to NATS")
	}
	if d := w.Describe(); d.NotReady != "" {
		missing = append(missing, "worker: "+d.NotReady)
	}
	return missing, len(missing) == 0
}

// Names of the sockets that systemd may pass, and which setting has the address otherwise.
const (
	socketAPI        = "api"
	socketOperations = "operations"
	socketRegistry   = "registry"
)

var addressOf = map[string]string{socketAPI: "FAENA_LISTEN", socketOperations: "FAENA_OPERATIONS_LISTEN", socketRegistry: "FAENA_REGISTRY_LISTEN"}

// whileServing adds to what is missing that the instance is stopping: from then on it takes no calls.
func whileServing(serving context.Context, ready telemetry.Ready) telemetry.Ready {
	return func(ctx context.Context) ([]string, bool) {
		missing, ok := ready(ctx)
		if serving.Err() != nil {
			return append(missing, "it is stopping, and waits for what runs"), false
		}
		return missing, ok
	}
}

func listen(ctx context.Context, sockets *systemd.Sockets, name string, address config.Address) (net.Listener, error) {
	l, err := sockets.Listen(ctx, name, string(address))
	if err != nil {
		return nil, listenError(err, addressOf[name], address)
	}
	return l, nil
}

// serveOperations serves metrics and health on their own listener until stop is called.
func serveOperations(ctx context.Context, sockets *systemd.Sockets, address config.Address, m *telemetry.Metrics, ready telemetry.Ready, live *telemetry.Liveness,
	log *slog.Logger) (stop func() error, err error) {
	listener, err := listen(ctx, sockets, socketOperations, address)
	if err != nil {
		return nil, err
	}
	var ending atomic.Bool
	live.Probe(func(ctx context.Context) error {
		if err := askHealth(ctx, listener.Addr()); !ending.Load() {
			return err
		}
		return nil // the daemon ends
	})
	server := m.Operations(ready, log)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := closed(server.Serve(listener)); err != nil {
			log.Error("the operations listener has failed", "error", err)
		}
	}()
	return func() error {
		ending.Store(true)
		_ = server.Close() // a scrape that is cut off is made again elsewhere
		<-done
		return nil
	}, nil
}

// closers are what was opened, in this order.
type closers []func() error

func (c *closers) add(fn func() error) { *c = append(*c, fn) }

// close closes what was opened last first.
func (c closers) close() (err error) {
	for _, fn := range slices.Backward(c) {
		err = errors.Join(err, fn())
	}
	return err
}

// unlessStopped is the error of a start that has failed; that it was stopped is none.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// sayStopping tells systemd when ctx ends. The function that it returns forgets it, or waits until it has told.
func sayStopping(ctx context.Context, log *slog.Logger) (forget func()) {
	said := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(said)
		tell(log, systemd.Stopping("stopping, and waiting for what runs"))
	})
	return func() {
		if !stop() {
			<-said
		}
	}
}

func tell(log *slog.Logger, err error) {
	if err != nil {
		log.Warn("systemd could not be told", "error", err)
	}
}
