package faenatest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// RootlessEngine starts a Docker Engine that says of itself that it is rootless, and returns its host. It has no network namespace of
// its own, for which it would need RootlessKit, so it is for questions alone: it has no network. It is stopped when the test ends.
func RootlessEngine(t testing.TB) (host string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "faenar") // short: the paths of its sockets must fit
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("daemon.json"), []byte("{}\n"), 0o600); err != nil { // not the host's
		t.Fatal(err)
	}
	cmd := exec.Command("dockerd", "--rootless", "--host", "unix://"+at("s"), "--data-root", at("data"), "--exec-root", at("exec"),
		"--pidfile", at("pid"), "--config-file", at("daemon.json"), "--bridge", "none", "--iptables=false", "--ip-forward=false")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "XDG_DATA_HOME=" + dir}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a rootless engine: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended, which is found next
		late := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		if err := errors.Join(<-ended, os.RemoveAll(dir)); err != nil {
			t.Errorf("the rootless engine ended: %v\n%s", err, log.Bytes())
		}
	})
	var dialer net.Dialer
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", at("s"))
	}}
	defer transport.CloseIdleConnections()
	EventuallyNil(t, time.Minute, "the rootless engine answers", func() error {
		return (&Docker{http: &http.Client{Timeout: time.Minute, Transport: transport}}).call(http.MethodGet, "/_ping", nil, nil)
	})
	return "unix://" + at("s")
}
