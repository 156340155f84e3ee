package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/sandbox"
)

const (
	// socketPath is where the worker listens, as the container sees it.
	socketPath = "/.faena/run/" + sandbox.SocketName
	// gcPercent keeps the heap small: what init uses counts as the function's memory. A memory limit would do that too, but
	// one near what the runtime needs by itself makes it collect garbage without end (ADR 5).
	gcPercent = 20
	// threads are started before anything of the function runs, so that a fork bomb cannot keep init from having them.
	threads = 16
	// pieceBytes is how much of an output is read at once.
	pieceBytes = sandbox.MaxPiece
)

// initProcess is the state of the one init of a container.
type initProcess struct {
	sock    int // the connection to the worker
	devNull int
	oom     int // /proc/self/oom_score_adj
	home    string
	self    fingerprint // of init as it was before anything ran
	ipc     ipcTables
	places  []place

	in   []byte // what was read of the socket and is not used yet
	buf  []byte // for reading the socket
	out  []byte // frames to be sent
	read []byte // for reading pipes
}

// prepare makes init what it must be before anything of the function runs, and connects to the worker.
func prepare() (*initProcess, error) {
	debug.SetGCPercent(gcPercent)
	runtime.GOMAXPROCS(1) // one goroutine works; another processor would only look for something to do
	discardSignals()
	startThreads()
	i := &initProcess{buf: make([]byte, 8<<10), out: make([]byte, 0, pieceBytes+1<<10), read: make([]byte, pieceBytes)}
	var err error
	if i.devNull, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	// Before init stops being dumpable, which takes its files in /proc away from it.
	if i.oom, err = unix.Open("/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open oom_score_adj: %w", err)
	}
	if i.self, err = takeFingerprint(); err != nil {
		return nil, err
	}
	i.ipc = openIPC()
	if i.places, err = findPlaces(); err != nil {
		return nil, err
	}
	i.home = homeOf(os.Getuid())
	// A function of the same user can neither trace init nor take its descriptors.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("stop being dumpable: %w", err)
	}
	if i.sock, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.Connect(i.sock, &unix.SockaddrUnix{Name: socketPath}); err != nil {
		return nil, fmt.Errorf("connect to the worker: %w", err)
	}
	return i, nil
}

// discardSignals catches every signal that can be caught and forgets it. Ignoring them would be inherited.
func discardSignals() {
	c := make(chan os.Signal, 16)
	signal.Notify(c)
	signal.Reset(unix.SIGCHLD) // which tells nothing that the pidfd does not, and would wake the runtime for each process
	go func() {                // as long as the process
		for range c { //nolint:revive // drained
		}
	}()
}

// startThreads makes the runtime start its threads now and keep them.
func startThreads() {
	var started, leave sync.WaitGroup
	leave.Add(1)
	for range threads {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			started.Done()
			leave.Wait()
		}()
	}
	started.Wait()
	leave.Done()
}

// homeOf is the home directory of a user in the image's /etc/passwd, or /.
func homeOf(uid int) string {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil || len(passwd) > 1<<20 {
		return "/"
	}
	for line := range strings.SplitSeq(string(passwd), "\n") {
		if f := strings.Split(line, ":"); len(f) >= 6 && f[2] == strconv.Itoa(uid) && path.IsAbs(f[5]) {
			return f[5]
		}
	}
	return "/"
}

// serve greets the worker and runs what it asks for until it closes the connection.
func (i *initProcess) serve() error {
	hello := append(sandbox.AppendHeader(nil, sandbox.FrameHello, 1), sandbox.Version)
	if err := writeAll(i.sock, hello); err != nil {
		return fmt.Errorf("greet the worker: %w", err)
	}
	for {
		kind, payload, err := i.frame(sandbox.MaxStart)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if kind != sandbox.FrameStart {
			return fmt.Errorf("the worker sent a frame %q while nothing runs", kind)
		}
		start, hasStdin, err := sandbox.ParseStart(payload)
		if err != nil {
			return err
		}
		if err := i.runOne(&start, hasStdin); err != nil {
			return err
		}
	}
}

// frame reads one frame, waiting for it. The payload is valid until the next call.
func (i *initProcess) frame(limit int) (kind byte, payload []byte, err error) {
	for {
		kind, payload, ok, err := i.buffered(limit)
		if ok || err != nil {
			return kind, payload, err
		}
		if err := i.receive(); err != nil {
			return 0, nil, err
		}
	}
}

// buffered takes a frame out of what was read already, where a whole one is there.
func (i *initProcess) buffered(limit int) (kind byte, payload []byte, ok bool, err error) {
	if len(i.in) < sandbox.HeaderBytes {
		return 0, nil, false, nil
	}
	kind, n := sandbox.ParseHeader(i.in)
	if n > limit {
		return 0, nil, false, fmt.Errorf("the worker sent a frame %q of %d bytes", kind, n)
	}
	whole := sandbox.HeaderBytes + n
	if len(i.in) < whole {
		return 0, nil, false, nil
	}
	payload = i.in[sandbox.HeaderBytes:whole]
	i.in = i.in[whole:]
	return kind, payload, true, nil
}

// receive waits for bytes from the worker and adds them to what was read.
func (i *initProcess) receive() error {
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(i.sock, i.buf) })
	switch {
	case err != nil:
		return fmt.Errorf("read from the worker: %w", err)
	case n == 0:
		return io.EOF
	}
	// A new slice, never the old memory: payloads that were given out may still be looked at.
	i.in = append(append(make([]byte, 0, len(i.in)+n), i.in...), i.buf[:n]...)
	if len(i.buf) < pieceBytes && n == len(i.buf) {
		i.buf = make([]byte, pieceBytes) // a large input comes: fewer calls
	}
	return nil
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR { //nolint:errorlint // a system call's own
			return n, err
		}
	}
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := ignoringEINTR(func() (int, error) { return unix.Write(fd, p) })
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
