package wiring

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/systemd"
	"faena.dev/faena/internal/telemetry"
)

// fed waits for systemd to hear that the daemon lives.
func fed(t *testing.T, manager *net.UnixConn, within time.Duration) bool {
	t.Helper()
	buf := make([]byte, 4096)
	if err := manager.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	n, err := manager.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if err != nil || string(buf[:n]) != "WATCHDOG=1" {
		t.Fatalf("systemd hears %q, %v", buf[:n], err)
	}
	return true
}

// systemd hears that the daemon lives while its loops beat and its operations listener answers, and nothing when a loop hangs.
func TestWatched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "150000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	log := slog.New(slog.DiscardHandler)

	live := telemetry.NewLiveness(time.Second)
	sockets, err := systemd.TakeSockets()
	if err != nil {
		t.Fatal(err)
	}
	stopOperations, err := serveOperations(t.Context(), sockets, config.Address("127.0.0.1:0"), NewMetrics(), newStarter(log).Ready, live, log)
	if err != nil {
		t.Fatal(err)
	}
	var hangs atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-t.Context().Done():
				return
			case <-tick.C:
			}
			if !hangs.Load() {
				live.Beat("loop")
			}
		}
	}()
	stop := watched(t.Context(), live, log)
	for range 5 {
		if !fed(t, manager, 10*time.Second) {
			t.Fatal("systemd does not hear that the daemon lives")
		}
	}
	hangs.Store(true)
	silent := func() bool { return !fed(t, manager, time.Second) }
	for deadline := time.Now().Add(20 * time.Second); !silent(); {
		if time.Now().After(deadline) {
			t.Fatal("systemd hears that a daemon lives whose loop hangs")
		}
	}
	hangs.Store(false)
	if !fed(t, manager, 10*time.Second) {
		t.Error("the loop goes on, and systemd does not hear of it")
	}
	if err := stopOperations(); err != nil { // an end that was asked for is no death
		t.Error(err)
	}
	if !fed(t, manager, 10*time.Second) {
		t.Error("a daemon that drains is dead")
	}
	stop()
	if err := sockets.Close(); err != nil {
		t.Error(err)
	}
}

func TestAskHealth(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := askHealth(t.Context(), l.Addr()); err == nil {
		t.Error("nobody listens, and it answers")
	}
}
