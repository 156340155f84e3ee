package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/telemetry"
	"faena.dev/faena/internal/wiring"
	"faena.dev/faena/internal/worker"
)

// childVariable makes this test binary a worker instead of running its tests.
const childVariable = "WORKER_TEST_CHILD"

type child struct {
	place
	URLs  []string
	Every worker.Every
}

// three are places for three, two of which have a processor.
func three(o *wiring.WorkerOptions) { o.Pool.Places, o.Pool.CPUs = 3, 2 }

// beWorker is a worker until it is killed, or whoever started it lets go of its standard input.
func beWorker(settings string) {
	var c child
	err := json.Unmarshal([]byte(settings), &c)
	if err == nil {
		ctx, end := context.WithCancel(context.Background())
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			end()
		}()
		err = c.run(ctx)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func (c child) run(ctx context.Context) error {
	bus, err := natsbus.Connect(ctx, natsbus.Options{Name: "child", URLs: c.URLs, MaxStore: maxStore,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	identity, err := seal.LoadOrCreate(filepath.Join(c.DataDir, "seal.key"))
	if err != nil {
		return err
	}
	o := c.options(bus, identity, telemetry.New(telemetry.Build{}), os.Stderr)
	three(&o)
	w, err := wiring.NewWorker(ctx, o)
	if err != nil {
		return err
	}
	w.Quicken(c.Every)
	err = w.Run(ctx)
	w.Close()
	return err
}

// process is a worker in a process of its own.
type process struct {
	s    *site
	id   string
	log  *log
	cmd  *exec.Cmd
	kill func()
}

// signal sends it a signal.
func (p *process) signal(sig os.Signal) {
	p.s.t.Helper()
	p.s.check(p.cmd.Process.Signal(sig))
}

// child starts a worker in a process of its own, with the identity and the directory that hand gives to one of that name.
func (s *site) child(id string, every worker.Every) *process {
	s.t.Helper()
	c := child{place{ID: id + "-" + filepath.Base(s.dir), DataDir: filepath.Join(s.dir, id), InitPath: faenatest.InitBinary(s.t),
		DockerHost: faenatest.Engine(s.t).Host}, s.urls, every}
	s.check(os.MkdirAll(c.DataDir, 0o711))
	faenatest.NoContainersLeft(s.t, c.ID)
	settings, err := json.Marshal(c)
	s.check(err)
	p := &process{s: s, id: c.ID, log: &log{to: s.t.Output()}, cmd: exec.CommandContext(context.WithoutCancel(s.t.Context()), os.Args[0])}
	p.cmd.Env, p.cmd.Stderr = append(os.Environ(), childVariable+"="+string(settings)), p.log
	stdin, err := p.cmd.StdinPipe()
	s.check(err)
	s.check(p.cmd.Start())
	wait := sync.OnceFunc(func() { _ = p.cmd.Wait() }) // however it ends
	p.kill = func() {
		s.check(p.cmd.Process.Kill())
		wait()
	}
	s.t.Cleanup(func() { // unless it was killed it ends as a worker should
		_ = stdin.Close()
		_ = p.cmd.Process.Signal(syscall.SIGCONT) // where the test has not come to that
		wait()
	})
	return p
}

// TestWorker_Killed: what a worker held that was killed with SIGKILL is settled, or run again where it may be, soon after it is
// back, and not when AckWait is over.
func TestWorker_Killed(t *testing.T) {
	t.Parallel()
	s := open(t, never, natstest.Start(t, natstest.Options{}))
	p := s.child("killed", worker.Every{})
	once := s.send(s.function("once", nil, "stubborn"), "")
	again := s.send(s.function("again", func(r *faena.Revision) { r.Spec.Retries = 1 }, "sleep", "3000"), "")
	s.is(once, faena.StateRunning)
	first := s.is(again, faena.StateRunning)
	waits := s.send(s.function("waits", nil), "arg") // for a processor, with the worker
	s.wrote(waits, "")                               // its holder says so
	p.kill()

	began := time.Now()
	h := s.run("killed", three)
	r := s.ended(once)
	if r.State != faena.StateLost || r.Reason != faena.ReasonWorkerLost || r.Worker != h.id || r.Attempt != 1 || len(r.Failures) != 0 {
		t.Errorf("at most once: %+v", r)
	}
	if r := s.ended(waits); r.State != faena.StateSucceeded || r.Attempt != 1 {
		t.Errorf("not started: %+v", r)
	}
	r = s.ended(again)
	t.Logf("all ended %v after the worker was back", time.Since(began))
	if r.State != faena.StateSucceeded || r.Attempt != 2 || len(r.Failures) != 1 || r.StartedAt.Before(*first.StartedAt) ||
		r.Failures[0].Attempt != 1 || r.Failures[0].Reason != faena.ReasonWorkerLost || r.Failures[0].Worker != h.id {
		t.Errorf("run again: %+v", r)
	}
	s.quiet()
	if n := h.metric("faena_worker_handed_back_total"); n != 3 {
		t.Errorf("%d were handed back, want 3", n)
	}
	// Another test's worker may have removed them before.
	if !h.log.inOrder("a container without an owner was removed", "was handed back") {
		t.Error("what ran was handed back while it may have been running")
	}
	if d := s.letter(once); d == nil || d.Reason != faena.ReasonWorkerLost || d.Attempts != 1 {
		t.Errorf("the dead letter of what was lost: %+v", d)
	}
}

// TestWorker_Killed_Waiting: what a killed worker was to hand back after a while its next life hands back, and not AckWait; so it does
// with what has ended and may hold its slot.
func TestWorker_Killed_Waiting(t *testing.T) {
	t.Parallel()
	s := open(t, never, natstest.Start(t, natstest.Options{}))
	p := s.child("killed", worker.Every{})
	ran := s.send(s.function("f", nil, "sleep", "60000"), "")
	s.is(ran, faena.StateRunning)
	const delay = 14 * time.Second // half of it at least
	id := s.send(s.function("retried", retries(1, delay), "attempt", "2"), "")
	faenatest.Eventually(t, patience, "it waits for its next attempt", func() bool { return len(s.record(id).Failures) == 1 })
	p.kill()
	s.change(ran, func(r *faena.Record) { s.check(r.Fail(faena.ReasonWorkerLost, "", time.Now())) })

	h := s.run("killed", three)
	r := s.ended(id)
	if r.State != faena.StateSucceeded || r.Attempt != 2 || failures(r) != "1 exit_nonzero "+h.id+"; " {
		t.Errorf("%+v", r)
	}
	if waited := r.StartedAt.Sub(r.Failures[0].EndedAt); waited < delay/2 {
		t.Errorf("its next attempt began %v after the first had ended", waited)
	}
	s.quiet()
	if n := h.metric("faena_worker_handed_back_total"); n != 1 {
		t.Errorf("%d were handed back, want 1", n)
	}
}

// TestWorker_Stopped: a worker that was stopped for a while does nothing about what it was given before, or meanwhile: that is
// somebody else's by then.
func TestWorker_Stopped(t *testing.T) {
	t.Parallel()
	s := open(t, 8*time.Second, natstest.Start(t, natstest.Options{}))
	every := worker.Every{Tick: 50 * time.Millisecond, Progress: 500 * time.Millisecond, Fence: 7 * time.Second, Stall: 3 * time.Second}
	p := s.child("stopped", every)
	faenatest.Eventually(t, patience, "it takes activations", func() bool { return p.log.has("ready for activations") })
	rev := s.function("f", nil, "sleep", "8000")
	again := s.function("again", func(r *faena.Revision) { r.Spec.Retries = 1 }, "sleep", "8000")
	held := s.send(s.function("held", func(r *faena.Revision) { r.Spec.Retries, r.Spec.TimeoutMS = 1, 120_000 }, "stubborn"), "")
	s.wrote(held, "here")
	p.signal(syscall.SIGSTOP)
	given := []string{s.send(rev, ""), s.send(again, "")} // its pulls are the first in line
	faenatest.Eventually(t, patience, "they are delivered", func() bool {
		n, err := s.bus.Pending(t.Context(), group)
		return err == nil && n == 0
	})
	heir := s.quick("heir", every, func(o *wiring.WorkerOptions) { o.Pool.Places, o.Pool.CPUs = 3, 3 })
	for _, id := range given {
		s.is(id, faena.StateRunning)
	}
	p.signal(syscall.SIGCONT)
	// Where it stood still on its way to a container, the engine has not answered in time either: then it hands back, or would.
	faenatest.Eventually(t, patience, "it has given up all three", func() bool {
		return p.log.count("given up before it started")+p.log.count("left for its redelivery")+p.log.count("was not handed back") == 2 &&
			p.log.has("was killed and given up")
	})
	for _, id := range given {
		if r := s.ended(id); r.State != faena.StateSucceeded || r.Worker != heir.id || r.Attempt != 1 {
			t.Errorf("what it was given while it was stopped: %+v", r)
		}
	}
	faenatest.Eventually(t, patience, "what it ran is run by the other one", func() bool { return s.record(held).HeldBy(heir.id, 2) })
	s.cancel(held)
	if r := s.ended(held); r.State != faena.StateCancelled || r.Worker != heir.id || failures(r) != "1 worker_lost "+p.id+"; " {
		t.Errorf("what it ran: %+v", r)
	}
	s.quiet()
	if r := s.call(s.function("after", nil), "arg"); r.State != faena.StateSucceeded {
		t.Errorf("afterwards: %+v", r)
	}
}
