package natstest

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"faena.dev/faena/internal/faenatest"
)

const (
	// startWithin is how long a server may take to take connections, on a busy machine.
	startWithin = 30 * time.Second
	// settleWithin is how long a cluster may take to choose leaders: 4 to 9 s are the servers' own timeouts.
	settleWithin = 60 * time.Second

	authorizationFile = "authorization.conf"
)

// Options are what servers are started with; the zero value is one for everybody, without TLS.
type Options struct {
	TLS           bool                   // for clients of a single server; a cluster has it always
	CA            *faenatest.CA          // that clients are to trust; default: one of its own
	Certificate   *faenatest.Certificate // that clients are shown; default: one of CA
	Authorization []byte                 // the block of that name, or any other, of the configuration; default: none
	MaxStore      int64                  // of each server, on disk; default 16 GiB, more than what a daemon declares by default
}

// Servers are one server, or a cluster. They are stopped, and their files removed, when the test ends.
type Servers struct {
	CA *faenatest.CA // nil where there is no TLS

	o        Options
	dir      string
	operator nkeys.KeyPair

	mu   sync.Mutex
	each []*server
}

type server struct {
	dir         string
	port, route int
	s           *natsd.Server // nil while it is stopped
	users       int           // how many s was last told of
}

// Start starts one server on 127.0.0.1, with JetStream, and returns when it takes connections.
func Start(t testing.TB, o Options) *Servers {
	t.Helper()
	return start(t, 1, o)
}

// StartCluster starts n servers that form a cluster, with TLS for clients and between each other, and returns when they
// have a leader.
func StartCluster(t testing.TB, n int, o Options) *Servers {
	t.Helper()
	o.TLS = true
	return start(t, n, o)
}

func start(t testing.TB, n int, o Options) *Servers {
	t.Helper()
	o.MaxStore = cmp.Or(o.MaxStore, 16<<30)
	c := &Servers{o: o, dir: t.TempDir()}
	var err error
	if c.operator, err = nkeys.CreateUser(); err != nil {
		t.Fatal(err)
	}
	if o.TLS {
		c.secure(t)
	}
	ports := faenatest.Ports(t, 2*n)
	for i := range n {
		c.each = append(c.each, &server{dir: filepath.Join(c.dir, c.name(i)), port: ports[2*i], route: ports[2*i+1]})
	}
	if err := os.WriteFile(filepath.Join(c.dir, authorizationFile), o.Authorization, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := os.WriteFile(c.config(i), []byte(c.configuration(i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(c.StopAll)
	c.StartAll(t)
	return c
}

// secure issues what the configuration names: a certificate for clients, and one for the routes, of an authority of
// their own.
func (c *Servers) secure(t testing.TB) {
	t.Helper()
	if c.CA = c.o.CA; c.CA == nil {
		c.CA = faenatest.NewCA(t)
	}
	if c.o.Certificate == nil {
		cert := c.CA.Issue("nats")
		c.o.Certificate = &cert
	}
}

func (c *Servers) name(i int) string   { return "nats-" + strconv.Itoa(i+1) }
func (c *Servers) config(i int) string { return filepath.Join(c.dir, c.name(i)+".conf") }

// configuration is a server's file, as an operator would write it.
func (c *Servers) configuration(i int) string {
	var b strings.Builder
	me := c.each[i]
	fmt.Fprintf(&b, "server_name: %s\nlisten: \"127.0.0.1:%d\"\n", c.name(i), me.port)
	fmt.Fprintf(&b, "jetstream { store_dir: %q, max_file_store: %d, max_memory_store: %d }\n", me.dir, c.o.MaxStore, 32<<20)
	if c.o.TLS {
		fmt.Fprintf(&b, "tls { cert_file: %q, key_file: %q, timeout: 10 }\n", c.o.Certificate.CertFile, c.o.Certificate.KeyFile)
	}
	if len(c.each) > 1 {
		route := c.CA.Issue("route-" + c.name(i))
		fmt.Fprintf(&b, "cluster {\n  name: test, listen: \"127.0.0.1:%d\"\n", me.route)
		fmt.Fprintf(&b, "  tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true, timeout: 10 }\n  routes: [\n", route.CertFile, route.KeyFile, c.CA.File)
		// A reload sorts the routes while others read them (2.15.2): they are in order.
		for _, port := range c.routes() {
			fmt.Fprintf(&b, "    \"tls://127.0.0.1:%d\"\n", port)
		}
		b.WriteString("  ]\n}\n")
	}
	fmt.Fprintf(&b, "include %q\n", authorizationFile)
	return b.String()
}

// routes are the ports of all servers' routes, in the order of their URLs.
func (c *Servers) routes() (ports []int) {
	for _, s := range c.each {
		ports = append(ports, s.route)
	}
	slices.SortFunc(ports, func(a, b int) int { return strings.Compare(strconv.Itoa(a), strconv.Itoa(b)) })
	return ports
}

// options reads a server's file. Where there are users, one more is added, who may do everything: see Client.
func (c *Servers) options(i int) (*natsd.Options, error) {
	o, err := natsd.ProcessConfigFile(c.config(i))
	if err != nil {
		return nil, err
	}
	o.NoSigs, o.NoLog = true, true
	if len(o.Nkeys)+len(o.Users) == 0 {
		return o, nil
	}
	public, err := c.operator.PublicKey()
	operator := &natsd.NkeyUser{Nkey: public}
	if len(o.Accounts) > 0 {
		operator.Account = slices.MinFunc(o.Accounts, func(a, b *natsd.Account) int { return strings.Compare(a.Name, b.Name) })
	}
	o.Nkeys = append(o.Nkeys, operator)
	return o, err
}

// URLs are of all servers, whether they run or not.
func (c *Servers) URLs() []string {
	scheme := "nats"
	if c.o.TLS {
		scheme = "tls"
	}
	urls := make([]string, len(c.each))
	for i, s := range c.each {
		urls[i] = fmt.Sprintf("%s://127.0.0.1:%d", scheme, s.port)
	}
	return urls
}

// TLS is for a client of the servers; nil where they have none.
func (c *Servers) TLS() *tls.Config {
	if c.CA == nil {
		return nil
	}
	return c.CA.Client()
}

// Size is how many servers there are, whether they run or not.
func (c *Servers) Size() int { return len(c.each) }

// Client is a connection of NATS's own client that may do everything, as an operator's may, in the account whose name comes
// first where the configuration has several. It reconnects for ever.
func (c *Servers) Client(t testing.TB) *nats.Conn {
	t.Helper()
	opts := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond)}
	if c.CA != nil {
		opts = append(opts, nats.Secure(c.TLS()))
	}
	if o, err := c.options(0); err != nil {
		t.Fatal(err)
	} else if len(o.Nkeys) > 0 {
		public, err := c.operator.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, nats.Nkey(public, c.operator.Sign))
	}
	nc, err := nats.Connect(strings.Join(c.URLs(), ","), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// JetStream is what Client sees of JetStream.
func (c *Servers) JetStream(t testing.TB) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(c.Client(t))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// Authorize replaces Options.Authorization while the servers run. Clients that may no longer connect are disconnected. Each
// server is reloaded twice, as operators are told to: what an account imports that is new works from the second time on (2.15.2).
func (c *Servers) Authorize(t testing.TB, block []byte) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.WriteFile(filepath.Join(c.dir, authorizationFile), block, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, s := range c.each {
		for range 2 {
			if s.s == nil {
				continue // it reads the file when it starts
			}
			if err := c.reload(i, s); err != nil {
				t.Fatalf("reload %s: %v", c.name(i), err)
			}
		}
	}
}

// reload makes s read its file again. The server compares the users that it has with the new ones down to their accounts'
// clients, which others write meanwhile (2.15.2), unless their numbers differ: so they do, by one that nobody is.
func (c *Servers) reload(i int, s *server) error {
	o, err := c.options(i)
	if err != nil {
		return err
	}
	if len(o.Nkeys) > 0 && len(o.Nkeys) == s.users {
		nobody, err := nkeys.CreateUser()
		if err != nil {
			return err
		}
		public, err := nobody.PublicKey()
		if err != nil {
			return err
		}
		o.Nkeys = append(o.Nkeys, &natsd.NkeyUser{Nkey: public, Account: o.Nkeys[0].Account})
	}
	s.users = len(o.Nkeys)
	return s.s.ReloadOptions(o)
}

// Stop stops a server, as a restart of its host would: 0 is the first. One that is stopped stays so.
func (c *Servers) Stop(i int) {
	c.mu.Lock()
	s := c.each[i].s
	c.each[i].s = nil
	c.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// StopAll stops all at once.
func (c *Servers) StopAll() {
	var stops sync.WaitGroup
	for i := range c.each {
		stops.Go(func() { c.Stop(i) })
	}
	stops.Wait()
}

// Start starts a stopped server on its port and directory. It does not wait for the others: see Settle.
func (c *Servers) Start(t testing.TB, i int) {
	t.Helper()
	if err := c.run(i); err != nil {
		t.Fatal(err)
	}
}

// Wipe removes what a stopped server has stored, so that it starts as a new one of its name.
func (c *Servers) Wipe(t testing.TB, i int) {
	t.Helper()
	if c.server(i) != nil {
		t.Fatalf("%s runs: stop it first", c.name(i))
	}
	if err := os.RemoveAll(c.each[i].dir); err != nil {
		t.Fatal(err)
	}
}

// StartAll starts all that do not run, and waits until they have settled.
func (c *Servers) StartAll(t testing.TB) {
	t.Helper()
	errs := make([]error, len(c.each))
	var starts sync.WaitGroup
	for i := range c.each {
		starts.Go(func() { errs[i] = c.run(i) })
	}
	starts.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	c.Settle(t)
}

func (c *Servers) run(i int) error {
	if c.server(i) != nil {
		return nil
	}
	o, err := c.options(i)
	if err != nil {
		return fmt.Errorf("configure %s: %w", c.name(i), err)
	}
	s, err := natsd.NewServer(o)
	if err != nil {
		return fmt.Errorf("start %s: %w", c.name(i), err)
	}
	s.Start()
	if !s.ReadyForConnections(startWithin) || !s.JetStreamEnabled() {
		s.Shutdown()
		return fmt.Errorf("start %s: it takes no connections within %v, or has no JetStream", c.name(i), startWithin)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.each[i].s, c.each[i].users = s, len(o.Nkeys)
	return nil
}

// server is nil while it is stopped.
func (c *Servers) server(i int) *natsd.Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.each[i].s
}
