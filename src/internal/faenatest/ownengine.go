package faenatest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// OwnEngine is a Docker Engine of a test alone, in the network of this process: for tests that stop it, or change what it has set up.
type OwnEngine struct {
	t    testing.TB
	dir  string
	Host string // for DOCKER_HOST: unix:///…
	cmd  *exec.Cmd
	log  bytes.Buffer
}

// NewEngine starts an engine, which Engine returns from then on: it is for the one test of a process that OwnNetwork has made. It is
// stopped, and all that it has is removed, when the test ends.
func NewEngine(t *testing.T) *OwnEngine {
	t.Helper()
	dir, err := os.MkdirTemp("", "faenad") // short: the paths of its sockets must fit
	if err != nil {
		t.Fatal(err)
	}
	e := &OwnEngine{t: t, dir: dir, Host: "unix://" + filepath.Join(dir, "s")}
	if err := os.Setenv("DOCKER_HOST", e.Host); err != nil { // not the test's own Setenv, which parallel tests must not use
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "daemon.json"), []byte("{}\n"), 0o600); err != nil { // not the host's
		t.Fatal(err)
	}
	e.Start()
	return e
}

// Start starts the engine with what it had when it was stopped, and waits until it answers.
func (e *OwnEngine) Start() {
	e.t.Helper()
	at := func(name string) string { return filepath.Join(e.dir, name) }
	e.cmd = exec.Command("dockerd", "--host", e.Host, "--data-root", at("data"), "--exec-root", at("exec"), "--pidfile", at("pid"),
		"--config-file", at("daemon.json"), "--bridge", "none")
	e.cmd.Stdout, e.cmd.Stderr = &e.log, &e.log
	if err := e.cmd.Start(); err != nil {
		e.t.Fatalf("start an engine: %v", err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		_, err := dial()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			e.Stop()
			e.t.Fatalf("the engine does not answer: %v\n%s", err, e.log.Bytes())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Stop stops the engine, and with it its containers.
func (e *OwnEngine) Stop() {
	e.t.Helper()
	if e.cmd == nil {
		return
	}
	err := e.cmd.Process.Signal(os.Interrupt)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		e.t.Errorf("stop the engine: %v", err)
	}
	late := time.AfterFunc(30*time.Second, func() { _ = e.cmd.Process.Kill() })
	defer late.Stop()
	if err := e.cmd.Wait(); err != nil {
		e.t.Errorf("the engine ended: %v\n%s", err, e.log.Bytes())
	}
	e.cmd = nil
}
