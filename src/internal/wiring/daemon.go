package wiring

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/systemd"
	"faena.dev/faena/internal/telemetry"
)

// RunAPI is faena-api: one API instance against NATS servers elsewhere. It returns when ctx has ended and all calls are
// answered.
func RunAPI(ctx context.Context, c config.API, log *slog.Logger) (err error) {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	identity, err := identityOf(c.Seal, c.DataDir)
	if err != nil {
		return err
	}
	store, err := boltstore.Open(filepath.Join(c.DataDir, "documents.db"), boltstore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	bus, err := connect(ctx, c.NATS, "faena-api", log)
	if err != nil {
		return err
	}
	defer bus.Close()
	if err := bus.Declare(ctx); err != nil {
		return err
	}
	defer keepDeclared(ctx, bus, log)()
	metrics := NewMetrics()
	api, err := NewAPI(APIOptions{Serve: c.Serve, Limits: c.Limits, Registries: RulesOf(c.Registries),
		Groups: map[string]string{faena.DefaultGroup: identity.Recipient()}, Bus: bus, Documents: store, Identity: identity, Metrics: metrics, Logger: log})
	if err != nil {
		return err
	}
	sockets, err := systemd.TakeSockets()
	if err != nil {
		return err
	}
	listener, err := listen(ctx, sockets, socketAPI, c.Serve.Listen)
	if err != nil {
		return errors.Join(err, sockets.Close())
	}
	stop, err := serveOperations(ctx, sockets, c.Serve.OperationsListen, metrics, whileServing(ctx, api.Control.Ready), log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer stop()
	ready := make(chan struct{})
	go func() {
		select {
		case <-ready:
			tell(log, systemd.Ready("takes activations"))
		case <-ctx.Done():
		}
	}()
	return closed(api.Run(ctx, listener, ready))
}

// RunWorker is faena-worker: one worker against NATS servers elsewhere. It returns when ctx has ended and what it ran has
// ended too, or was killed at the drain limit.
func RunWorker(ctx context.Context, c config.Worker, log *slog.Logger) error {
	if err := os.MkdirAll(c.DataDir, 0o711); err != nil { // containers reach their sockets through it
		return fmt.Errorf("make the data directory: %w", err)
	}
	identity, err := identityOf(c.Seal, c.DataDir)
	if err != nil {
		return err
	}
	bus, err := connect(ctx, c.NATS, "faena-worker", log)
	if err != nil {
		return err
	}
	defer bus.Close()
	metrics := NewMetrics()
	w, err := NewWorker(ctx, WorkerOptions{DataDir: c.DataDir, Pool: c.Pool, Engine: c.Engine, Registries: RulesOf(c.Registries), Bus: bus,
		Identity: identity, Metrics: metrics, Logger: log})
	if err != nil {
		return err
	}
	defer w.Close()
	sockets, err := systemd.TakeSockets()
	if err != nil {
		return err
	}
	stop, err := serveOperations(ctx, sockets, c.OperationsListen, metrics, func(context.Context) ([]string, bool) { return w.missing(bus) }, log)
	if err != nil {
		return err
	}
	defer stop()
	base := context.WithoutCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.Run(base) }()
	tell(log, systemd.Ready("takes activations"))
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	tell(log, systemd.Stopping("draining"))
	drain, cancel := context.WithTimeout(base, c.Pool.DrainWithin)
	defer cancel()
	if err := w.Drain(drain); err != nil {
		log.Warn("what still ran was killed", "error", err)
	}
	return <-done
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
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-back:
			}
			for err := bus.Declare(ctx); err != nil && ctx.Err() == nil; err = bus.Declare(ctx) {
				log.Warn("streams and buckets could not be declared again, next try in a second", "error", err)
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
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
		return nil, fmt.Errorf("%w (%s is %s)", err, addressOf[name], address)
	}
	return l, nil
}

// serveOperations serves metrics and health on their own listener until stop is called.
func serveOperations(ctx context.Context, sockets *systemd.Sockets, address config.Address, m *telemetry.Metrics, ready telemetry.Ready, log *slog.Logger) (stop func(), err error) {
	listener, err := listen(ctx, sockets, socketOperations, address)
	if err = errors.Join(err, sockets.Close()); err != nil {
		return nil, err
	}
	server := m.Operations(ready, log)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := closed(server.Serve(listener)); err != nil {
			log.Error("the operations listener has failed", "error", err)
		}
	}()
	return func() {
		_ = server.Close() // a scrape that is cut off is made again elsewhere
		<-done
	}, nil
}

func tell(log *slog.Logger, err error) {
	if err != nil {
		log.Warn("systemd could not be told", "error", err)
	}
}

func identityOf(c config.Seal, dir string) (seal.Identity, error) {
	if c.KeyFile.Path == "" {
		return seal.LoadOrCreate(filepath.Join(dir, "seal.key"))
	}
	id, err := seal.ParseIdentity(c.KeyFile.Secret.Reveal())
	if err != nil {
		return id, fmt.Errorf("read FAENA_SEAL_KEY_FILE %s: %w", c.KeyFile.Path, err)
	}
	return id, nil
}

// connect connects to the NATS servers of the settings.
func connect(ctx context.Context, c config.NATS, name string, log *slog.Logger) (*natsbus.Bus, error) {
	o := natsbus.Options{Name: name, URLs: c.URLs, Logger: log, Replicas: c.Replicas, NkeySeed: c.NkeyFile.Secret.Reveal()}
	if c.CAFile == "" && c.CertFile == "" {
		return natsbus.Connect(ctx, o)
	}
	o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		ca, err := os.ReadFile(string(c.CAFile))
		if err != nil {
			return nil, fmt.Errorf("read the CA of NATS: %w", err)
		}
		o.TLS.RootCAs = x509.NewCertPool()
		if !o.TLS.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("read the CA of NATS: there is no certificate in %s", c.CAFile)
		}
	}
	if c.CertFile != "" {
		cert, err := os.ReadFile(string(c.CertFile))
		if err != nil {
			return nil, fmt.Errorf("read the certificate for NATS: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, c.KeyFile.Secret.Reveal())
		if err != nil {
			return nil, fmt.Errorf("read the certificate for NATS: %w", err)
		}
		o.TLS.Certificates = []tls.Certificate{pair}
	}
	return natsbus.Connect(ctx, o)
}
