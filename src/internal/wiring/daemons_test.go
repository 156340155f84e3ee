package wiring_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

// TestDaemons is the API and the worker as two daemons, and what happens to them when what they stand on goes away and
// comes back. Its parts come in this order.
func TestDaemons(t *testing.T) {
	t.Parallel() // it waits more than it works
	d := startDaemons(t)
	body := client.UserProfile{Groups: map[string]int{"default": 10}, Password: "a-password-of-jorgeSD"}
	if _, err := client.Read[client.User](d.admin.PutUser(t.Context(), "jorgeSD", body)); err != nil {
		t.Fatal(err)
	}
	jorge := d.login(t, "jorgeSD")
	for name, mode := range map[string][]string{"arg": {"arg"}, "sleep": {"sleep"}, "stubborn": {"stubborn"}} {
		spec := client.Spec{Image: d.fixture, Args: mode, MemoryBytes: 32 << 20, Cpus: 0.5, Registry: &puller}
		if _, err := client.Read[client.Function](jorge.PutFunction(t.Context(), name, &client.PutFunctionParams{}, spec)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("the counters are in the bucket within a second", func(t *testing.T) { testCounters(t, d, jorge) })
	t.Run("NATS away", func(t *testing.T) { testNATSAway(t, d, jorge) })
	t.Run("engine away", func(t *testing.T) { testEngineAway(t, d, jorge) })
	t.Run("worker gone", func(t *testing.T) { testWorkerGone(t, d, jorge) })
}

// testCounters reads them with NATS's own client, as an operator's dashboard would.
func testCounters(t *testing.T, d *daemons, c *client.Client) {
	bucket, err := d.nats.JetStream(t).KeyValue(t.Context(), "users")
	if err != nil {
		t.Fatal(err)
	}
	becomes := func(within time.Duration, key, want string) {
		t.Helper()
		faenatest.EventuallyNil(t, within, key+" = "+want, func() error {
			e, err := bucket.Get(t.Context(), key)
			if err == nil && string(e.Value()) != want {
				err = fmt.Errorf("it is %s", e.Value())
			}
			return err
		})
	}
	ids := make([]string, 4)
	for k := range ids {
		ids[k] = async(t, c, "stubborn", "")
	}
	becomes(time.Second, "jorgeSD.activations.active", "4")
	for _, id := range ids {
		if _, err := client.Read[client.Activation](c.CancelActivation(t.Context(), id)); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		ended(t, c, id)
	}
	becomes(time.Second, "jorgeSD.activations.active", "0")
	must(t, c, "arg", "x")
	becomes(5*time.Second, "jorgeSD.activations.failed", "4")
	becomes(5*time.Second, "jorgeSD.activations.completed", "1")
}

func testNATSAway(t *testing.T, d *daemons, c *client.Client) {
	id := async(t, c, "sleep", "500")
	running(t, c, id)
	d.nats.Stop(0)
	d.says(t, d.apiOps, http.StatusServiceUnavailable, "queue: no connection to NATS")
	d.says(t, d.workerOp, http.StatusServiceUnavailable, "queue: no connection to NATS")
	began := time.Now()
	_, err := activate(t.Context(), c, "arg", []byte("x"))
	if f := failure(t, err); f.Status != http.StatusServiceUnavailable || !f.Retryable || time.Since(began) > 5*time.Second {
		t.Errorf("the call is answered %d %s, retryable %v, after %v", f.Status, f.Reason, f.Retryable, time.Since(began))
	}
	if live, err := client.Read[client.Liveness](c.GetHealth(t.Context())); err != nil || live.Status != "ok" {
		t.Errorf("the API does not live: %+v, %v", live, err)
	}
	d.nats.Start(t, 0)
	d.ready(t, d.apiOps)
	d.ready(t, d.workerOp)
	if a := ended(t, c, id); a.State != client.StateSucceeded {
		t.Errorf("what was accepted before is %s: %s", a.State, a.Message)
	}
	if out := must(t, c, "arg", "back"); out != "back" {
		t.Errorf("got %q", out)
	}
}

func testEngineAway(t *testing.T, d *daemons, c *client.Client) {
	d.engine.away()
	d.says(t, d.workerOp, http.StatusServiceUnavailable, "worker: The container engine does not answer")
	id := async(t, c, "arg", "patience")
	d.engine.back(t)
	d.ready(t, d.workerOp)
	ended(t, c, id)
	if out, _, err := result(t.Context(), c, id); err != nil || string(out) != "patience" {
		t.Errorf("the result is %q, %v", out, err)
	}
}

func testWorkerGone(t *testing.T, d *daemons, c *client.Client) {
	id := async(t, c, "sleep", "300")
	running(t, c, id)
	d.stopWorker()
	if a := ended(t, c, id); a.State != client.StateSucceeded {
		t.Errorf("what it held when it was stopped is %s: %s", a.State, a.Message)
	}
	d.says(t, d.apiOps, http.StatusOK, "workers: none in group default")
	began := time.Now()
	_, err := activate(t.Context(), c, "arg", []byte("x"))
	f := failure(t, err)
	if f.Status != http.StatusServiceUnavailable || f.Reason != "no_worker" || !f.Retryable || time.Since(began) > 5*time.Second {
		t.Errorf("the call is answered %d %s, retryable %v, after %v", f.Status, f.Reason, f.Retryable, time.Since(began))
	}
	if a := ended(t, c, f.ActivationID); a.Reason != "no_worker" {
		t.Errorf("its record says %s, %s", a.State, a.Reason)
	}
	if u := usage(t, c, "jorgeSD"); u.Active != 0 {
		t.Errorf("%d slots are in use for ever", u.Active)
	}
}
