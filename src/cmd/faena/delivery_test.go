package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

// testDelivery: calls with a key, retries, dead letters, and what waits for its time.
func testDelivery(a *account, s *site) {
	a.t.Run("idempotency key", func(t *testing.T) { testKey(a.of(t), s) })
	a.t.Run("retries and dead letters", func(t *testing.T) { testDeadLetters(a.of(t), s) })
	a.t.Run("expiry", func(t *testing.T) { testExpiry(a.of(t), s) })
	a.t.Run("a function made again", func(t *testing.T) { testMadeAgain(a.of(t), s) })
}

// The same call with the same key runs once; its answer is the first one's.
func testKey(a *account, s *site) {
	a.deploy("once", s.image, mode("env")...)
	call := func(args ...string) answer {
		return a.run(strings.NewReader("x"), append([]string{"invoke", "once", "--idempotency-key", "order 4711"}, args...)...)
	}
	first := call()
	if again := call(); first.code != exitOK || again != first || !strings.Contains(first.out, "FAENA_ACTIVATION_ID=") {
		a.t.Errorf("first %+v, then %+v", first, again)
	}
	if id := strings.TrimSpace(call("--async").out); !strings.Contains(first.out, "FAENA_ACTIVATION_ID="+id+"\n") {
		a.t.Errorf("asynchronously it is %s, not that of %s", id, first.out)
	}
	got := a.run(strings.NewReader("y"), "invoke", "once", "--idempotency-key", "order 4711")
	if got.code != exitInvalid || got.out != "" || !strings.Contains(got.err, "idempotency_mismatch") {
		a.t.Errorf("with another parameter %+v", got)
	}
	if got := a.run(nil, "invoke", "once", "x", "--idempotency-key", ""); got.code != exitUsage {
		a.t.Errorf("with an empty key %+v", got)
	}
}

// What has used up its attempts has a dead letter, which can be shown, run again and purged.
func testDeadLetters(a *account, s *site) {
	retries := []string{"--retries", "1", "--retry-on", "exit_nonzero,timeout", "--retry-delay", "20ms", "--retry-max-delay", "2s"}
	a.deploy("flaky", s.image, append(mode("attempt", "2"), retries...)...)
	a.deploy("hopeless", s.image, append(mode("exit", "3"), retries...)...)
	if r := decode[[]client.Revision](a, "functions", "hopeless")[0].Spec; r.Retries != 1 || !slices.Equal(r.RetryOn, []string{"exit_nonzero", "timeout"}) ||
		r.RetryDelayMs != 20 || r.RetryMaxDelayMs != 2000 {
		a.t.Errorf("the spec is %+v", r)
	}
	if r := a.reaches(a.async("flaky", "x"), ended); r.State != client.StateSucceeded || r.Attempt != 2 || len(r.Failures) != 1 || r.Failures[0].Reason != "exit_nonzero" {
		a.t.Errorf("with a retry it is %+v", r)
	}
	var ids []string
	for i := range 3 {
		ids = append(ids, a.async("hopeless", fmt.Sprint("p", i)))
	}
	for _, id := range ids {
		a.reaches(id, ended)
	}
	list := decode[[]client.DeadLetter](a, "deadletters", "list", "--function", "hopeless")
	if len(list) != 3 || list[0].ActivationID != ids[2] || list[0].Attempts != 2 || list[0].Reason != "exit_nonzero" {
		a.t.Fatalf("the dead letters are %+v", list)
	}
	if table := strings.Split(a.faena("deadletters", "list", "--limit", "1"), "\n"); len(table) != 3 || !strings.HasPrefix(table[1], ids[2]+"  admin  hopeless  1 ") {
		a.t.Errorf("the table is\n%s", strings.Join(table, "\n"))
	}
	if table := a.faena("activations", "--function", "hopeless", "--limit", "1"); !strings.Contains(table, "  failed  exit_nonzero  2        ") {
		a.t.Errorf("the table of activations is\n%s", table)
	}
	if table := a.faena("get", ids[0]); !strings.Contains(table, "attempt 1    exit_nonzero: ") {
		a.t.Errorf("the record's table is\n%s", table)
	}
	if d := decode[client.DeadLetter](a, "deadletters", "show", ids[0]); d.Parameter.Text != "p0" || d.Function != "hopeless" {
		a.t.Errorf("it is %+v", d)
	}
	if table := a.faena("deadletters", "show", ids[0]); !strings.Contains(table, "attempts    2\n") {
		a.t.Errorf("its table is\n%s", table)
	}
	made := decode[client.Accepted](a, "deadletters", "redrive", ids[0])
	if r := a.reaches(made.ActivationID, ended); r.RedrivenFrom != ids[0] || r.State != client.StateFailed {
		a.t.Errorf("run again it is %+v", r)
	}
	if got := a.run(nil, "deadletters", "redrive", ids[0]); got.code != exitNotFound || !strings.Contains(got.err, "dead_letter_not_found") {
		a.t.Errorf("a second time %+v", got)
	}
	all := decode[client.Redriven](a, "deadletters", "redrive", "--all", "--function", "hopeless")
	for _, r := range all.Redriven {
		a.reaches(r.ActivationID, ended)
	}
	if len(all.Redriven) != 3 || len(all.Refused) != 0 || all.Redriven[0].From != ids[1] {
		a.t.Errorf("all run again are %+v", all)
	}
	left := decode[[]client.DeadLetter](a, "deadletters", "list")
	if got := a.run(nil, "deadletters", "purge", left[0].ActivationID); got.code != exitOK || got.out != "" {
		a.t.Errorf("purge: %+v", got)
	}
	if got := a.run(nil, "deadletters", "purge", "--all"); got.code != exitUsage || !strings.Contains(got.err, "--yes") {
		a.t.Errorf("purge of all without a terminal: %+v", got)
	}
	if got := decode[client.Purged](a, "deadletters", "purge", "--all", "--yes", "--user", "*"); got.Purged != len(left)-1 {
		a.t.Errorf("of %d are purged %d", len(left)-1, got.Purged)
	}
	for _, args := range []string{"redrive", "purge", "redrive a --all", "purge a b", "redrive a --function f"} {
		if got := a.run(nil, append([]string{"deadletters"}, strings.Fields(args)...)...); got.code != exitUsage {
			a.t.Errorf("deadletters %s: %+v", args, got)
		}
	}
}

// What has not started in the time that its caller gave is expired, and says so.
func testExpiry(a *account, s *site) {
	a.deploy("busy", s.image, mode("stubborn")...)
	a.deploy("late", s.image)
	var held []string
	for range places {
		held = append(held, a.async("busy", ""))
	}
	for _, id := range held {
		a.reaches(id, running)
	}
	id := strings.TrimSpace(a.faena("invoke", "late", "x", "--async", "--expires", "1s"))
	began := time.Now()
	if got := a.run(nil, "invoke", "late", "x", "--expires", "1s"); got.code != exitFunctionFailed && got.code != exitUnavailable || !strings.Contains(got.err, "expired") {
		a.t.Errorf("a call that waits: %+v", got)
	}
	if took := time.Since(began); took > 10*time.Second {
		a.t.Errorf("it has waited %s", took)
	}
	for _, id := range held {
		a.faena("cancel", id)
		a.reaches(id, ended)
	}
	if r := a.reaches(id, ended); r.State != client.StateFailed || r.Reason != "expired" || r.Attempt != 0 { // a worker meets it now
		a.t.Errorf("one that nobody waits for is %+v", r)
	}
}

// A function that is deleted and made again begins with revision 1 again, and with containers of its own.
func testMadeAgain(a *account, s *site) {
	for i := range 3 {
		a.deploy("again", s.image, append(mode("make", "/made"), "--writable-root")...)
		if got := a.faena("invoke", "again", ""); got != "written" {
			a.t.Errorf("made for the %d. time it runs where something ran before: %q", i+1, got)
		}
		if got := a.faena("invoke", "again", ""); got != "File exists" {
			a.t.Errorf("its second call runs in another container: %q", got)
		}
		a.faena("delete", "again")
	}
}

// testDrain: a drained worker takes nothing, finishes what it runs, and goes on when it is resumed.
func testDrain(a *account, s *site) {
	a.deploy("drained", s.image, mode("sleep", "1500")...)
	running1 := a.async("drained", "")
	a.reaches(running1, running)
	if w := decode[client.Worker](a, "workers", "drain", s.worker); !w.Draining || w.Ready || w.ID != s.worker {
		a.t.Errorf("drained it is %+v", w)
	}
	if table := a.faena("workers"); !strings.Contains(table, "draining") {
		a.t.Errorf("the table is\n%s", table)
	}
	if got := a.run(nil, "doctor"); got.code != exitFailed || !strings.Contains(got.out, "no worker is ready: "+s.worker+" was drained: faena workers resume "+s.worker) {
		a.t.Errorf("the doctor says: %+v", got)
	}
	faenatest.Eventually(a.t, 20*time.Second, "the API says it", func() bool {
		return strings.Contains(a.run(nil, "doctor").out, "workers: none of group default is ready: It was drained: faena workers resume "+s.worker)
	})
	waits := a.async("drained", "")
	if r := a.reaches(running1, ended); r.State != client.StateSucceeded {
		a.t.Errorf("what ran is %+v", r)
	}
	if r := a.record(waits); r.State != client.StateQueued {
		a.t.Errorf("what came then is %+v", r)
	}
	if got := a.run(nil, "workers", "resume", s.worker); got != (answer{exitOK, "", "Worker " + s.worker + " takes activations again.\n"}) {
		a.t.Errorf("resume: %+v", got)
	}
	if r := a.reaches(waits, ended); r.State != client.StateSucceeded {
		a.t.Errorf("resumed it is %+v", r)
	}
	faenatest.Eventually(a.t, 20*time.Second, "it is ready", func() bool { return strings.Contains(a.faena("workers"), "ready") })
	if got := a.run(nil, "workers", "drain", "none"); got.code != exitNotFound || !strings.Contains(got.err, "worker_not_found") {
		a.t.Errorf("one that is not there: %+v", got)
	}
}
