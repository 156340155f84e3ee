package dockerengine

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// open opens the engine of this machine.
func open(t testing.TB) *Engine {
	t.Helper()
	e, err := Open(t.Context(), Options{Host: faenatest.Engine(t).Host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// spec is a container of the agent program for a worker of this test alone, which must leave nothing behind.
func spec(t testing.TB, image string) Container {
	t.Helper()
	worker := "test-" + strings.ToLower(rand.Text())
	faenatest.NoContainersLeft(t, worker)
	dir, err := os.MkdirTemp("", "faena") // t.TempDir's paths are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// The lock file is there, so that no worker takes the container for an orphan.
	return Container{
		Name:        worker,
		Image:       image,
		Labels:      map[string]string{LabelWorker: worker, LabelLockFile: dir, LabelUser: "ana", LabelFunction: "f", LabelRevision: "7"},
		InitPath:    faenatest.CProgram(t, "testdata/agent.c"),
		SocketDir:   dir,
		MemoryBytes: 64 << 20,
		CPUs:        1.5,
		PIDs:        20,
		NoFile:      512,
		TmpfsBytes:  16 << 20,
	}
}

// agent is a started container that does what it is told.
type agent struct {
	t    testing.TB
	e    *Engine
	id   string
	conn net.Conn
	r    *bufio.Reader
}

// launch makes and starts a container and waits for its agent. The container is removed when the test ends.
func launch(t testing.TB, e *Engine, c Container) *agent {
	t.Helper()
	socket := filepath.Join(c.SocketDir, "init.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	id := create(t, e, c)
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_ = listener.(*net.UnixListener).SetDeadline(time.Now().Add(time.Minute))
	conn, err := listener.Accept()
	if err != nil {
		t.Fatalf("the container did not connect: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &agent{t: t, e: e, id: id, conn: conn, r: bufio.NewReader(conn)}
}

// pid is that of the container's first process.
func (a *agent) pid() int {
	a.t.Helper()
	c, err := a.e.client.ContainerInspect(a.t.Context(), a.id)
	if err != nil {
		a.t.Fatal(err)
	}
	return c.State.Pid
}

// create makes a container that is removed when the test ends.
func create(t testing.TB, e *Engine, c Container) string {
	t.Helper()
	id, err := e.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Remove(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
	})
	return id
}

// tell sends a line and returns the answer.
func (a *agent) tell(format string, args ...any) string {
	a.t.Helper()
	_ = a.conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := fmt.Fprintf(a.conn, format+"\n", args...); err != nil {
		a.t.Fatalf("tell the agent %q: %v", format, err)
	}
	head, err := a.r.ReadString('\n')
	if err != nil {
		a.t.Fatalf("the agent was told %q and is gone: %v", format, err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(head))
	if err != nil {
		a.t.Fatalf("the agent answered %q", head)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(a.r, body); err != nil {
		a.t.Fatal(err)
	}
	return string(body)
}

// expect tells the agent a line and fails the test where the answer is another than want.
func (a *agent) expect(want, format string, args ...any) {
	a.t.Helper()
	if got := a.tell(format, args...); got != want {
		a.t.Errorf("%s: got %q, want %q", fmt.Sprintf(format, args...), got, want)
	}
}
