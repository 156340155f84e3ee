package ferrettest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// within is how long a server may take to start or to stop, on a busy machine.
const within = 30 * time.Second

// Options are what a server is started with; the zero value is one without TLS.
type Options struct {
	CertFile, KeyFile string // PEM, shown to clients; "": no TLS
}

// Server is FerretDB with its files. It is stopped, and they are removed, when the test ends.
type Server struct {
	*Relay // what clients connect to

	dir, socket string
	writes      sync.Mutex // held during a command that changes something, see Relay

	mu      sync.Mutex
	process *process // nil while it is stopped
}

// process is a running server.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	words  *strings.Builder // what it has complained of, to be read after it has ended
	ended  chan struct{}
}

// Start starts a server on a port of 127.0.0.1 and returns when it takes connections.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	// The path of a socket has at most 108 bytes, which the directory of a test with a long name may exceed.
	dir, err := os.MkdirTemp("", "ferretdb-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &Server{dir: filepath.Join(dir, "data"), socket: filepath.Join(dir, "socket")}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Relay = newRelay(t, s, o)
	s.Restart(t)
	t.Cleanup(func() { s.end(true) })
	return s
}

// Restart starts a server that was stopped or killed, on the same files and port.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		t.Fatal("FerretDB runs already")
	}
	_ = os.Remove(s.socket) // of one that was killed
	cmd := exec.Command(program(t), s.dir, s.socket)
	p := &process{cmd: cmd, words: &strings.Builder{}, ended: make(chan struct{})}
	cmd.Stderr = p.words
	cmd.Env = append(os.Environ(), "GOGC=800") // it makes a lot of garbage and keeps little
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start FerretDB: %v", err)
	}
	p.stdout = bufio.NewReader(stdout)
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	if err := p.line(); err != nil {
		_ = cmd.Process.Kill()
		<-p.ended
		t.Fatalf("start FerretDB: %v: %s", err, p.words)
	}
	s.process = p
	s.open(t)
}

// line waits for a line of the process.
func (p *process) line() error {
	read := make(chan error, 1)
	go func() {
		_, err := p.stdout.ReadString('\n')
		read <- err
	}()
	select {
	case err := <-read:
		return err
	case <-time.After(within):
		return fmt.Errorf("not within %v", within)
	}
}

// index has the process make indexes of what was created since.
func (s *Server) index() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return errLost
	}
	if _, err := io.WriteString(s.process.stdin, "index\n"); err != nil {
		return err
	}
	return s.process.line()
}

// Stop stops the server in order. Its clients lose their connections, and new ones are refused.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if words := s.end(true); words != "" {
		t.Errorf("FerretDB complains: %s", words)
	}
}

// Kill ends the server's process at once, as kill -9 does.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.end(false)
}

// end ends the process, in order or at once, and returns what it complained of.
func (s *Server) end(inOrder bool) string {
	s.shut()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.process
	if p == nil {
		return ""
	}
	s.process = nil
	if !inOrder {
		_ = p.cmd.Process.Kill()
	}
	_ = p.stdin.Close()
	select {
	case <-p.ended:
	case <-time.After(within):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	return p.words.String()
}

var (
	building sync.Mutex
	built    string
)

// program builds command ferretdb and returns its path.
func program(t testing.TB) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	if built != "" {
		return built
	}
	path := filepath.Join(faenatest.CacheDir(t), "ferretdb")
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }() // which unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatalf("lock %s: %v", lock.Name(), err)
	}
	// The go command links anew only where something has changed, and then replaces the file.
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, ".")
	cmd.Dir = filepath.Join(faenatest.SourceDir(t), "internal", "ferrettest", "ferretdb")
	// FerretDB keeps its documents as JSON, and takes apart whatever a query might match: twice as fast with this decoder.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOEXPERIMENT=jsonv2")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build FerretDB: %v: %s", err, out)
	}
	built = path
	return path
}
