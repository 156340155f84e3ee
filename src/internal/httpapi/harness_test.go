package httpapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"faena.dev/faena/internal/auth"
	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/control"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/registry"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/telemetry"
)

const group = faena.DefaultGroup

// within is how long a test waits for what happens at once on a machine that is not busy.
const within = 20 * time.Second

// TestMain lets more tests run at once than there are cores: they wait more than they compute.
func TestMain(m *testing.M) { os.Exit(faenatest.Run(m, 4)) }

// platform is what an API stands on: the real use cases with a NATS server, a document store, passwords and an image
// registry. It has the admin root and the users ann and bob; it has no worker yet.
type platform struct {
	*control.Control
	t     *testing.T
	nats  *natsbus.Server
	bus   *natsbus.Bus
	store *boltstore.Store
	auth  *auth.Local
	image string // in the registry
	log   logBuffer
}

// start starts a platform that is one process, unless change says otherwise.
func start(t *testing.T, change ...func(*control.Options)) *platform {
	t.Helper()
	t.Parallel()
	p := &platform{t: t}
	var err error
	p.nats, err = natsbus.StartServer(natsbus.ServerOptions{Dir: t.TempDir(), MaxStore: 512 << 20})
	noError(t, err)
	t.Cleanup(p.nats.Shutdown)
	p.bus = p.connect()
	faenatest.EventuallyNil(t, within, "the streams are declared", func() error { return p.bus.Declare(t.Context()) })
	p.store, err = boltstore.Open(filepath.Join(t.TempDir(), "faena.db"), boltstore.Options{})
	noError(t, err)
	t.Cleanup(func() { _ = p.store.Close() }) // a test may have closed it
	address := faenatest.Registry(t, faenatest.RegistryOptions{})
	p.image = faenatest.Push(t, address, "team/tool", faenatest.Image(t, faenatest.ImageSpec{Bare: true, Entrypoint: []string{"/tool"}}), nil)
	identity, err := seal.LoadOrCreate(filepath.Join(t.TempDir(), "key"))
	noError(t, err)
	sealer, err := seal.NewSealer(identity.Recipient())
	noError(t, err)
	logger := slog.New(slog.NewJSONHandler(&p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p.auth = auth.NewLocal(func(ctx context.Context, name string) (faena.User, error) { return p.Profile(ctx, name) }, logger)
	rules := registry.Rules{PrivateNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	o := control.Options{Instance: "test", Bus: p.bus, Documents: p.store, Resolver: registry.NewResolver(rules), Sealer: sealer,
		Passwords: p.auth, Observer: telemetry.New(telemetry.Build{}), Logger: logger, Arch: runtime.GOARCH, SingleHost: true,
		Default:           faena.Group{Recipient: identity.Recipient(), ConnectedAt: new(time.Now())},
		MaxParameterBytes: faena.DefaultMaxParameterBytes, AsyncStartWithin: time.Hour}
	for _, c := range change {
		c(&o)
	}
	p.Control = control.New(o)
	for name, role := range map[string]faena.Role{"root": faena.RoleAdmin, "ann": faena.RoleUser, "bob": faena.RoleUser} {
		p.user(name, role, 10)
	}
	p.run()
	return p
}

// connect opens a connection to the NATS server, as a daemon has one.
func (p *platform) connect() *natsbus.Bus {
	p.t.Helper()
	b, err := natsbus.Connect(p.t.Context(), natsbus.Options{Server: p.nats, GroupStore: 256 << 20})
	noError(p.t, err)
	p.t.Cleanup(b.Close)
	return b
}

// run runs the loops of the use cases until the test ends.
func (p *platform) run() {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.t.Context()))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- p.Run(ctx, ready) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Errorf("the use cases ended with %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(within):
		p.t.Fatal("the use cases are not ready")
	}
}

func passwordOf(user string) string { return "a-password-of-" + user }

// user stores a profile. Its hash is a real one, but cheap.
func (p *platform) user(name string, role faena.Role, limit int) {
	p.t.Helper()
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	b64 := base64.RawStdEncoding
	hash := "$argon2id$v=19$m=8,t=1,p=1$" + b64.EncodeToString(salt) + "$" +
		b64.EncodeToString(argon2.IDKey([]byte(passwordOf(name)), salt, 1, 8, 1, 32))
	_, err := p.store.PutUser(p.t.Context(), faena.User{Schema: faena.SchemaVersion, Name: name, Role: role, Groups: map[string]int{group: limit},
		PasswordHash: hash, CreatedAt: time.Now().UTC(), UpdatedAt: time.Now().UTC()})
	noError(p.t, err)
}

// deploy makes a function, or a revision of it, without a request.
func (p *platform) deploy(user, name string, change ...func(*faena.Spec)) faena.Function {
	p.t.Helper()
	spec := faena.Spec{Image: p.image, Input: faena.InputStdin}
	for _, c := range change {
		c(&spec)
	}
	f, _, _, _, err := p.Deploy(p.t.Context(), user, faena.Deployment{Name: name, Spec: spec})
	noError(p.t, err)
	return f
}

// site is an API on a listener of its own.
type site struct {
	*platform
	t        testing.TB
	api      *API
	server   *http.Server
	scheme   string // of its URLs
	address  string
	observer *observer
	client   *http.Client
}

// serve serves an API until the test ends; change may put other parts and shorter times into it before.
func (p *platform) serve(t testing.TB, change ...func(*site)) *site {
	t.Helper()
	s := &site{platform: p, t: t, scheme: "http", observer: &observer{}}
	logger := slog.New(slog.NewJSONHandler(&p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.api = New(Options{Functions: p.Control, Activations: p.Control, DeadLetters: p.Control, Users: p.Control, Groups: p.Control, Diagnoser: p.Control, Workers: p.Control,
		Health: p.Control, Auth: p.auth, Logger: logger, Observer: s.observer})
	s.server = s.api.Server()
	for _, c := range change {
		c(s)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	s.address = listener.Addr().String()
	s.client = &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(listener) }()
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		if err := s.server.Shutdown(ctx); err != nil {
			t.Errorf("the server does not stop: %v", err)
			_ = s.server.Close()
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the server ended with %v", err)
		}
	})
	return s
}

// observer remembers the requests that it was told of.
type observer struct {
	mu   sync.Mutex
	seen []request
}

type request struct {
	method, route string
	status        int
}

func (o *observer) Request(method, route string, status int, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, request{method, route, status})
}

// count is how many such requests were answered.
func (o *observer) count(r request) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, seen := range o.seen {
		if seen == r {
			n++
		}
	}
	return n
}

// logBuffer is what has been logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
