package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// child is the argument that makes the test binary a daemon that systemd has passed sockets to.
const child = "serve-what-was-passed"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == child {
		if err := serveOnce(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// manager is the socket on which systemd would listen for notifications.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

// hear returns the next notification, or an error where none comes in time.
func hear(conn *net.UnixConn, within time.Duration) (string, error) {
	buf := make([]byte, 4096)
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

func TestNotify(t *testing.T) {
	conn := manager(t)
	for _, c := range []struct {
		name string
		send func() error
		want string
	}{
		{"ready", func() error { return Ready("serving on 127.0.0.1:8080") }, "READY=1\nSTATUS=serving on 127.0.0.1:8080"},
		{"status", func() error { return Status("waiting\nREADY=1") }, "STATUS=waiting READY=1"},
		{"stopping", func() error { return Stopping("draining") }, "STOPPING=1\nSTATUS=draining"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.send(); err != nil {
				t.Fatal(err)
			}
			if got, err := hear(conn, 5*time.Second); err != nil || got != c.want {
				t.Errorf("systemd heard %q, %v; want %q", got, err, c.want)
			}
		})
	}
	t.Run("a socket that is gone is an error", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", "/nonexistent/notify")
		if err := Ready("x"); err == nil || !strings.HasPrefix(err.Error(), "notify systemd: ") {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("without systemd nothing happens", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", "")
		if err := errors.Join(Ready("x"), Status("x"), Stopping("x")); err != nil {
			t.Error(err)
		}
	})
}

func TestWatchdog(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	// run runs the watchdog until the test ends, and waits for it.
	run := func(t *testing.T, alive func(context.Context) error) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Watchdog(ctx, alive, log) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("is told as long as the daemon is alive", func(t *testing.T) {
		conn := manager(t)
		t.Setenv("WATCHDOG_USEC", "300000")
		t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
		var dead atomic.Bool
		run(t, func(context.Context) error {
			if dead.Load() {
				return errors.New("deadlock")
			}
			return nil
		})
		for range 3 {
			if got, err := hear(conn, 5*time.Second); err != nil || got != "WATCHDOG=1" {
				t.Fatalf("systemd heard %q, %v", got, err)
			}
		}
		dead.Store(true)
		for heard := 0; ; heard++ { // one may be on its way
			if _, err := hear(conn, 600*time.Millisecond); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if heard > 1 {
				t.Fatal("systemd is told that a daemon is alive that is not")
			}
		}
		dead.Store(false)
		if got, err := hear(conn, 5*time.Second); err != nil || got != "WATCHDOG=1" {
			t.Errorf("after it came back to life systemd heard %q, %v", got, err)
		}
	})
	t.Run("of another process is left alone", func(t *testing.T) {
		t.Setenv("WATCHDOG_USEC", "1000")
		t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getppid()))
		run(t, func(context.Context) error { t.Error("it asks"); return nil })
	})
	t.Run("that is no number is an error", func(t *testing.T) {
		t.Setenv("WATCHDOG_USEC", "soon")
		if err := Watchdog(t.Context(), func(context.Context) error { return nil }, log); err == nil {
			t.Error("it was accepted")
		}
	})
}

// serveOnce is the daemon: it takes its sockets and greets one caller on each of two, one passed and one not.
func serveOnce() error {
	if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil { // as systemd does after its fork
		return err
	}
	sockets, err := TakeSockets()
	if err != nil {
		return err
	}
	if os.Getenv("LISTEN_FDS") != "" {
		return errors.New("a child of the daemon would take its sockets for its own")
	}
	api, err := sockets.Listen(context.Background(), "api", "127.0.0.1:0")
	if err != nil {
		return err
	}
	operations, err := sockets.Listen(context.Background(), "operations", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(operations.Addr())
	return errors.Join(greet(operations, "operations"), greet(api, "api"), sockets.Close())
}

func greet(l net.Listener, name string) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	_, err = io.WriteString(conn, name)
	return errors.Join(err, conn.Close(), l.Close())
}

// passed starts the daemon with sockets of the given names, and returns its standard output.
func passed(t *testing.T, names string, sockets ...net.Listener) (*exec.Cmd, io.Reader, *strings.Builder) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, child)
	cmd.Env = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(sockets)), "LISTEN_FDNAMES="+names)
	for _, l := range sockets {
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out, &stderr
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func greeting(t *testing.T, address string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSockets_Listen(t *testing.T) {
	t.Run("a passed socket and one of its own", func(t *testing.T) {
		api := listen(t)
		early, err := net.Dial("tcp", api.Addr().String()) // before the daemon is there: it waits, it is not refused
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = early.Close() }()
		cmd, out, stderr := passed(t, "api", api)
		var operations string
		if _, err := fmt.Fscanln(out, &operations); err != nil {
			t.Fatal(err, cmd.Wait(), stderr)
		}
		if got := greeting(t, operations); got != "operations" {
			t.Errorf("its own socket greets with %q", got)
		}
		if text, err := io.ReadAll(early); err != nil || string(text) != "api" {
			t.Errorf("the passed socket greets with %q, %v", text, err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err, stderr)
		}
	})
	t.Run("a name that the daemon does not know is an error", func(t *testing.T) {
		api, stray := listen(t), listen(t)
		cmd, out, stderr := passed(t, "api:aip", api, stray)
		var operations string
		if _, err := fmt.Fscanln(out, &operations); err != nil {
			t.Fatal(err, cmd.Wait(), stderr)
		}
		greeting(t, operations)
		greeting(t, api.Addr().String())
		if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "sockets that this daemon does not know: aip") {
			t.Errorf("it ended with %v: %s", err, stderr)
		}
	})
	t.Run("two of one name are an error", func(t *testing.T) {
		cmd, _, stderr := passed(t, "api:api", listen(t), listen(t))
		if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "take the socket api from systemd: another one has its name") {
			t.Errorf("it ended with %v: %s", err, stderr)
		}
	})
	t.Run("without systemd", func(t *testing.T) {
		sockets, err := TakeSockets()
		if err != nil {
			t.Fatal(err)
		}
		l, err := sockets.Listen(t.Context(), "api", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, err = sockets.Listen(t.Context(), "operations", l.Addr().String())
		if err == nil || !strings.HasPrefix(err.Error(), "listen for operations: ") {
			t.Errorf("an address in use gives %v", err)
		}
		if err := errors.Join(sockets.Close(), l.Close()); err != nil {
			t.Error(err)
		}
	})
}
