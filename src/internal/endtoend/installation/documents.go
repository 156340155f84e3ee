package installation

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
)

// Documents is the document store of an installation.
type Documents interface {
	// Settings are those of the APIs.
	Settings() []string
	// Stop ends it, for its clients, and Start brings it back with all that it had.
	Stop(t testing.TB)
	Start(t testing.TB)
}

// openDocuments uses the MongoDB that FAENA_TEST_MONGODB_URI names, otherwise a FerretDB of the test's own.
func openDocuments(t testing.TB, ca *faenatest.CA, dir string) Documents {
	t.Helper()
	cert := ca.Issue("mongodb")
	if uri := os.Getenv(ferrettest.Variable); uri != "" {
		return relayMongoDB(t, uri, ca, cert, dir)
	}
	return &ferret{ferrettest.Start(t, ferrettest.Options{CertFile: cert.CertFile, KeyFile: cert.KeyFile}), ca}
}

// ferret is FerretDB.
type ferret struct {
	server *ferrettest.Server
	ca     *faenatest.CA
}

func (f *ferret) Settings() []string {
	return []string{"FAENA_MONGODB_URI=" + f.server.URI(), "FAENA_MONGODB_CA_FILE=" + f.ca.File}
}

func (f *ferret) Stop(t testing.TB)  { f.server.Stop(t) }
func (f *ferret) Start(t testing.TB) { f.server.Restart(t) }

// relay is a way to the primary of a MongoDB that goes on by itself: when it is shut the server is away. It speaks TLS to the APIs,
// and to the server what its URI says.
type relay struct {
	network, target string
	theirs          *tls.Config // nil: no TLS
	own             *tls.Config
	env             []string

	mu       sync.Mutex
	address  string
	listener net.Listener // nil while it is shut
	conns    map[net.Conn]bool
	serving  sync.WaitGroup
}

func relayMongoDB(t testing.TB, uri string, ca *faenatest.CA, cert faenatest.Certificate, dir string) Documents {
	t.Helper()
	o := options.Client().ApplyURI(uri)
	c, err := mongo.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Disconnect(context.WithoutCancel(t.Context())) }()
	var hello struct {
		Primary string `bson:"primary"`
	}
	if err := c.Database("admin").RunCommand(t.Context(), bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		t.Fatalf("the MongoDB of %s does not answer: %v", ferrettest.Variable, err)
	}
	r := &relay{network: "tcp", target: o.Hosts[0], theirs: o.TLSConfig, own: &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12},
		address: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	switch {
	case hello.Primary != "":
		r.target = hello.Primary
	case strings.HasPrefix(r.target, "/"):
		r.network = "unix"
	case !strings.Contains(r.target, ":"):
		r.target += ":27017"
	}
	r.Start(t)
	t.Cleanup(func() { r.Stop(t) })
	// Otherwise the driver would go to the address that the server says it has.
	own := "mongodb://" + r.address + "/?directConnection=true"
	r.env = []string{"FAENA_MONGODB_CA_FILE=" + ca.File, "FAENA_MONGODB_DATABASE=" + ferrettest.Database(t, uri)}
	if a := o.Auth; a != nil {
		file := filepath.Join(dir, "mongodb.password")
		if err := os.WriteFile(file, []byte(a.Password), 0o600); err != nil {
			t.Fatal(err)
		}
		r.env = append(r.env, "FAENA_MONGODB_USERNAME="+a.Username, "FAENA_MONGODB_PASSWORD_FILE="+file)
		if a.AuthSource != "" {
			own += "&authSource=" + a.AuthSource
		}
	}
	r.env = append(r.env, "FAENA_MONGODB_URI="+own)
	return r
}

func (r *relay) Settings() []string { return r.env }

func (r *relay) Start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.address, r.listener = l.Addr().String(), l
	r.serving.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			r.serving.Go(func() { r.serve(l, tls.Server(client, r.own)) })
		}
	})
}

func (r *relay) Stop(testing.TB) {
	r.mu.Lock()
	if r.listener != nil {
		_ = r.listener.Close()
	}
	r.listener = nil
	for c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.serving.Wait()
}

func (r *relay) serve(l net.Listener, client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.DialTimeout(r.network, r.target, 10*time.Second)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	if r.theirs != nil {
		config := r.theirs.Clone()
		if host, _, err := net.SplitHostPort(r.target); err == nil && config.ServerName == "" {
			config.ServerName = host
		}
		server = tls.Client(server, config)
	}
	r.mu.Lock()
	if r.listener != l { // it was shut meanwhile
		r.mu.Unlock()
		return
	}
	r.conns[client], r.conns[server] = true, true
	r.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	_, _ = io.Copy(server, client)
	_ = server.Close()
	back.Wait()
	r.mu.Lock()
	delete(r.conns, client)
	delete(r.conns, server)
	r.mu.Unlock()
}
