package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

func testActivations(a *account, s *site) {
	a.deploy("said", s.image)
	a.deploy("sorry", s.image, mode("exit", "3")...)
	a.deploy("noisy", s.image, mode("err", "5000")...)
	a.deploy("ticks", s.image, mode("tick", "10", "100")...)
	a.deploy("stays", s.image, mode("stubborn")...)
	a.deploy("sleeps", s.image, mode("sleep", "1500")...)
	good, bad := a.async("said", "hello"), a.async("sorry", "x")
	a.reaches(good, ended)
	a.reaches(bad, ended)

	a.t.Run("list", func(t *testing.T) { testList(a.of(t), good, bad) })
	a.t.Run("get", func(t *testing.T) {
		a := a.of(t)
		if r := a.record(bad); r.ActivationID != bad || r.Function != "sorry" || r.State != client.StateFailed || r.Reason != "exit_nonzero" {
			t.Errorf("the record is %+v", r)
		}
		table := a.faena("get", bad)
		for _, want := range []string{"state        failed\n", "reason       exit_nonzero\n", "exit code    3\n", "log          3 bytes\n"} {
			if !strings.Contains(table, want) {
				t.Errorf("the table has no %q:\n%s", want, table)
			}
		}
	})
	a.t.Run("result", func(t *testing.T) {
		a := a.of(t)
		if got := a.run(nil, "result", good); got != (answer{exitOK, "hello", ""}) {
			t.Errorf("got %+v", got)
		}
		got := a.run(nil, "result", bad)
		if got.code != exitFunctionFailed || got.out != "out" || !strings.Contains(got.err, "exit_nonzero") {
			t.Errorf("of a failed one: %+v", got)
		}
	})
	a.t.Run("result --wait", func(t *testing.T) { testWait(a.of(t), good, bad) })
	a.t.Run("logs", func(t *testing.T) {
		a := a.of(t)
		id := a.async("noisy", "")
		a.reaches(id, ended)
		if got := a.run(nil, "logs", id); got.code != exitOK || got.out != string(pattern(5000)) || got.err != "" {
			t.Errorf("%d bytes, exit code %d: %s", len(got.out), got.code, got.err)
		}
		if got := a.run(nil, "logs", good); got != (answer{exitOK, "", ""}) {
			t.Errorf("of one that logs nothing: %+v", got)
		}
	})
	a.t.Run("logs -f", func(t *testing.T) { testFollow(a.of(t), bad) })
	a.t.Run("what cannot be written is an error", func(t *testing.T) { testFull(a.of(t), good) })
	a.t.Run("cancel", func(t *testing.T) { testCancel(a.of(t), good) })
	a.t.Run("cancel a queued one", func(t *testing.T) { testCancelQueued(a.of(t)) })
	a.t.Run("none", func(t *testing.T) {
		none := good[:len(good)-12] + "000000000000" // of the same moment: what is older than the history has expired
		for _, command := range []string{"get", "result", "logs", "cancel"} {
			got := a.of(t).run(nil, command, none)
			if got.code != exitNotFound || got.out != "" || !strings.Contains(got.err, "activation_not_found") ||
				!strings.Contains(got.err, "Each user, an admin too, sees only their own.") {
				t.Errorf("%s ends with %d, want %d: %s", command, got.code, exitNotFound, got.err)
			}
		}
	})
}

// result --wait gives what invoke would have given.
func testWait(a *account, good, bad string) {
	if got := a.run(nil, "result", a.async("sleeps", ""), "--wait"); got != (answer{exitOK, "slept", ""}) {
		a.t.Errorf("of one that runs: %+v", got)
	}
	if got := a.run(nil, "result", good, "--wait"); got != (answer{exitOK, "hello", ""}) {
		a.t.Errorf("of one that has ended: %+v", got)
	}
	if got := a.run(nil, "result", bad, "--wait"); got.code != exitFunctionFailed || got.out != "out" || !strings.Contains(got.err, "exit_nonzero") {
		a.t.Errorf("of one that has failed: %+v", got)
	}
	id := a.async("stays", "")
	if got := a.run(nil, "result", id); got.code != exitInvalid || got.out != "" || !strings.Contains(got.err, "not_ended") {
		a.t.Errorf("without --wait: %+v", got)
	}
	var said, shown text
	waits := a.command(a.t.Context(), "faena", "result", id, "--wait")
	waits.Stderr = &said
	if err := waits.Start(); err != nil {
		a.t.Fatal(err)
	}
	master, slave := terminalPair(a.t)
	impatient := a.command(a.t.Context(), "faena", "result", id, "--wait")
	impatient.Stderr = slave
	if err := impatient.Start(); err != nil {
		a.t.Fatal(err)
	}
	go func() { _, _ = io.Copy(&shown, master) }() // ends with the terminal
	faenatest.Eventually(a.t, 20*time.Second, "it shows that it waits", func() bool { return strings.Contains(shown.String(), "Waiting for "+id) })
	send(a.t, impatient, os.Interrupt)
	_ = impatient.Wait() // the exit codes are looked at
	if code := impatient.ProcessState.ExitCode(); code != exitInterrupted {
		a.t.Errorf("after Ctrl-C it ends with %d", code)
	}
	faenatest.Eventually(a.t, 20*time.Second, "it says what happens now", func() bool { return strings.Contains(shown.String(), "the activation goes on") })
	a.faena("cancel", id)
	_ = waits.Wait()
	if code := waits.ProcessState.ExitCode(); code != exitFunctionFailed || !strings.Contains(said.String(), "cancelled") {
		a.t.Errorf("of one that is cancelled meanwhile it ends with %d: %s", code, said.String())
	}
}

// pattern is what the fixture program writes where it writes n bytes.
func pattern(n int) []byte {
	p := make([]byte, n)
	for k := range p {
		p[k] = byte(k*7 + k/251)
	}
	return p
}

func testList(a *account, good, bad string) {
	ids := func(args ...string) (list []string) {
		a.t.Helper()
		for _, r := range decode[[]client.Activation](a, append([]string{"activations"}, args...)...) {
			list = append(list, r.ActivationID)
		}
		return list
	}
	for _, c := range []struct{ args, want string }{
		{"--function said", good},
		{"--function sorry", bad},
		{"--function sorry --state failed", bad},
		{"--function sorry --state succeeded", ""},
		{"--function none", ""},
	} {
		if got := strings.Join(ids(strings.Fields(c.args)...), " "); got != c.want {
			a.t.Errorf("%s lists %q, want %q", c.args, got, c.want)
		}
	}
	if all := ids(); len(all) < 2 || strings.Compare(all[0], all[1]) < 0 {
		a.t.Errorf("they are not listed newest first: %v", all)
	}
	if one := ids("--limit", "1"); len(one) != 1 {
		a.t.Errorf("--limit 1 lists %v", one)
	}
	if got := a.faena("-o", "json", "activations", "--function", "none"); got != "[]\n" {
		a.t.Errorf("no activation is %q in JSON", got)
	}
	table := a.faena("activations", "--function", "sorry")
	rows := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	if len(rows) != 2 || !strings.HasPrefix(rows[0], "ACTIVATION ") || !strings.HasPrefix(rows[1], bad+"  sorry     1         failed  exit_nonzero  ") {
		a.t.Errorf("the table is\n%s", table)
	}
	if got := a.run(nil, "activations", "--state", "bad"); got.code != exitInvalid || !strings.Contains(got.err, "state") {
		a.t.Errorf("an unknown state ends with %d: %s", got.code, got.err)
	}
}

// A log that is followed is written as it grows, not when the activation ends.
func testFollow(a *account, failed string) {
	id := a.async("ticks", "")
	var out, errs text
	cmd := a.command(a.t.Context(), "faena", "logs", "-f", id)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	faenatest.Eventually(a.t, 20*time.Second, "its first line is there while it runs", func() bool {
		return strings.HasPrefix(out.String(), "tick 0\n") && a.record(id).State == client.StateRunning
	})
	if strings.Contains(out.String(), "tick 9\n") {
		a.t.Error("the log was there only when it was whole")
	}
	if err := cmd.Wait(); err != nil || errs.String() != "" {
		a.t.Errorf("it ends with %v: %s", err, errs.String())
	}
	if want := "tick 0\ntick 1\ntick 2\ntick 3\ntick 4\ntick 5\ntick 6\ntick 7\ntick 8\ntick 9\n"; out.String() != want {
		a.t.Errorf("it wrote %q", out.String())
	}
	if got := a.run(nil, "logs", "-f", id); got.out != out.String() || got.code != exitOK {
		a.t.Errorf("followed after its end: %+v", got)
	}
	if got := a.run(nil, "logs", "-f", failed); got.code != exitFunctionFailed || got.out != "err" || !strings.Contains(got.err, "exit_nonzero") {
		a.t.Errorf("of a failed one: %+v", got)
	}
}

func testCancel(a *account, done string) {
	id := a.async("stays", "")
	a.reaches(id, running)
	waits := a.command(a.t.Context(), "faena", "logs", "-f", id)
	var out, errs bytes.Buffer
	waits.Stdout, waits.Stderr = &out, &errs
	if err := waits.Start(); err != nil {
		a.t.Fatal(err)
	}
	if got := a.run(nil, "cancel", id); got.code != exitOK || got.out != "" || got.err == "" {
		a.t.Errorf("cancel: %+v", got)
	}
	if r := a.reaches(id, ended); r.State != client.StateCancelled || r.Reason != "cancelled" {
		a.t.Errorf("it is %s (%s)", r.State, r.Reason)
	}
	err := waits.Wait()
	if code := waits.ProcessState.ExitCode(); code != exitFunctionFailed || !strings.Contains(errs.String(), "cancelled") {
		a.t.Errorf("who follows it ends with %v: %s", err, errs.String())
	}
	another := a.async("stays", "")
	a.reaches(another, running)
	if r := readRecord(a.t, a.faena("cancel", another, "-o", "json")); r.ActivationID != another || !r.CancelRequested {
		a.t.Errorf("cancel -o json: %+v", r)
	}
	a.reaches(another, ended)
	if got := a.run(nil, "cancel", done); got.code == exitOK || got.out != "" || !strings.Contains(got.err, "ended already") {
		a.t.Errorf("one that has ended: %+v", got)
	}
}

// One that waits for a place never runs.
func testCancelQueued(a *account) {
	var ids []string
	for range places {
		ids = append(ids, a.async("stays", ""))
	}
	for _, id := range ids {
		a.reaches(id, running)
	}
	waiting := a.async("said", "never")
	if got := a.run(nil, "cancel", waiting); got != (answer{exitOK, "", "It is cancelled.\n"}) {
		a.t.Errorf("cancel: %+v", got)
	}
	for _, id := range ids {
		a.faena("cancel", id)
		a.reaches(id, ended)
	}
	if r := a.record(waiting); r.State != client.StateCancelled || r.Attempt != 0 {
		a.t.Errorf("it is %s after %d attempts", r.State, r.Attempt)
	}
}

// A result that did not fit on the disk must not look like one that did.
func testFull(a *account, id string) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	noisy := a.async("noisy", "")
	a.reaches(noisy, ended)
	for _, args := range []string{"invoke said x", "invoke said x --json", "invoke said x --async", "result " + id, "logs " + noisy,
		"logs -f " + noisy, "get " + id, "activations", "activations -o json"} {
		cmd := a.command(a.t.Context(), "faena", strings.Fields(args)...)
		var errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &errs
		if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(errs.String(), "no space left") {
			a.t.Errorf("faena %s: %v, %s", args, err, errs.String())
		}
	}
}
