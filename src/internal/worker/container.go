package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
	"faena.dev/faena/internal/sandbox"
)

const (
	createTimeout = 20 * time.Second
	startTimeout  = 30 * time.Second
	readyTimeout  = 10 * time.Second
)

type containerState int

const (
	stateIdle containerState = iota
	stateBusy
	stateRemoved
)

// process is the connection to a container's init.
type process interface {
	// Run runs one process to its end. When ctx ends, or out returns an error, it returns that; the container is of no
	// use then.
	Run(ctx context.Context, start sandbox.Start, stdin []byte, out func(stream int, p []byte) error) (sandbox.Exit, error)
	// Dead is closed when init is gone.
	Dead() <-chan struct{}
	Close() error
}

// container is one container with its init waiting. The pool's lock guards shelf, state and idleSince; who has taken
// it owns the rest.
type container struct {
	id     string
	conn   process
	cgroup Cgroup
	// dispose removes the container and its files.
	dispose func(ctx context.Context) error
	// starting ends the engine's call that starts the container.
	starting func()

	shelf     *shelf
	state     containerState
	idleSince time.Time

	made    time.Time
	ooms    uint64 // counters of the cgroup, as they were after the last run
	forks   uint64
	endOnce sync.Once
	removed chan struct{} // closed when it is gone
}

// end closes the connection: init kills everything and exits at once, whatever the engine does.
func (c *container) end() { c.endOnce.Do(func() { c.conn.Close() }) }

// remove removes the container from the engine, and its files.
func (c *container) remove(ctx context.Context) error {
	defer close(c.removed)
	c.end()
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	return errors.Join(c.cgroup.Close(), c.dispose(ctx))
}

// engineLauncher makes containers with the engine.
type engineLauncher struct {
	o        Options
	runDir   string
	lockFile string
	images   *imageStore
}

// launch creates and starts a container and waits for the first word of its init. What was made is removed when
// that fails.
func (l *engineLauncher) launch(ctx context.Context, rev *faena.Revision) (*container, error) {
	began := time.Now()
	c, err := l.make(ctx, rev)
	l.o.Observer.Launched(time.Since(began), err)
	return c, err
}

func (l *engineLauncher) make(ctx context.Context, rev *faena.Revision) (_ *container, err error) {
	name := shortID()
	dir := filepath.Join(l.runDir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	c := &container{removed: make(chan struct{})}
	c.dispose = func(ctx context.Context) error {
		var err error
		if c.starting != nil {
			c.starting()
		}
		if c.id != "" {
			err = l.o.Engine.Remove(ctx, c.id)
		}
		l.images.touch(rev.Pull)
		return errors.Join(err, os.RemoveAll(dir))
	}
	listener, err := sandbox.Listen(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for init: %w", err), c.dispose(ctx))
	}
	defer listener.Close()
	if err = l.start(ctx, c, l.spec(rev, name, dir), listener); err != nil {
		if c.conn != nil {
			c.end()
		}
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
		defer cancel()
		return nil, errors.Join(err, c.dispose(clean))
	}
	c.made = time.Now()
	return c, nil
}

func (l *engineLauncher) start(ctx context.Context, c *container, spec ContainerSpec, listener *sandbox.Listener) (err error) {
	// A creation that is under way is waited for, even when nobody needs the container any more: the engine would make
	// it without an answer, and nobody would know whom to remove.
	if err = within(context.WithoutCancel(ctx), createTimeout, func(ctx context.Context) (err error) {
		c.id, err = l.o.Engine.Create(ctx, spec)
		return err
	}); err != nil {
		return fmt.Errorf("create a container: %w", err)
	}
	failpoint.Hit("worker/container-created")
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	c.starting = l.startBeside(ctx, c.id, giveUp)
	conn, err := listener.Accept(ctx)
	if err != nil {
		return causeOr(ctx, fmt.Errorf("wait for init: %w", err))
	}
	c.conn = conn
	if err := conn.Ready(ctx); err != nil {
		return causeOr(ctx, fmt.Errorf("greet init: %w", err))
	}
	// Also what keeps it apart from other containers, which is why nothing of the function's may run before.
	if c.cgroup, err = l.o.Engine.Cgroup(c.id, conn.PID()); err != nil {
		return fmt.Errorf("open the container's counters: %w", err)
	}
	return nil
}

// startBeside starts a container in the background: once its init has spoken, what the engine still has to do is not
// waited for. giveUp is called where the start fails, or init says nothing after it. What is returned ends the call and
// waits for it.
func (l *engineLauncher) startBeside(ctx context.Context, id string, giveUp context.CancelCauseFunc) (end func()) {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	done := make(chan struct{})
	go func() { // until end, at the latest
		defer close(done)
		if err := l.o.Engine.Start(call, id); err != nil {
			giveUp(fmt.Errorf("start a container: %w", err))
			if call.Err() == nil { // its init may have spoken before, and then nobody hears of it
				l.o.Logger.Warn("the engine could not start a container", "container", id, "error", err)
			}
			return
		}
		time.AfterFunc(readyTimeout, func() { giveUp(fmt.Errorf("init said nothing for %s", readyTimeout)) })
	}()
	return func() { cancel(); <-done }
}

func (l *engineLauncher) spec(rev *faena.Revision, name, dir string) ContainerSpec {
	s := rev.Spec
	granted := make([]string, 0, len(s.Capabilities))
	for _, c := range s.Capabilities {
		if slices.Contains(l.o.Capabilities, c) {
			granted = append(granted, c)
		}
	}
	return ContainerSpec{
		Name: "faena-" + l.o.ID + "-" + name, Image: rev.Pull, Worker: l.o.ID, LockFile: l.lockFile,
		User: rev.User, Function: rev.Function, Revision: rev.Number,
		InitPath: l.o.InitPath, SocketDir: dir, RunAs: rev.Config.User, WorkingDir: rev.Config.WorkingDir,
		MemoryBytes: s.MemoryBytes, CPUs: s.CPUs, PIDs: s.PIDs, TmpfsBytes: s.TmpfsBytes, Volumes: rev.Config.Volumes,
		WritableRoot: s.WritableRoot, Capabilities: granted, Network: l.o.Network,
	}
}

func within(ctx context.Context, d time.Duration, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return fn(ctx)
}

// shortID names a container on this host: short, since a socket's path must fit into 107 bytes.
func shortID() string {
	var b [5]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
