package dockerengine

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
)

// Timeouts bound the calls to the engine. A zero value is the default of that field.
type Timeouts struct {
	Call   time.Duration // questions: ping, info, inspect, list; 10 s
	Create time.Duration // making a container or a network; 30 s
	Start  time.Duration // starting a container; 30 s
	Remove time.Duration // killing or removing a container, removing an image; 30 s
	Pull   time.Duration // a whole pull, or a whole export of an image; 15 min
	Stall  time.Duration // a pull that reports no progress; 2 min
}

func (t Timeouts) withDefaults() Timeouts {
	t.Call = cmp.Or(t.Call, 10*time.Second)
	t.Create = cmp.Or(t.Create, 30*time.Second)
	t.Start = cmp.Or(t.Start, 30*time.Second)
	t.Remove = cmp.Or(t.Remove, 30*time.Second)
	t.Pull = cmp.Or(t.Pull, 15*time.Minute)
	t.Stall = cmp.Or(t.Stall, 2*time.Minute)
	return t
}

// Options say which engine to open and how patient to be with it.
type Options struct {
	Host     string // "unix:///var/run/docker.sock"; empty is DOCKER_HOST or the default socket
	Logger   *slog.Logger
	Timeouts Timeouts
}

// Engine is a connection to one Docker Engine. It is safe for concurrent use.
type Engine struct {
	client   *client.Client
	log      *slog.Logger
	timeouts Timeouts
	info     Info
	proc     string // where /proc is; another place in tests
}

// Info is what is known of an engine and its host. It does not change while the engine is open.
type Info struct {
	Version       string // of the engine
	APIVersion    string // that was negotiated
	CgroupVersion int    // 1 or 2
	CPUs          int
	MemoryBytes   int64
	RootDir       string // where the engine keeps images and containers, on its own host
	Arch          string // in Go's words: amd64, arm64
	Rootless      bool   // it runs as an ordinary user, with a network namespace of its own
}

// Open connects to an engine, negotiates the version of its API, and asks it once about itself. An engine that does
// not answer is KindUnavailable.
func Open(ctx context.Context, o Options) (*Engine, error) {
	opts := []client.Opt{client.WithAPIVersionNegotiation()}
	if o.Host != "" {
		opts = append(opts, client.WithHost(o.Host))
	} else {
		opts = append(opts, client.FromEnv)
	}
	c, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("open the docker engine: %w", err)
	}
	e := &Engine{client: c, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), timeouts: o.Timeouts.withDefaults(), proc: "/proc"}
	if e.info, err = e.ask(ctx); err != nil {
		_ = c.Close() // the first error is the one that counts
		return nil, err
	}
	return e, nil
}

// Host is where the engine answers, in the words of Options.Host.
func (e *Engine) Host() string { return e.client.DaemonHost() }

// Close lets go of the connections. Containers are not touched.
func (e *Engine) Close() error { return e.client.Close() }

// Ping reports whether the engine answers.
func (e *Engine) Ping(ctx context.Context) error {
	ctx, done := e.deadline(ctx, e.timeouts.Call)
	defer done()
	_, err := e.client.Ping(ctx)
	return e.failed(ctx, "ping the engine", err)
}

// Info returns what the engine said about itself when it was opened.
func (e *Engine) Info(context.Context) (Info, error) { return e.info, nil }

func (e *Engine) ask(ctx context.Context) (Info, error) {
	ctx, done := e.deadline(ctx, e.timeouts.Call)
	defer done()
	version, err := e.client.ServerVersion(ctx)
	if err != nil {
		return Info{}, e.failed(ctx, "ask the engine for its version", err)
	}
	about, err := e.client.Info(ctx)
	if err != nil {
		return Info{}, e.failed(ctx, "ask the engine about its host", err)
	}
	return Info{Version: version.Version, APIVersion: e.client.ClientVersion(), CgroupVersion: cgroupVersion(about),
		CPUs: about.NCPU, MemoryBytes: about.MemTotal, RootDir: about.DockerRootDir, Arch: version.Arch,
		Rootless: slices.Contains(about.SecurityOptions, "name=rootless")}, nil
}

// cgroupVersion is 1 for engines that are too old to say (before API 1.41).
func cgroupVersion(about system.Info) int {
	if v, err := strconv.Atoi(about.CgroupVersion); err == nil {
		return v
	}
	return 1
}

// speaks reports whether the negotiated API is at least version v.
func (e *Engine) speaks(v string) bool {
	return versions.GreaterThanOrEqualTo(e.client.ClientVersion(), v)
}

// local reports whether the engine's file system is this process's too.
func (e *Engine) local() bool {
	u, err := client.ParseHostURL(e.client.DaemonHost())
	if err != nil || u.Scheme != "unix" {
		return false
	}
	_, err = os.Stat(e.info.RootDir)
	return err == nil
}
