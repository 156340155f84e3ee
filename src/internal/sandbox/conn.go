package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/failpoint"
)

// Listener waits for the init of one container.
type Listener struct{ l *net.UnixListener }

// Listen makes the socket in a directory of that container alone, for whichever user the image has.
func Listen(dir string) (*Listener, error) {
	path := filepath.Join(dir, SocketName)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o777); err != nil { //nolint:gosec // who may reach it is the directory's business
		return nil, errors.Join(err, l.Close())
	}
	return &Listener{l}, nil
}

// Close stops listening and removes the socket.
func (l *Listener) Close() error {
	if err := l.l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Accept takes one connection, until ctx ends, and stops listening: a second one would be the function's own.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	defer context.AfterFunc(ctx, func() { _ = l.l.SetDeadline(time.Unix(1, 0)) })() // makes AcceptUnix return
	c, err := l.l.AcceptUnix()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	if err := l.Close(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	conn := newConn(c)
	if conn.pid, err = peer(c); err != nil {
		return nil, errors.Join(fmt.Errorf("ask who has connected: %w", err), conn.Close())
	}
	return conn, nil
}

// peer is the process at the other end, by its pid here.
func peer(c *net.UnixConn) (pid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var optErr error
	err = raw.Control(func(fd uintptr) { cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, optErr); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// Conn is the connection to a container's init. Run is for one goroutine at a time; the rest is safe for concurrent use.
type Conn struct {
	c     *net.UnixConn
	pid   int
	hello chan struct{} // closed when init is ready
	dead  chan struct{} // closed when the reader has ended
	start []byte        // the last start frame's memory

	mu      sync.Mutex
	current *run  // what runs now
	err     error // why the reader ended
}

// run is one process, from Run to its exit frame.
type run struct {
	out  func(stream int, p []byte) error
	done chan ending // of capacity one
	over atomic.Bool // the process has ended: no more input is needed
}

type ending struct {
	exit Exit
	err  error
}

func newConn(c *net.UnixConn) *Conn {
	conn := &Conn{c: c, hello: make(chan struct{}), dead: make(chan struct{})}
	go conn.read() // ends with the connection; Close and Dead are how its owner waits for it
	return conn
}

// Ready waits for init's hello. A container whose init speaks another version is of no use.
func (c *Conn) Ready(ctx context.Context) error {
	select {
	case <-c.hello:
		return nil
	case <-c.dead:
		return fmt.Errorf("init went away: %w", c.failure())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// PID is init's, as this host counts; 0 where this process cannot see it.
func (c *Conn) PID() int { return c.pid }

// Dead is closed when init is gone, or has broken the protocol.
func (c *Conn) Dead() <-chan struct{} { return c.dead }

// Close ends the connection: init kills everything in its container and exits.
func (c *Conn) Close() error {
	err := c.c.Close()
	<-c.dead
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (c *Conn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Run runs one process to its end. stdin is what it reads; nil is an empty input. out is given what it writes, stream 1
// for stdout and 2 for stderr, in the order of each; p is valid only during the call. When ctx ends, or out returns an
// error, Run returns that at once, the connection is closed and everything in the container is killed.
func (c *Conn) Run(ctx context.Context, start Start, stdin []byte, out func(stream int, p []byte) error) (Exit, error) {
	if err := ctx.Err(); err != nil {
		return Exit{}, err
	}
	b, err := AppendStart(c.start[:0], &start, len(stdin) > 0)
	if err != nil {
		return Exit{StartError: "E2BIG"}, nil
	}
	rest := stdin
	if len(rest) > 0 && len(rest) <= MaxPiece { // goes along
		b = append(AppendHeader(b, FrameStdin, len(rest)), rest...)
		b = AppendHeader(b, FrameEOF, 0)
		rest = nil
	}
	if cap(b) <= 4*MaxPiece {
		c.start = b
	}
	r := &run{out: out, done: make(chan ending, 1)}
	if err := c.begin(r); err != nil {
		return Exit{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.c.Close() })
	defer stop()
	fed := make(chan struct{})
	if _, err := c.c.Write(b); err != nil || len(rest) == 0 {
		close(fed) // what is wrong the reader sees too
	} else {
		go func() { defer close(fed); c.feed(r, rest) }()
	}
	failpoint.Hit("worker/start-sent")
	end := <-r.done
	r.over.Store(true)
	if end.err != nil {
		_ = c.c.Close()
		<-c.dead // nothing is given to out any more
	}
	<-fed
	if end.err != nil && ctx.Err() != nil {
		end.err = ctx.Err()
	}
	return end.exit, end.err
}

func (c *Conn) begin(r *run) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.current != nil {
		return errors.New("a process runs already")
	}
	c.current = r
	return nil
}

// feed sends a large input in pieces, as fast as it is read, and its end. It stops early when the process has ended.
func (c *Conn) feed(r *run, p []byte) {
	var head [HeaderBytes]byte
	for len(p) > 0 && !r.over.Load() {
		n := min(len(p), MaxPiece)
		b := net.Buffers{AppendHeader(head[:0], FrameStdin, n), p[:n]}
		if _, err := b.WriteTo(c.c); err != nil {
			return // the reader sees it too
		}
		p = p[n:]
	}
	_, _ = c.c.Write(AppendHeader(head[:0], FrameEOF, 0)) // the same
}

// read takes frames until the connection ends.
func (c *Conn) read() {
	err := c.frames(bufio.NewReaderSize(c.c, MaxPiece+2*HeaderBytes))
	_ = c.c.Close()
	c.mu.Lock()
	c.err = err
	r := c.current
	c.mu.Unlock()
	if r != nil {
		r.done <- ending{err: err}
	}
	close(c.dead)
}

func (c *Conn) frames(in *bufio.Reader) error {
	if err := c.greet(in); err != nil {
		return err
	}
	for {
		kind, p, err := next(in)
		if err != nil {
			return err
		}
		c.mu.Lock()
		r := c.current
		c.mu.Unlock()
		if r == nil {
			return fmt.Errorf("init sent a frame %q while nothing runs", kind)
		}
		switch kind {
		case FrameStdout:
			err = r.out(1, p)
		case FrameStderr:
			err = r.out(2, p)
		case FrameExit:
			var exit Exit
			if exit, err = ParseExit(p); err == nil {
				c.mu.Lock()
				c.current = nil
				c.mu.Unlock()
				r.done <- ending{exit: exit}
			}
		default:
			err = fmt.Errorf("init sent an unknown frame %q", kind)
		}
		if err != nil {
			return err
		}
		if _, err := in.Discard(len(p)); err != nil {
			return err
		}
	}
}

func (c *Conn) greet(in *bufio.Reader) error {
	kind, p, err := next(in)
	if err != nil {
		return err
	}
	if kind != FrameHello || len(p) != 1 || p[0] != Version {
		return fmt.Errorf("init greets with %q %x, this worker speaks version %d", kind, p, Version)
	}
	close(c.hello)
	_, err = in.Discard(len(p))
	return err
}

// next returns a frame; its payload is still in the reader, which must discard it. Nothing is allocated for it.
func next(in *bufio.Reader) (kind byte, p []byte, err error) {
	head, err := in.Peek(HeaderBytes)
	if err != nil {
		if len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	kind, n := ParseHeader(head)
	limit := MaxPiece
	if kind == FrameExit || kind == FrameHello {
		limit = maxExit
	}
	if n > limit {
		return 0, nil, fmt.Errorf("init sent a frame %q of %d bytes", kind, n)
	}
	if _, err := in.Discard(HeaderBytes); err != nil {
		return 0, nil, err
	}
	p, err = in.Peek(n)
	return kind, p, err
}
