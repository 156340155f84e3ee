package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

// programs is the directory of the built programs: the tests run them as their users do.
var programs string

func TestMain(m *testing.M) {
	code, err := withPrograms(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// withPrograms builds the programs as the packages do, faena-init beside the others, and runs the tests.
func withPrograms(run func() int) (code int, err error) {
	if programs, err = os.MkdirTemp("", "faena-programs"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(programs)) }()
	if err := os.Chmod(programs, 0o755); err != nil { // some run as another user
		return 1, err
	}
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", programs+"/", "./cmd/...")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the programs: %w: %s", err, out)
	}
	return run(), nil
}

// account is a user's account on a host: a home directory, in which the logins are, and a data directory.
type account struct {
	t      *testing.T
	home   string
	data   string
	pulled *[]string // what a worker may have pulled from the appliance's registry
	weak   bool      // its appliance may not set packet rules
}

// newAccount makes an account that is gone when the test ends. Its path is short: sockets of containers are below it.
func newAccount(t *testing.T) *account {
	t.Helper()
	dir, err := os.MkdirTemp("", "faena")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	a := &account{t: t, home: filepath.Join(dir, "h"), data: filepath.Join(dir, "d"), pulled: new([]string)}
	engine := faenatest.Engine(t)
	t.Cleanup(func() { // after the appliance has stopped: an image in use would stay
		for _, ref := range *a.pulled {
			engine.Delete(t, "/images/"+ref+"?force=1")
		}
	})
	return a
}

// of is the same account in a subtest.
func (a *account) of(t *testing.T) *account {
	return &account{t: t, home: a.home, data: a.data, pulled: a.pulled}
}

// command prepares a program with the account's environment, and no setting of whoever runs the tests.
func (a *account) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(programs, program), args...)
	cmd.Env = []string{"HOME=" + a.home, "PATH=" + os.Getenv("PATH"), "DOCKER_HOST=" + faenatest.Engine(a.t).Host}
	return cmd
}

// answer is what a command has written, and its exit code.
type answer struct {
	code     int
	out, err string
}

// run runs the command line with something on its standard input, which may be nil.
func (a *account) run(in io.Reader, args ...string) answer {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	cmd := a.command(ctx, "faena", args...)
	return a.finish(cmd, in)
}

func (a *account) finish(cmd *exec.Cmd, in io.Reader) answer {
	a.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return answer{exit.ExitCode(), out.String(), errs.String()}
	}
	if err != nil { // no Fatal: it may not be the test's own goroutine
		a.t.Errorf("%s: %v: %s", strings.Join(cmd.Args, " "), err, errs.String())
		return answer{code: -1}
	}
	return answer{exitOK, out.String(), errs.String()}
}

// faena runs a command that must succeed, and returns what it writes to standard output.
func (a *account) faena(args ...string) string {
	a.t.Helper()
	got := a.run(nil, args...)
	if got.code != exitOK {
		a.t.Fatalf("faena %s ends with %d: %s", strings.Join(args, " "), got.code, got.err)
	}
	return got.out
}

// decode reads what a command with -o json, which must succeed, writes.
func decode[T any](a *account, args ...string) (v T) {
	a.t.Helper()
	text := a.faena(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		a.t.Fatalf("faena %s: %v: %s", strings.Join(args, " "), err, text)
	}
	return v
}

// deploy makes a function of an image that the engine has. The engine forgets what the worker pulls when the account is
// gone.
func (a *account) deploy(name, image string, flags ...string) {
	a.t.Helper()
	args := append([]string{"deploy", name, "--from-engine", image, "--memory", "32MiB"}, flags...)
	f := decode[client.Function](a, args...)
	*a.pulled = append(*a.pulled, f.Revision.Pull)
}

// mode is the flags of deploy that choose a mode of the fixture program.
func mode(words ...string) (flags []string) {
	for _, w := range append([]string{faenatest.FixturePath}, words...) {
		flags = append(flags, "--command", w)
	}
	return flags
}

// async starts an activation and returns its id.
func (a *account) async(name, parameter string) string {
	a.t.Helper()
	return strings.TrimSuffix(a.faena("invoke", name, parameter, "--async"), "\n")
}

func (a *account) record(id string) client.Activation {
	a.t.Helper()
	return decode[client.Activation](a, "get", id)
}

// reaches waits until an activation is in a state that ok accepts. What a killed worker ran takes the longest: 30 s
// until its message is delivered again, and 10 s more.
func (a *account) reaches(id string, ok func(client.State) bool) (r client.Activation) {
	a.t.Helper()
	faenatest.EventuallyNil(a.t, 45*time.Second, "activation "+id+" comes as far as expected", func() error {
		if r = a.record(id); !ok(r.State) {
			return fmt.Errorf("it is %s", r.State)
		}
		return nil
	})
	return r
}

func running(s client.State) bool { return s == client.StateRunning }
func ended(s client.State) bool   { return s != client.StateRunning && s != client.StateQueued }

// text is what a process has written so far. It is safe for concurrent use.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *text) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *text) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// send sends a signal to a process that may have ended by itself.
func send(t *testing.T, cmd *exec.Cmd, s os.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
}
