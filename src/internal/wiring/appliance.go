package wiring

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/buildinfo"
	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/registry"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/systemd"
	"faena.dev/faena/internal/telemetry"
)

// FirstAdmin is the user that an appliance without users begins with.
const FirstAdmin = "admin"

// Appliance is the whole of Faena in one process: NATS, documents, image registry, API and worker.
type Appliance struct {
	c       config.Up
	log     *slog.Logger
	metrics *telemetry.Metrics

	store     *boltstore.Store
	server    *natsbus.Server
	apiBus    *natsbus.Bus
	workerBus *natsbus.Bus
	api       *API
	worker    *Worker
	images    *registry.Loopback

	apiListener, operationsListener, imagesListener net.Listener

	stopAdmin func() error // the admin socket
}

// NewMetrics makes the metrics of a process, with what it was built from.
func NewMetrics() *telemetry.Metrics {
	b := buildinfo.Read()
	return telemetry.New(telemetry.Build{Version: b.Version, Revision: b.Revision, GoVersion: b.GoVersion})
}

// NewAppliance opens everything that stands on the disk and every listener; nothing is taken before Run. Close must be
// called in any case.
func NewAppliance(ctx context.Context, c config.Up, log *slog.Logger) (*Appliance, error) {
	a := &Appliance{c: c, log: log, metrics: NewMetrics()}
	if err := a.open(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Appliance) open(ctx context.Context) (err error) {
	dir := a.c.DataDir
	if err := os.MkdirAll(dir, 0o711); err != nil { // containers reach their sockets through it
		return fmt.Errorf("make the data directory: %w", err)
	}
	// First, since it is locked: a second appliance on the directory ends here.
	if a.store, err = boltstore.Open(filepath.Join(dir, "documents.db"), boltstore.Options{}); err != nil {
		return err
	}
	identity, err := seal.LoadOrCreate(filepath.Join(dir, "seal.key"))
	if err != nil {
		return err
	}
	if a.server, err = natsbus.StartServer(natsbus.ServerOptions{Dir: filepath.Join(dir, "nats"), MaxStore: int64(a.c.Server.MaxStore),
		SyncAlways: a.c.Server.Sync == config.SyncAlways, Logger: a.log}); err != nil {
		return err
	}
	if a.apiBus, err = natsbus.Connect(ctx, natsbus.Options{Name: "faena-api", Server: a.server, Logger: a.log,
		ObjectTTL: a.c.Retention.Age + objectsOutlive}); err != nil {
		return err
	}
	if err := a.apiBus.Declare(ctx); err != nil {
		return err
	}
	if a.workerBus, err = natsbus.Connect(ctx, natsbus.Options{Name: "faena-worker", Server: a.server, Logger: a.log}); err != nil {
		return err
	}
	if err := a.listen(ctx); err != nil {
		return err
	}
	rules := RulesOf(a.c.Registries)
	rules.PrivateHosts = append(rules.PrivateHosts, a.RegistryAddress()) // our own, on loopback
	now := clock.Now()
	if a.api, err = NewAPI(APIOptions{Serve: a.c.Serve, Limits: a.c.Limits, Registries: rules, Retention: a.c.Retention,
		Default: faena.Group{Recipient: identity.Recipient(), ConnectedAt: &now, CreatedAt: now, UpdatedAt: now}, SingleHost: true,
		Bus: a.apiBus, Documents: a.store, Kind: "bbolt", Identity: identity, Metrics: a.metrics, Logger: a.log}); err != nil {
		return err
	}
	root := &admin{groups: a.store.Groups, generate: a.api.Local != nil, missing: a.api.Control.Ready, log: a.log}
	root.takes(a.api.Control)
	root.backsUp(&backups{not: notOfUp})
	if a.stopAdmin, err = root.serve(ctx, a.c.AdminSocket); err != nil {
		return err
	}
	if a.api.Local != nil {
		if a.images, err = registry.NewLoopback(ctx, registry.LoopbackOptions{Dir: filepath.Join(dir, "registry"), MinFree: int64(a.c.Worker.DiskMinFree),
			Login: a.login, Known: a.known}); err != nil {
			return err
		}
	}
	a.worker, err = NewWorker(ctx, WorkerOptions{DataDir: filepath.Join(dir, "worker"), Pool: a.c.Worker, Engine: a.c.Engine, Registries: rules,
		Bus: a.workerBus, Identity: identity, Metrics: a.metrics, Logger: a.log})
	return err
}

func (a *Appliance) listen(ctx context.Context) (err error) {
	sockets, err := systemd.TakeSockets()
	if err != nil {
		return err
	}
	for _, l := range []struct {
		name    string
		address config.Address
		to      *net.Listener
	}{{socketAPI, a.c.Serve.Listen, &a.apiListener}, {socketOperations, a.c.Serve.OperationsListen, &a.operationsListener},
		{socketRegistry, a.c.RegistryListen, &a.imagesListener}} {
		if *l.to, err = listen(ctx, sockets, l.name, l.address); err != nil {
			return errors.Join(err, sockets.Close())
		}
	}
	return sockets.Close()
}

func (a *Appliance) login(ctx context.Context, address, user, password string) (faena.User, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	return a.api.Local.Check(ctx, host, user, password)
}

func (a *Appliance) known(ctx context.Context, user string) bool {
	u, err := a.api.Control.Profile(ctx, user)
	return err == nil && !u.Deleted
}

// URL is where the API listens.
func (a *Appliance) URL() string {
	scheme := "http"
	if a.c.Serve.TLS() {
		scheme = "https"
	}
	return scheme + "://" + a.apiListener.Addr().String()
}

// OperationsAddress is where metrics and health are, RegistryAddress where the image registry is.
func (a *Appliance) OperationsAddress() string { return a.operationsListener.Addr().String() }

// RegistryAddress is where the appliance's own image registry listens.
func (a *Appliance) RegistryAddress() string { return a.imagesListener.Addr().String() }

// CreateFirstAdmin makes the first user where there is none, and returns the password that was chosen; "" where there
// were users already. keep is given the password before the user is made, so that no crash leaves an admin whose password
// nobody knows.
func (a *Appliance) CreateFirstAdmin(ctx context.Context, keep func(password string) error) (password string, err error) {
	if a.api.Local == nil {
		return "", nil
	}
	users, err := a.store.Users(ctx, "", 1)
	if err != nil || len(users) > 0 {
		return "", err
	}
	password = strings.ToLower(rand.Text())
	if err := keep(password); err != nil {
		return "", fmt.Errorf("keep the first admin's password: %w", err)
	}
	_, err = a.api.Control.PutUser(ctx, faena.User{Name: FirstAdmin, Role: faena.RoleAdmin, Groups: map[string]int{faena.DefaultGroup: 100}}, password)
	return password, err
}

// Run takes and runs activations until ctx ends or a part fails; then it stops taking calls, lets what runs end within
// the drain limits, and returns. ready is called once, when activations are taken.
func (a *Appliance) Run(ctx context.Context, ready func()) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	part := func(name string, run func() error) <-chan struct{} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			err := run()
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			} else if ctx.Err() == nil {
				err = fmt.Errorf("%s ended by itself", name)
			}
			stop(err)
		}()
		return done
	}
	base := context.WithoutCancel(ctx)
	working := part("worker", func() error { return a.worker.Run(base) })
	operations := a.metrics.Operations(whileServing(ctx, a.api.Control.Ready), a.log)
	images := &http.Server{Handler: a.images, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)}
	if a.images == nil {
		images.Handler = http.NotFoundHandler()
	}
	operating := part("operations listener", func() error { return closed(operations.Serve(a.operationsListener)) })
	giving := part("image registry", func() error { return closed(images.Serve(a.imagesListener)) })
	taking := make(chan struct{})
	serving := part("API", func() error { return closed(a.api.Run(ctx, a.apiListener, taking)) })
	select {
	case <-taking:
		if err := a.watch(ctx); err != nil {
			stop(err)
		}
		ready()
	case <-ctx.Done():
	}
	<-ctx.Done()
	a.say(systemd.Stopping("stopping"))
	<-serving // its calls are answered, or told where to look
	drain, cancel := context.WithTimeout(base, a.c.Worker.DrainWithin)
	defer cancel()
	if err := a.worker.Drain(drain); err != nil {
		a.log.Warn("what still ran was killed", "error", err)
	}
	<-working
	end, cancel := context.WithTimeout(base, 5*time.Second)
	defer cancel()
	err := errors.Join(images.Shutdown(end), operations.Shutdown(end))
	<-operating
	<-giving
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// watch tells systemd that activations are taken, and goes on telling it while the API answers.
func (a *Appliance) watch(ctx context.Context) error {
	a.say(systemd.Ready("takes activations"))
	go func() {
		a.say(systemd.Watchdog(ctx, func(ctx context.Context) error {
			if _, ok := a.api.Control.Ready(ctx); !ok {
				return errors.New("the API is not ready")
			}
			return nil
		}, a.log))
	}()
	return nil
}

func (a *Appliance) say(err error) {
	if err != nil {
		a.log.Warn("systemd could not be told", "error", err)
	}
}

func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close lets go of everything, in the reverse order of opening.
func (a *Appliance) Close() error {
	if a.stopAdmin != nil {
		if err := a.stopAdmin(); err != nil {
			a.log.Warn("the admin socket has failed", "error", err)
		}
	}
	if a.worker != nil {
		a.worker.Close()
	}
	for _, l := range []net.Listener{a.apiListener, a.operationsListener, a.imagesListener} {
		if l != nil {
			_ = l.Close() // the servers have closed them
		}
	}
	for _, b := range []*natsbus.Bus{a.workerBus, a.apiBus} {
		if b != nil {
			b.Close()
		}
	}
	if a.server != nil {
		a.server.Shutdown()
	}
	if a.store != nil {
		return a.store.Close()
	}
	return nil
}
