package installation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// buildPrograms builds the daemons and the command line into a directory.
func buildPrograms(t testing.TB, dir string, o Options) {
	t.Helper()
	kind, args := "plain", []string{"build", "-buildvcs=false", "-ldflags=-w"}
	if o.Race {
		kind, args = "race", append(args, "-race")
	}
	if o.Failpoints {
		kind, args = kind+"-failpoints", append(args, "-tags=failpoints")
	}
	cache := filepath.Join(faenatest.CacheDir(t), kind)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }() // which unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatalf("lock %s: %v", lock.Name(), err)
	}
	// The go command links anew only where something has changed. What runs is a copy: a later build may be of another version.
	cmd := exec.CommandContext(t.Context(), "go", append(args, "-o", cache, "./cmd/faena-api", "./cmd/faena-worker", "./cmd/faena")...)
	cmd.Dir = faenatest.SourceDir(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v: %s", err, out)
	}
	for _, name := range []string{"faena-api", "faena-worker", "faena"} {
		program, err := os.ReadFile(filepath.Join(cache, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), program, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// environ is what every program of an installation has: nothing of the settings that this test may run with. Without GORACE each would
// sleep for a second before it ends.
func environ(home string, settings ...string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GORACE=atexit_sleep_ms=0"}
	if host, set := os.LookupEnv("DOCKER_HOST"); set {
		env = append(env, "DOCKER_HOST="+host)
	}
	return append(env, settings...)
}

// Outcome is what a command has ended with.
type Outcome struct {
	Code      int
	Out, Errs string
}

// command runs a program to its end.
func command(t testing.TB, env []string, input, program string, args ...string) Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, strings.NewReader(input), &out, &errs
	err := cmd.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || !ended.Exited()) {
		t.Fatalf("%s %q: %v: %s", program, args, err, &errs)
	}
	return Outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// Daemon is a faena-api or a faena-worker, which may be stopped, killed and started again.
type Daemon struct {
	Name       string   // as the installation knows it: FAENA_INSTANCE or FAENA_WORKER_ID
	Env        []string // from its next start on
	Prefix     []string // a program, with its arguments, that it is started by
	Believes   bool     // of an API: it believes the gateway
	Operations string   // address of its operations listener
	URL        string   // of an API

	// Failpoints is what is armed when it starts the next time: NAME=ACTION[@N], separated by commas.
	Failpoints string

	program string
	control string   // the socket of its failpoints, "" without
	base    []string // of an API: Env without how it authenticates
	log     *logBook

	cmd   *exec.Cmd // nil while it does not run
	ended chan error
}

// Start starts it. It is killed with this process, whatever happens to that.
func (d *Daemon) Start(t testing.TB) {
	t.Helper()
	if d.cmd != nil {
		t.Fatalf("%s runs already", d.Name)
	}
	line := append(slices.Clone(d.Prefix), d.program)
	d.cmd, d.ended = exec.Command(line[0], line[1:]...), make(chan error, 1)
	d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr = d.Env, d.log, d.log
	if d.control != "" {
		d.cmd.Env = append(slices.Clip(d.Env), "FAENA_FAILPOINTS="+strings.TrimSuffix(d.control+","+d.Failpoints, ","))
		d.Failpoints = ""
	}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", d.Name, err)
	}
	go func(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }(d.cmd, d.ended)
}

// Stop asks it to stop and waits until it has, which it must with exit code 0.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	d.Terminate(t)
	d.Wait(t)
}

func (d *Daemon) Terminate(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("stop %s: %v", d.Name, err)
	}
}

// Wait waits for the end of a daemon that was told to stop.
func (d *Daemon) Wait(t testing.TB) {
	t.Helper()
	select {
	case err := <-d.ended:
		if err != nil {
			t.Errorf("%s ended with %v", d.Name, err)
		}
	case <-time.After(stopWithin):
		t.Errorf("%s did not stop within %v", d.Name, stopWithin)
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
	d.cmd = nil
}

// stopWithin is how long a daemon may take to stop: longer than FAENA_DRAIN_AFTER and FAENA_WORKER_DRAIN_WITHIN of the tests.
const stopWithin = 40 * time.Second

// Kill is kill -9.
func (d *Daemon) Kill(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatalf("kill %s: %v", d.Name, err)
	}
	<-d.ended
	d.cmd = nil
}

// logBook keeps what a daemon says, over all of its lives.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// check fails the test where a daemon has said what none may say, and shows the end of what it said where the test has failed.
func (l *logBook) check(t testing.TB, name string) {
	t.Helper()
	const shown = 150
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.text.String()
	for _, never := range []string{"DATA RACE", "panic", "fatal error:"} {
		if at := strings.Index(text, never); at >= 0 {
			t.Errorf("%s says %q: %.6000s", name, never, text[at:])
		}
	}
	if lines := strings.SplitAfter(text, "\n"); t.Failed() {
		fmt.Fprintf(t.Output(), "--- the last of what %s said:\n%s\n", name, strings.Join(lines[max(0, len(lines)-shown):], ""))
	}
}
