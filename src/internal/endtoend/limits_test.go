package endtoend_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/endtoend/installation"
)

// testHeld fills all places. What runs and what waits is cancelled at the API that has not taken it, and a log is read there while
// it is written.
func (i life) testHeld(t *testing.T) {
	bob := i.User(t, "bob", 20)
	bob.DeployHold(t, "bobs")
	var held []string
	for n := range installation.Places * len(i.Workers) {
		held = append(held, bob.At(n%2).Queue(t, "bobs", fmt.Sprint("held-", n)))
	}
	for n, id := range held {
		bob.At(n%2).Other().Is(t, 40*time.Second, id, client.StateRunning)
	}
	waiting := bob.Queue(t, "bobs", "waits")
	if a, err := bob.Other().Record(t, waiting); err != nil || a.State != client.StateQueued {
		t.Errorf("with all places taken it is %s, %v", a.State, err)
	}
	for id, was := range map[string]string{waiting: "queued", held[0]: "running"} {
		if _, err := client.Read[client.Activation](bob.Other().Delete(t, "/v1/activations/"+id)); err != nil {
			t.Errorf("cancel a %s one: %v", was, err)
		}
		if a := bob.Is(t, 10*time.Second, id, client.StateCancelled); a.Reason != "cancelled" {
			t.Errorf("a %s one that was cancelled has reason %s", was, a.Reason)
		}
	}
	i.testFollow(t, bob, held[1])
	bob.Finish(t, "bobs", held[1:]...)
}

// testFollow follows the log of an activation that api-2 has taken, and which is held, at api-1.
func (i life) testFollow(t *testing.T, bob installation.Caller, id string) {
	res, err := client.Stream(bob.Do(t, http.MethodGet, "/v1/activations/"+id+"/logs?follow=true", nil, "Accept", "text/event-stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var log strings.Builder
	event := ""
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			event = name
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case !ok:
		case event == "log":
			var l client.LogEvent
			if err := json.Unmarshal([]byte(data), &l); err != nil {
				t.Fatalf("%q: %v", data, err)
			}
			if log.Len() == 0 { // it comes while the function runs
				if a, err := bob.Record(t, id); err != nil || a.State != client.StateRunning {
					t.Errorf("at its first frame it is %s, %v", a.State, err)
				}
			}
			if log.Write(l.Data); log.String() == "holding held-1\n" {
				i.Release(t, "bobs", "held-1")
			}
		case event == "end":
			var end client.EndEvent
			if err := json.Unmarshal([]byte(data), &end); err != nil || end.State != client.StateSucceeded || end.ActivationID != id {
				t.Errorf("the log ends with %+v, %v", end, err)
			}
			if log.String() != "holding held-1\n" {
				t.Errorf("the log is %q", log.String())
			}
			return
		}
	}
	t.Errorf("the log ends without an end, after %q", log.String())
}

// testLimit calls for much more than a user may have active, at both APIs at once: exactly his limit is admitted, and the
// counters agree afterwards.
func (i life) testLimit(t *testing.T) {
	const calls, limit = 500, 7
	cid := i.User(t, "cid", limit)
	cid.DeployHold(t, "cids")
	answers := make(chan installation.Answer, calls)
	var wg sync.WaitGroup
	for n := range calls {
		wg.Go(func() { answers <- cid.At(n%2).Activate(t, "cids", fmt.Sprint("call-", n)) })
	}
	defer func() {
		all := make(chan struct{})
		go func() { wg.Wait(); close(all) }()
		for {
			i.Release(t, "cids")
			select {
			case <-all:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	// Nothing ends before all but as many as the limit are refused: so no place becomes free meanwhile.
	for range calls - limit {
		select {
		case a := <-answers:
			if a.Status != http.StatusTooManyRequests || a.Problem.Reason != "limit_reached" || !a.Problem.Retryable {
				t.Fatalf("beyond the limit it answers %d: %+v %v", a.Status, a.Problem, a.Err)
			}
			if after, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || after < 1 {
				t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
			}
		case <-time.After(time.Minute):
			t.Fatal("not all calls beyond the limit were answered")
		}
	}
	usage, err := cid.Usage(t)
	if err != nil || usage.Active != limit || usage.Limit != limit {
		t.Errorf("with all refused the usage is %+v, %v", usage, err)
	}
	for left := limit; left > 0; {
		i.Release(t, "cids")
		select {
		case a := <-answers:
			if left--; a.Status != http.StatusOK || !strings.HasPrefix(a.Body, "call-") {
				t.Errorf("an admitted one answers %d %q: %+v %v", a.Status, a.Body, a.Problem, a.Err)
			}
		case <-time.After(100 * time.Millisecond):
		}
	}
	i.countersAre(t, "cid", 0, limit, 0)
}

// countersAre waits until the counters in KV say this.
func (i life) countersAre(t *testing.T, user string, active, completed, failed int) {
	t.Helper()
	kv, err := i.NATS.JetStream(t).KeyValue(t.Context(), "users")
	if err != nil {
		t.Fatal(err)
	}
	installation.Within(t, 10*time.Second, "the counters of "+user+" are right", func() error {
		for name, want := range map[string]int{"active": active, "completed": completed, "failed": failed} {
			e, err := kv.Get(t.Context(), user+".activations."+name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if string(e.Value()) != strconv.Itoa(want) {
				return fmt.Errorf("%s is %s, want %d", name, e.Value(), want)
			}
		}
		return nil
	})
}
