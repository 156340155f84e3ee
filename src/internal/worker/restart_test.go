package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/telemetry"
	"faena.dev/faena/internal/wiring"
)

// childVariable makes this test binary a worker instead of running its tests.
const childVariable = "WORKER_TEST_CHILD"

type child struct {
	place
	URLs []string
}

// three are places for three, two of which have a processor.
func three(o *wiring.WorkerOptions) { o.Pool.Places, o.Pool.CPUs = 3, 2 }

// beWorker is a worker until it is killed, or whoever started it is gone.
func beWorker(settings string) {
	var c child
	err := json.Unmarshal([]byte(settings), &c)
	if err == nil {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
		err = c.run(context.Background())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func (c child) run(ctx context.Context) error {
	bus, err := natsbus.Connect(ctx, natsbus.Options{Name: "child", URLs: c.URLs, MaxStore: maxStore})
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
	return w.Run(ctx)
}

// child starts a worker in a process of its own, with the identity and the directory that hand gives to one of that name.
func (s *site) child(id string) (kill func()) {
	s.t.Helper()
	c := child{place{ID: id + "-" + filepath.Base(s.dir), DataDir: filepath.Join(s.dir, id), InitPath: faenatest.InitBinary(s.t),
		DockerHost: faenatest.Engine(s.t).Host}, s.urls}
	s.check(os.MkdirAll(c.DataDir, 0o711))
	faenatest.NoContainersLeft(s.t, c.ID)
	settings, err := json.Marshal(c)
	s.check(err)
	cmd := exec.CommandContext(s.t.Context(), os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), childVariable+"="+string(settings)), s.t.Output()
	stdin, err := cmd.StdinPipe()
	s.check(err)
	s.check(cmd.Start())
	kill = func() {
		_ = cmd.Process.Kill() // it may be gone
		_ = cmd.Wait()
		_ = stdin.Close()
	}
	s.t.Cleanup(kill)
	return kill
}

// TestWorker_Killed: what a worker held that was killed with SIGKILL is settled, or run again where it may be, soon after it is
// back, and not when AckWait is over.
func TestWorker_Killed(t *testing.T) {
	t.Parallel()
	s := open(t, 0, natstest.Start(t, natstest.Options{}))
	kill := s.child("killed")
	once := s.send(s.function("once", nil, "stubborn"), "")
	again := s.send(s.function("again", func(r *faena.Revision) { r.Spec.Retries = 1 }, "sleep", "3000"), "")
	s.is(once, faena.StateRunning)
	first := s.is(again, faena.StateRunning)
	waits := s.send(s.function("waits", nil), "arg") // for a processor, with the worker
	faenatest.Eventually(t, patience, "all are held", func() bool {
		n, err := s.bus.Pending(t.Context(), group)
		return err == nil && n == 0
	})
	kill()

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
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("all ended %v after the worker was back", took)
	} else {
		t.Logf("all ended %v after the worker was back", took)
	}
	if r.State != faena.StateSucceeded || r.Attempt != 2 || len(r.Failures) != 1 || r.StartedAt.Before(*first.StartedAt) ||
		r.Failures[0].Attempt != 1 || r.Failures[0].Reason != faena.ReasonWorkerLost || r.Failures[0].Worker != h.id {
		t.Errorf("run again: %+v", r)
	}
	s.quiet()
	if n := h.metric("faena_worker_handed_back_total"); n != 3 {
		t.Errorf("%d were handed back, want 3", n)
	}
	if d, _, err := s.bus.DeadLetter(t.Context(), group, "ana", once); err != nil || d.Reason != faena.ReasonWorkerLost || d.Attempts != 1 {
		t.Errorf("the dead letter of what was lost: %+v, %v", d, err)
	}
}
