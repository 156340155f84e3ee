package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
)

var _ Bus = (*natsbus.Bus)(nil)

func TestControl_Activate(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 4)
	r.deploy("ann", "f")
	w := r.worker(2, echo)

	t.Run("GivesTheResultAsItIs", func(t *testing.T) {
		for _, p := range []string{"", "x", "\x00\xff\r\n", strings.Repeat("\xfe", 1000)} {
			rec, err := r.call(p)
			noError(t, err)
			if rec.State != faena.StateSucceeded || string(rec.Result.Inline) != p || rec.User != "ann" || rec.Instance != "api-1" || rec.Worker != w.id {
				t.Errorf("%q gives %+v", p, rec)
			}
		}
	})
	t.Run("TheMessageCarriesTheRevision", func(t *testing.T) {
		f := r.deploy("ann", "f")
		seen := make(chan *faena.Message, 1)
		w.does(func(j *job) (string, faena.Reason) { seen <- j.message; return "", "" })
		defer w.does(echo)
		rec, err := r.call("")
		noError(t, err)
		m := <-seen
		if m.ID != rec.ID || m.Revision.Number != f.Current || rec.Revision != f.Current || m.Revision.Digest != rec.Digest || m.Revision.User != "ann" {
			t.Errorf("the message is %+v, the record %+v", m, rec)
		}
	})
	t.Run("AFailureIsARecord", func(t *testing.T) {
		w.does(func(*job) (string, faena.Reason) { return "half", faena.ReasonExitNonzero })
		defer w.does(echo)
		rec, err := r.call("")
		noError(t, err)
		if rec.State != faena.StateFailed || rec.Reason != faena.ReasonExitNonzero {
			t.Errorf("the record is %+v", rec)
		}
	})
	t.Run("ALargeParameterIsAnObjectUntilItHasEnded", func(t *testing.T) {
		for _, size := range []int{faena.MaxInlineBytes, faena.MaxInlineBytes + 1, 6 << 20} {
			seen := make(chan faena.Blob, 1)
			w.does(func(j *job) (string, faena.Reason) {
				seen <- j.message.Parameter
				return fmt.Sprint(len(j.parameter), bytes.Count(j.parameter, []byte("p"))), ""
			})
			rec, err := r.call(strings.Repeat("p", size))
			noError(t, err)
			if want := fmt.Sprint(size, size); string(rec.Result.Inline) != want {
				t.Errorf("of %d bytes the function got %s", size, rec.Result.Inline)
			}
			if p := <-seen; (p.Object != "") != (size > faena.MaxInlineBytes) || p.Size != int64(size) || p.Object != "" && p.Inline != nil {
				t.Errorf("the parameter of %d bytes is %q in the store, %d inline", size, p.Object, len(p.Inline))
			}
		}
		w.does(echo)
		r.quiet()
	})
	t.Run("WhatCannotBePassedIsRefused", func(t *testing.T) {
		r.deploy("ann", "arg", func(s *faena.Spec) { s.Input = faena.InputArg })
		before := w.ran.Load()
		for _, c := range []struct {
			function, parameter string
			kind                faena.Kind
			reason              string
		}{
			{"absent", "", faena.KindNotFound, "function_not_found"},
			{"f", strings.Repeat("x", 6<<20+1), faena.KindTooLarge, "parameter_too_large"},
			{"arg", strings.Repeat("x", 131_072), faena.KindTooLarge, "parameter_too_large"},
			{"arg", "a\x00b", faena.KindInvalid, "invalid"},
		} {
			_, err := r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: c.function, Parameter: []byte(c.parameter)})
			if e := isKind(t, err, c.kind); e.Reason != c.reason {
				t.Errorf("%s with %d bytes: %v", c.function, len(c.parameter), err)
			}
		}
		rec, err := r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "arg", Parameter: bytes.Repeat([]byte("x"), 131_071)})
		noError(t, err)
		if rec.Result.Size != 131_071 || w.ran.Load() != before+1 {
			t.Errorf("%d ran, the last with %d bytes", w.ran.Load()-before, rec.Result.Size)
		}
		_, err = r.Activate(t.Context(), faena.ActivationRequest{User: "bob", Function: "f"})
		isKind(t, err, faena.KindNotFound) // ann's
	})
	r.quiet()
}

func TestControl_Activate_Async(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 4)
	r.deploy("ann", "f")
	rec, err := r.send("later")
	noError(t, err)
	if rec.State != faena.StateQueued || rec.Instance != "" || rec.StartWithin() != time.Hour {
		t.Errorf("the record is %+v", rec)
	}
	short, err := r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "f", Async: true, Expires: time.Minute,
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", RequestID: "req-7"})
	noError(t, err)
	if short.StartWithin() != time.Minute || short.Traceparent == "" || short.RequestID != "req-7" {
		t.Errorf("the record is %+v", short)
	}
	_, _, err = r.Result(t.Context(), "ann", rec.ID)
	if e := isKind(t, err, faena.KindConflict); e.Reason != "not_ended" || !e.Retryable {
		t.Errorf("the result of a queued one is %+v", e)
	}
	r.worker(1, echo)
	r.becomes(rec.ID, faena.StateSucceeded)
	_, p, err := r.Result(t.Context(), "ann", rec.ID)
	noError(t, err)
	if string(p) != "later" {
		t.Errorf("the result is %q", p)
	}
	r.stored(2)
	r.quiet()
}

func TestControl_Activate_CallerGoesAway(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 4)
	r.deploy("ann", "f")
	g := newGate()
	r.worker(1, g.run)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := r.Activate(ctx, faena.ActivationRequest{User: "ann", Function: "f", Parameter: []byte("on")})
		ended <- err
	}()
	faenatest.Eventually(t, patience, "it runs", func() bool { return g.running.Load() == 1 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the call returns %v", err)
	}
	busy, err := r.bus.BusySlots(t.Context(), group, "ann")
	if err != nil || len(busy) != 1 || g.running.Load() != 1 {
		t.Errorf("slots in use are %v, %v; %d run", busy, err, g.running.Load())
	}
	close(g.open)
	if list := r.stored(1); list[0].State != faena.StateSucceeded {
		t.Errorf("it ended as %s", list[0].State)
	}
	r.quiet()
}

// A call answers with the record as it is where it takes longer than a call may, and where its API is stopped.
func TestControl_Activate_AnswersBeforeTheEnd(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.syncWait = 300 * time.Millisecond
	r.user("ann", 4)
	r.deploy("ann", "f")
	g := newGate()
	r.worker(2, g.run)
	rec, err := r.call("slow")
	noError(t, err)
	if rec.State.Terminal() || rec.ID == "" {
		t.Errorf("the record is %+v", rec)
	}

	r.syncWait = time.Minute
	answered := make(chan faena.Record, 1)
	go func() {
		rec, err := r.call("slower")
		if err != nil {
			t.Error(err)
		}
		answered <- rec
	}()
	faenatest.Eventually(t, patience, "both run", func() bool { return g.running.Load() == 2 })
	r.Drain(t.Context())
	other := <-answered
	if other.State.Terminal() || other.ID == rec.ID {
		t.Errorf("the record is %+v", other)
	}
	close(g.open)
	for id, want := range map[string]string{rec.ID: "slow", other.ID: "slower"} {
		r.becomes(id, faena.StateSucceeded)
		if _, p, err := r.Result(t.Context(), "ann", id); err != nil || string(p) != want {
			t.Errorf("the result is %q, %v", p, err)
		}
	}
}

func TestControl_Activate_NoWorker(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 1)
	r.deploy("ann", "f")
	for range 2 { // the slot is free again
		start := time.Now()
		_, err := r.call(strings.Repeat("x", faena.MaxInlineBytes+1))
		e := isKind(t, err, faena.KindUnavailable)
		if e.Reason != "no_worker" || !e.Retryable || e.Activation == "" || e.RetryAfter <= 0 {
			t.Errorf("the error is %+v", e)
		}
		if took := time.Since(start); took >= rereadEvery { // somebody has told it
			t.Errorf("it took %v", took)
		}
	}
	for _, rec := range r.stored(2) {
		if rec.State != faena.StateFailed || rec.Reason != faena.ReasonNoWorker {
			t.Errorf("it ended as %s, %s", rec.State, rec.Reason)
		}
	}
	// An asynchronous one waits for a worker that comes later.
	id := r.accepted("later")
	missing, ready := r.Ready(t.Context())
	if !ready || !strings.Contains(strings.Join(missing, " "), "workers: none in group default") {
		t.Errorf("ready is %v, missing are %q", ready, missing)
	}
	r.worker(1, echo)
	r.becomes(id, faena.StateSucceeded)
	faenatest.Eventually(t, patience, "nothing is missing", func() bool { missing, _ := r.Ready(t.Context()); return len(missing) == 0 })
	r.quiet()
}

// A worker that has gone is missed only when it has been away for a while: a call that waits meanwhile is not given up.
func TestControl_Activate_WorkerRestarts(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 1)
	r.deploy("ann", "f")
	r.worker(1, echo).stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		if rec, err := r.call("x"); err != nil || rec.State != faena.StateSucceeded {
			t.Errorf("the call gives %+v, %v", rec, err)
		}
	})
	time.AfterFunc(time.Second, func() { r.worker(1, echo) })
	wg.Wait()
}

func TestControl_Activate_DocumentsAway(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 4)
	r.deploy("ann", "f")
	r.worker(1, echo)
	_, err := r.call("before")
	noError(t, err)
	r.stored(1)
	r.documents.away.Store(true)
	r.functions.now = func() time.Time { return time.Now().Add(2 * cacheAge) } // what is known is old
	for range 5 {
		rec, err := r.call("while")
		noError(t, err)
		if got, err := r.Activation(t.Context(), "ann", rec.ID); err != nil || got.State != faena.StateSucceeded { // from the bucket
			t.Errorf("its record is %+v, %v", got, err)
		}
	}
	_, _, _, _, err = r.Deploy(t.Context(), "ann", faena.Deployment{Name: "g", Spec: faena.Spec{Image: "i"}})
	if err == nil {
		_, err = r.PutUser(t.Context(), faena.User{Name: "bob"}, "")
	}
	isKind(t, err, faena.KindUnavailable)
	missing, ready := r.Ready(t.Context())
	if !ready || !strings.Contains(strings.Join(missing, " "), "documents: ") {
		t.Errorf("ready is %v, missing are %q", ready, missing)
	}
	r.documents.away.Store(false)
	r.stored(6) // the history catches up
	r.quiet()
}

// A call that no worker can start in time is answered then, although all workers are busy for longer.
func TestControl_Activate_ExpiresWhileWorkersAreBusy(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	g := newGate()
	r.worker(1, g.run)
	r.accepted("busy")
	faenatest.Eventually(t, patience, "one runs", func() bool { return g.running.Load() == 1 })
	began := time.Now()
	rec, err := r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "f", Parameter: []byte("x"), Expires: time.Second})
	if took := time.Since(began); err != nil || rec.Reason != faena.ReasonExpired || took < time.Second || took >= rereadEvery {
		t.Errorf("after %v it is %s, %s, %v", took, rec.State, rec.Reason, err)
	}
	if busy, err := r.bus.BusySlots(t.Context(), group, "ann"); err != nil || len(busy) != 1 {
		t.Errorf("slots %v are in use, %v", busy, err)
	}
	close(g.open)
	r.stored(2)
	r.quiet()
}
