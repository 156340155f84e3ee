package main

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

// A kill -9 loses nothing that was accepted, and the appliance begins again where it was.
func TestUp_Killed(t *testing.T) {
	t.Parallel() // it waits half a minute for a message to be delivered again
	a := newAccount(t)
	u := a.up("FAENA_WORKER_PLACES=1")
	image := faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{Entrypoint: []string{faenatest.FixturePath, "arg"}}))
	a.deploy("echo", image)
	a.deploy("stays", image, mode("stubborn")...)
	a.faena("users", "put", "admin", "--role", "admin", "--limit", "default=6")
	before := a.faena("functions", "-o", "json")
	done := a.async("echo", "done before")
	a.reaches(done, ended)
	started := a.async("stays", "x")
	a.reaches(started, running)
	var queued []string
	for _, parameter := range []string{"one", "two", "three"} {
		queued = append(queued, a.async("echo", parameter))
	}
	waiting := make(chan answer, 1)
	go func() { waiting <- a.run(nil, "invoke", "echo", "four") }()
	faenatest.Eventually(t, 30*time.Second, "the caller's activation is queued, too", func() bool {
		list := decode[[]client.Activation](a, "activations", "--state", "queued")
		if len(list) == 4 {
			queued = append(queued, list[0].ActivationID)
		}
		return len(list) == 4
	})
	u.kill()
	if got := <-waiting; got.code != exitUnknown || got.out != "" || !strings.HasPrefix(got.err, "faena: The connection broke before the answer came: "+
		"the activation may have been accepted and may run. See `faena activations` before trying again.") || strings.Contains(got.err, "faena up") {
		t.Errorf("who waits: %+v", got)
	}
	for _, args := range [][]string{{"get", done}, {"invoke", "echo", "x"}, {"functions"}, {"deploy", "f", "--image", "example.org/f"},
		{"deploy", "f", "--from-engine", image}} {
		if got := a.run(nil, args...); got.code != exitUnavailable || got.out != "" || !strings.Contains(got.err, "\nIs it running (of the packages: systemctl status faena-api; without them: faena up), and is the address right?") {
			t.Errorf("without an appliance %s: %+v", args[0], got)
		}
	}
	u = a.up(append(u.at(), "FAENA_WORKER_PLACES=1")...)

	t.Run("functions are still there", func(t *testing.T) {
		if after := a.of(t).faena("functions", "-o", "json"); after != before {
			t.Errorf("they were %s and are %s", before, after)
		}
	})
	t.Run("what had ended has ended", func(t *testing.T) {
		a := a.of(t)
		if r := a.record(done); r.State != client.StateSucceeded {
			t.Fatalf("it is %s", r.State)
		}
		if got := a.faena("result", done); got != "done before" {
			t.Errorf("its result is %q", got)
		}
	})
	t.Run("what was queued runs", func(t *testing.T) {
		a := a.of(t)
		for i, want := range []string{"one", "two", "three", "four"} {
			if r := a.reaches(queued[i], ended); r.State != client.StateSucceeded || r.Attempt != 1 || a.faena("result", queued[i]) != want {
				t.Errorf("%s is %s after %d attempts: %s", queued[i], r.State, r.Attempt, r.Message)
			}
		}
	})
	t.Run("what ran is lost, and is not run again", func(t *testing.T) {
		r := a.of(t).reaches(started, ended)
		if r.State != client.StateLost || r.Reason != "worker_lost" || r.Attempt != 1 {
			t.Errorf("it is %s (%s) after %d attempts: %s", r.State, r.Reason, r.Attempt, r.Message)
		}
	})
	t.Run("the slots are free, all of them", func(t *testing.T) { testSlotsFree(a.of(t), 6) })
	t.Run("containers of the life before are gone", func(t *testing.T) { testOnlyOwnContainers(a.of(t), u) })
	t.Run("no second admin is made", func(t *testing.T) {
		if said := u.said.String(); strings.Contains(said, "first admin") {
			t.Error(said)
		}
	})
	t.Run("it stops when asked", func(t *testing.T) {
		if code := u.stop(30 * time.Second); code != exitOK {
			t.Errorf("exit code %d, want %d", code, exitOK)
		}
	})
}

// testSlotsFree takes every slot of the limit at once. Only synchronous calls may take the last ones.
func testSlotsFree(a *account, limit int) {
	faenatest.Eventually(a.t, 10*time.Second, "nothing is active", func() bool {
		return decode[client.Usage](a, "users", "usage").Active == 0
	})
	codes := make(chan answer, limit)
	for range limit {
		go func() { codes <- a.run(nil, "invoke", "echo", "x") }()
	}
	for range limit {
		if got := <-codes; got.code != exitOK || got.out != "x" {
			a.t.Errorf("it ends with %d: %s", got.code, got.err)
		}
	}
}

// testOnlyOwnContainers: an engine's list of containers is what the running worker says that it has.
func testOnlyOwnContainers(a *account, u *appliance) {
	engine := faenatest.Engine(a.t)
	faenatest.Eventually(a.t, 20*time.Second, "the engine has the containers of this life alone", func() bool {
		workers := decode[[]client.Worker](a, "workers")
		return len(workers) == 1 && len(engine.Containers(a.t, "faena.worker="+u.worker)) == int(workers[0].Containers)
	})
}

// A second appliance on the same directory would corrupt the first one's data.
func TestUp_Twice(t *testing.T) {
	a := newAccount(t)
	u := a.up()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got := a.finish(a.upCommand(ctx), nil)
	if got.code != exitFailed || got.out != "" || !strings.Contains(got.err, "another process uses it") || !strings.Contains(got.err, a.data) {
		t.Errorf("the second ends with %d: %s", got.code, got.err)
	}
	if state := decode[[]finding](a, "doctor"); len(state) == 0 {
		t.Error("the first does not answer any more")
	}
	if code := u.stop(30 * time.Second); code != exitOK {
		t.Errorf("the first ends with %d", code)
	}
}

// Asked to stop, it lets what runs end within its limits, leaves no container, and goes on where it was.
func TestUp_Stopped(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	limits := []string{"FAENA_WORKER_PLACES=4", "FAENA_DRAIN_AFTER=500ms", "FAENA_WORKER_DRAIN_WITHIN=5s"}
	u := a.up(limits...)
	image := faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{Entrypoint: []string{faenatest.FixturePath, "arg"}}))
	a.deploy("echo", image)
	a.deploy("sleep", image, mode("sleep", "3000")...) // none ends before the appliance is asked to stop
	a.deploy("stays", image, mode("stubborn")...)
	stays, sleeps := a.async("stays", ""), a.async("sleep", "")
	waiting, waitingJSON := make(chan answer, 1), make(chan answer, 1)
	go func() { waiting <- a.run(nil, "invoke", "sleep", "x") }()
	go func() { waitingJSON <- a.run(nil, "invoke", "sleep", "x", "--json") }()
	faenatest.Eventually(t, 30*time.Second, "four run", func() bool {
		return len(decode[[]client.Activation](a, "activations", "--state", "running")) == 4
	})
	queued := a.async("echo", "later")
	if code := u.stop(30 * time.Second); code != exitOK {
		t.Errorf("it ends with %d", code)
	}
	if left := faenatest.Engine(t).Containers(t, "faena.worker="+u.worker); len(left) > 0 {
		t.Errorf("containers are left: %v", left)
	}
	a.up(append(u.at(), limits...)...)
	for id, want := range map[string]client.State{sleeps: client.StateSucceeded, queued: client.StateSucceeded, stays: client.StateLost} {
		if r := a.reaches(id, ended); r.State != want {
			t.Errorf("%s of %s is %s (%s), want %s", id, r.Function, r.State, r.Message, want)
		}
	}
	if got := <-waiting; got.code != exitOK || got.out != "slept" {
		t.Errorf("who has waited all the time: %+v", got)
	}
	got := <-waitingJSON
	if r := readRecord(t, got.out); got.code != exitOK || r.State != client.StateSucceeded || r.Result.Text != "slept" {
		t.Errorf("who has waited for the record: %+v", got)
	}
	if a.faena("result", sleeps) != "slept" || a.faena("result", queued) != "later" {
		t.Error("a result is not what it was")
	}
}

// Who has no patience for what runs presses Ctrl-C again.
func TestUp_StoppedTwice(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	limits := []string{"FAENA_DRAIN_AFTER=1s", "FAENA_WORKER_DRAIN_WITHIN=9m"}
	u := a.up(limits...)
	image := faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{Entrypoint: []string{faenatest.FixturePath, "arg"}}))
	a.deploy("stays", image, mode("stubborn")...)
	a.reaches(a.async("stays", ""), running)
	send(t, u.cmd, os.Interrupt)
	const says = "Stopping: waiting up to 9m1s for what runs to end. Ctrl-C again ends it at once.\n"
	faenatest.Eventually(t, 20*time.Second, "it says what it waits for", func() bool { return strings.Contains(u.said.String(), says) })
	select {
	case <-u.ended:
		t.Fatalf("it has not waited: %s", u.said.String())
	default:
	}
	send(t, u.cmd, os.Interrupt)
	select {
	case <-u.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it has not ended at the second signal")
	}
	if by := u.cmd.ProcessState.Sys().(syscall.WaitStatus); !by.Signaled() || by.Signal() != syscall.SIGINT {
		t.Errorf("it has ended with %v, want the signal itself", u.cmd.ProcessState)
	}
	a.up(append(u.at(), "FAENA_WORKER_DRAIN_WITHIN=1s")...) // removes what the first has left
}
