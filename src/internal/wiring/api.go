package wiring

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"faena.dev/faena/internal/auth"
	"faena.dev/faena/internal/buildinfo"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/control"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/httpapi"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/registry"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/telemetry"
)

// APIOptions are what an API is put together from.
type APIOptions struct {
	Serve      config.Serve
	Limits     config.Limits
	Registries registry.Rules
	Retention  config.Retention
	Default    faena.Group                              // the default group until an admin changes it
	SingleHost bool                                     // the installation is one process
	NewID      func(user, group string) (string, error) // optional; see control.Options
	Bus        *natsbus.Bus
	Documents  faena.Documents
	Kind       string        // of the document store, for people
	Warning    func() string // what an operator should know of the document store; optional
	Identity   seal.Identity // of the APIs
	Metrics    *telemetry.Metrics
	Pulse      control.Pulse // optional
	Logger     *slog.Logger

	door *door // optional: one that may have served already
}

// API is one API instance.
type API struct {
	o       APIOptions
	Control *control.Control
	Local   *auth.Local // nil with auth=gateway
	rest    *httpapi.API
	door    *door
}

// authenticator is what both ways of authentication are.
type authenticator interface {
	httpapi.Authenticator
	control.Passwords
}

// NewAPI puts an API together; nothing runs before Run.
func NewAPI(o APIOptions) (*API, error) {
	sealer, err := seal.NewSealer(o.Identity.Recipient())
	if err != nil {
		return nil, err
	}
	a := &API{o: o, door: o.door}
	// The authenticator looks users up through the use cases, which hash passwords through it.
	profile := func(ctx context.Context, name string) (faena.User, error) { return a.Control.Profile(ctx, name) }
	var who authenticator
	if o.Serve.Auth == config.AuthGateway {
		who = auth.NewGateway(profile, o.Serve.GatewaySAN)
	} else {
		a.Local = auth.NewLocal(profile, o.Logger)
		who = a.Local
	}
	a.Control = control.New(control.Options{
		Instance: o.Serve.Instance, Version: buildinfo.Read().Version, Bus: o.Bus, Health: o.Bus, NewID: o.NewID, Documents: o.Documents, Sealer: sealer,
		Resolver: registry.NewResolver(o.Registries), Passwords: who, Observer: o.Metrics, Pulse: o.Pulse, Logger: o.Logger, Arch: o.Serve.Arch, Default: o.Default, SingleHost: o.SingleHost,
		Retention: o.Retention.Age, RetentionBytes: int64(o.Retention.Bytes), DocumentsKind: o.Kind, DocumentsWarning: o.Warning,
		MaxParameterBytes: int64(o.Limits.MaxParameter), AsyncStartWithin: o.Limits.AsyncStartWithin, BacklogLimit: o.Limits.BacklogLimit, DrainAfter: o.Limits.DrainAfter,
	})
	a.rest = httpapi.New(httpapi.Options{Functions: a.Control, Activations: a.Control, DeadLetters: a.Control, Users: a.Control, Workers: a.Control, Health: a.Control,
		Groups: a.Control, Diagnoser: a.Control,
		Auth: who, Logger: o.Logger, Observer: o.Metrics, MaxParameterBytes: int64(o.Limits.MaxParameter)})
	if a.door == nil {
		if a.door, err = newDoor(o.Serve, a.Control, o.Metrics, o.Logger); err != nil {
			return nil, err
		}
	}
	o.Bus.OnUnreadable(o.Metrics.Unreadable)
	o.Metrics.Queue(func(ctx context.Context) ([]telemetry.QueueStats, error) {
		return queueStats(ctx, o.Bus, a.Control.GroupNames())
	})
	return a, nil
}

func queueStats(ctx context.Context, bus *natsbus.Bus, groups []string) ([]telemetry.QueueStats, error) {
	out := make([]telemetry.QueueStats, 0, len(groups))
	for _, g := range groups {
		fill, _, records, err := bus.Fill(ctx, g)
		if err != nil {
			return nil, err
		}
		depth, err := bus.QueueDepth(ctx, g)
		if err != nil {
			return nil, err
		}
		out = append(out, telemetry.QueueStats{Group: g, Messages: depth, Records: records, Fill: fill})
	}
	return out, nil
}

func serverTLS(s config.Serve) (*tls.Config, error) {
	if !s.TLS() {
		if s.Auth == config.AuthGateway {
			return nil, errors.New("auth=gateway needs a certificate: the gateway is known by its own, on a TLS connection")
		}
		return nil, nil
	}
	cert, err := os.ReadFile(string(s.TLSCertFile))
	if err != nil {
		return nil, fmt.Errorf("read the API's certificate: %w", err)
	}
	if s.Auth == config.AuthLocal {
		return auth.ServerTLS(cert, s.TLSKeyFile.Secret.Reveal())
	}
	ca, err := os.ReadFile(string(s.GatewayCAFile))
	if err != nil {
		return nil, fmt.Errorf("read the gateway's CA: %w", err)
	}
	return auth.GatewayTLS(cert, s.TLSKeyFile.Secret.Reveal(), ca)
}

// Run serves the API on a listener, nil where its door has one, until ctx ends, then drains: calls that still wait after the drain
// limit are answered with where to find their activation. ready is closed when calls are taken.
func (a *API) Run(ctx context.Context, listener net.Listener, ready chan<- struct{}) error {
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	loops := make(chan error, 1)
	looping := make(chan struct{})
	go func() { loops <- a.Control.Run(base, looping) }()
	select {
	case <-looping:
	case <-ctx.Done(): // the queue went away while it started
		stop()
		return errors.Join(<-loops, shut(listener))
	case err := <-loops:
		return errors.Join(err, shut(listener))
	}
	a.door.open(a.rest)
	if listener != nil {
		a.door.serve(listener)
	}
	close(ready)
	var failed error
	select {
	case <-ctx.Done():
		if listener == nil {
			a.door.leave(leaveFor)
		}
	case failed = <-a.door.served:
	case failed = <-loops:
		loops <- nil
	}
	// First no new calls, then the answers, then the loops that they need.
	limit := a.o.Limits.DrainAfter + 10*time.Second - leaveFor
	closing, cancel := context.WithTimeout(base, limit)
	defer cancel()
	drained := make(chan struct{})
	go func() { defer close(drained); a.Control.Drain(closing) }()
	err := a.door.server.Shutdown(closing)
	<-drained
	stop()
	return errors.Join(failed, err, <-loops)
}

func shut(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}
