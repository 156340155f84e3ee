package site

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
	"faena.dev/faena/internal/tools/certificates"
)

// Group is the group that the workers are in.
const Group = "default"

// Site is an installation: two APIs, two workers with an engine each, three NATS servers, a document store and an image registry.
type Site struct {
	Image string // of the function, at the registry
	Keys  []byte // of the group, as keygen prints them
	Admin string // the password of the first admin, who is called ops

	harness       *harness
	dir, logs     string
	locked        *os.File
	natsServer    string // the program
	authority     *certificates.Authority
	authorization string
	network       *network
	own           *Cable // this program's
	ports         []int
	registry      string
	documents     *ferrettest.Server
	servers       []*Server
	apis, workers []*Daemon
	bus           *Bus
}

// AdminName is the first admin's.
const AdminName = "ops"

// Start puts the installation together in the order of docs/operations.md; logs is the directory for what its parts say. Close is
// to be called also where it fails.
func Start(ctx context.Context, logs string) (s *Site, err error) {
	s = &Site{harness: &harness{ctx: ctx}}
	if s.logs, err = filepath.Abs(logs); err != nil {
		return s, err
	}
	if err := os.MkdirAll(s.logs, 0o755); err != nil {
		return s, err
	}
	old, err := filepath.Glob(filepath.Join(s.logs, "*.log"))
	if err != nil {
		return s, err
	}
	for _, file := range old { // of another run
		if err := os.Remove(file); err != nil {
			return s, err
		}
	}
	if err := sweep(ctx); err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", prefix); err != nil { // short: sockets are below it
		return s, err
	}
	if err := os.Chmod(s.dir, 0o711); err != nil { // containers reach their sockets through it
		return s, err
	}
	for _, step := range []func(context.Context) error{s.build, s.lay, s.makeKeys, s.startServers, s.startDaemons} {
		if err := step(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *Site) program(name string) string { return filepath.Join(s.dir, "bin", name) }
func (s *Site) keyDir(role string) string  { return filepath.Join(s.dir, "keys-"+role) }

// environ is what every part has: nothing of the caller's settings.
func (s *Site) environ() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}
}

func (s *Site) port() string {
	port := s.ports[0]
	s.ports = s.ports[1:]
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// build builds the programs, with what lets a clock be stepped.
func (s *Site) build(ctx context.Context) error {
	return s.harness.try(func() {
		src := faenatest.SourceDir(s.harness)
		s.natsServer = s.program("nats-server")
		for _, args := range [][]string{
			{"-tags", "failpoints", "-o", filepath.Join(s.dir, "bin") + "/", "./cmd/faena-api", "./cmd/faena-worker", "./cmd/faena-init"},
			{"-o", s.natsServer, "github.com/nats-io/nats-server/v2"},
		} {
			cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-buildvcs=false"}, args...)...)
			cmd.Dir, cmd.Env = src, append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				s.harness.Fatalf("build the programs: %v: %s", err, out)
			}
		}
	})
}

// lay lays what everything stands on: certificates, cables, ports, the registry with the function's image, the document store.
func (s *Site) lay(ctx context.Context) (err error) {
	if s.authority, err = certificates.New(s.dir); err != nil {
		return err
	}
	if s.network, err = newNetwork(ctx, 5); err != nil {
		return err
	}
	if err := s.lock(); err != nil {
		return err
	}
	s.own = s.network.cables[0]
	cert, err := s.authority.Issue("mongodb")
	if err != nil {
		return err
	}
	return s.harness.try(func() {
		s.ports = faenatest.Ports(s.harness, 8)
		s.registry = faenatest.Registry(s.harness, faenatest.RegistryOptions{})
		source := filepath.Join(faenatest.SourceDir(s.harness), "internal", "tools", "chaos", "testdata", "function.c")
		function, err := os.ReadFile(faenatest.CProgram(s.harness, source))
		if err != nil {
			s.harness.Fatal(err)
		}
		s.Image = faenatest.Push(s.harness, s.registry, Repository, faenatest.Image(s.harness, faenatest.ImageSpec{Bare: true, Entrypoint: []string{"/function"},
			Files: []faenatest.File{{Path: "/function", Data: function}}}), nil)
		s.documents = ferrettest.Start(s.harness, ferrettest.Options{CertFile: cert.Cert, KeyFile: cert.Key})
	})
}

// Repository is that of the function's image.
const Repository = "function"

// makeKeys makes the keys of all daemons, and what the NATS servers are told of them.
func (s *Site) makeKeys(ctx context.Context) error {
	public := make(map[string]string)
	for role, program := range map[string]string{"api": "faena-api", "worker": "faena-worker"} {
		text, err := command(ctx, s.environ(), nil, s.program(program), "keygen", "--dir", s.keyDir(role))
		if err != nil {
			return err
		}
		var keys struct{ Nkey string }
		if err := json.Unmarshal([]byte(text), &keys); err != nil {
			return fmt.Errorf("%s keygen prints %q: %w", program, text, err)
		}
		if public[role] = keys.Nkey; role == "worker" {
			s.Keys = []byte(text)
		}
	}
	var err error
	s.authorization, err = command(ctx, s.environ(), nil, s.program("faena-api"), "nats-config", "--api-nkey", public["api"], "--group", Group+"="+public["worker"])
	return err
}

func (s *Site) startServers(ctx context.Context) error {
	for n := range serverCount {
		server, err := s.newServer(n + 1)
		if err != nil {
			return err
		}
		if err := server.Start(); err != nil {
			return err
		}
	}
	for _, server := range s.servers {
		if err := server.await(ctx, server.Healthy); err != nil {
			return err
		}
	}
	var err error
	s.bus, err = s.connect()
	return err
}

// startDaemons starts the APIs, makes the first admin, and starts the workers, which are not ready before their group's keys are
// known.
func (s *Site) startDaemons(ctx context.Context) error {
	for n := range 2 {
		api, err := s.newAPI(n + 1)
		if err != nil {
			return err
		}
		if err := api.Start(); err != nil {
			return err
		}
		// FerretDB, unlike MongoDB, breaks where two APIs make their indexes at once.
		if err := api.await(ctx, api.takesCalls); err != nil {
			return err
		}
	}
	password, err := command(ctx, s.environ(), nil, s.program("faena-api"), "admin", "create", AdminName, "--socket", s.adminSocket(1))
	if err != nil {
		return err
	}
	s.Admin = strings.TrimSpace(password)
	for n := range 2 {
		worker, err := s.newWorker(ctx, n+1)
		if err != nil {
			return err
		}
		if err := worker.Start(); err != nil {
			return err
		}
	}
	return nil
}

// LedgerAddress is where functions reach this program: an address of this host that is nobody else's.
func (s *Site) LedgerAddress() string { return s.own.Near }

// Trust is for clients of the APIs.
func (s *Site) Trust() *tls.Config { return s.authority.Client() }

// APIs, Workers and Servers are the parts, whether they run or not.
func (s *Site) APIs() []*Daemon    { return s.apis }
func (s *Site) Workers() []*Daemon { return s.workers }
func (s *Site) Servers() []*Server { return s.servers }

// Bus is a look into the NATS servers that does not go through Faena.
func (s *Site) Bus() *Bus { return s.bus }

// StopDocuments takes the document store away: killed, or told to stop.
func (s *Site) StopDocuments(kill bool) error {
	return s.harness.try(func() {
		if kill {
			s.documents.Kill(s.harness)
		} else {
			s.documents.Stop(s.harness)
		}
	})
}

// StartDocuments brings it back.
func (s *Site) StartDocuments() error {
	return s.harness.try(func() { s.documents.Restart(s.harness) })
}

// Close ends everything and removes what it has left. ctx may have ended: that is how the caller was told to stop.
func (s *Site) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	var errs []error
	if s.bus != nil {
		s.bus.close()
	}
	for _, d := range append(append([]*Daemon(nil), s.workers...), s.apis...) {
		if d.Process != nil {
			d.discard()
			if d.socket != nil {
				errs = append(errs, d.socket.Close())
			}
		}
		if d.Engine != nil {
			errs = append(errs, d.Engine.close(ctx))
		}
		if d.Disk != nil {
			errs = append(errs, d.Disk.close())
		}
	}
	for _, server := range s.servers {
		if server.Process != nil {
			server.discard()
		}
		errs = append(errs, server.Disk.close())
	}
	errs = append(errs, s.harness.end())
	if s.network != nil {
		errs = append(errs, s.network.close(ctx))
	}
	errs = append(errs, os.RemoveAll(s.dir))
	if s.locked != nil {
		errs = append(errs, s.locked.Close())
	}
	return errors.Join(errs...)
}

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }
