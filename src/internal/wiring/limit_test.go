package wiring_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

// hold occupies every place of the worker until release is called: what is accepted meanwhile stays queued.
func (i *installation) hold(t *testing.T) (release func()) {
	t.Helper()
	workers, err := client.Read[client.WorkerList](i.admin.ListWorkers(t.Context()))
	if err != nil || len(workers.Items) != 1 {
		t.Fatalf("the workers are %+v, %v", workers, err)
	}
	holder := i.user(t, "holder", 100)
	i.deploy(t, holder, "stubborn", func(s *client.Spec) { s.Cpus = 0.1 }, "stubborn")
	ids := make([]string, workers.Items[0].Places)
	for k := range ids {
		ids[k] = async(t, holder, "stubborn", "")
	}
	ctx := context.WithoutCancel(t.Context())
	release = sync.OnceFunc(func() {
		for _, id := range ids {
			if _, err := client.Read[client.Activation](holder.CancelActivation(ctx, id)); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(release)
	for _, id := range ids {
		running(t, holder, id)
	}
	return release
}

func usage(t *testing.T, c *client.Client, user string) client.Usage {
	t.Helper()
	u, err := client.Read[client.Usage](c.GetUsage(t.Context(), user))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func testLimit(t *testing.T, i *installation) {
	const limit = 4
	jorge := i.user(t, "jorgeSD", limit)
	i.deploy(t, jorge, "arg", nil, "arg")
	t.Run("exactly N of 500 parallel calls are admitted", func(t *testing.T) { testFlood(t, i, jorge, limit) })
	t.Run("all are accounted for", func(t *testing.T) {
		faenatest.EventuallyNil(t, 10*time.Second, "nothing is active, all are counted", func() error {
			if u := usage(t, jorge, "jorgeSD"); u.Active != 0 || u.Completed != limit || u.Failed != 0 || u.Limit != limit {
				return fmt.Errorf("usage is %+v", u)
			}
			return nil
		})
		size := 200
		p, err := client.Read[client.ActivationPage](jorge.ListActivations(t.Context(), &client.ListActivationsParams{Limit: &size}))
		if err != nil || len(p.Items) != limit || p.Next != "" {
			t.Fatalf("%d are in the history, want %d: what was refused has left nothing; %v", len(p.Items), limit, err)
		}
	})
	t.Run("one client at limit 1, one call after the other, is never refused", func(t *testing.T) {
		i.limit(t, "jorgeSD", 1, "")
		for n := range 300 {
			if out, err := activate(t.Context(), jorge, "arg", []byte(strconv.Itoa(n))); err != nil || string(out) != strconv.Itoa(n) {
				t.Fatalf("call %d: %q, %v", n, out, err)
			}
		}
	})
	t.Run("a limit that changes while work is queued loses nothing", func(t *testing.T) { testLimitChanges(t, i, jorge) })
}

// testFlood makes 500 calls while the worker takes nothing, so that none can end before all were answered or admitted.
func testFlood(t *testing.T, i *installation, c *client.Client, limit int64) {
	release := i.hold(t)
	var admitted, refused atomic.Int64
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for n := range 500 {
		parameter := []byte(strconv.Itoa(n))
		wg.Go(func() {
			<-gate
			res, err := c.ActivateWithBody(t.Context(), "arg", &client.ActivateParams{}, "text/plain", bytes.NewReader(parameter))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = res.Body.Close() }()
			body, err := io.ReadAll(res.Body)
			after, afterErr := strconv.Atoi(res.Header.Get("Retry-After"))
			switch {
			case res.StatusCode == http.StatusOK && err == nil && bytes.Equal(body, parameter):
				admitted.Add(1)
			case res.StatusCode == http.StatusTooManyRequests && afterErr == nil && after >= 1:
				refused.Add(1)
			default:
				t.Errorf("%s, Retry-After %q, %q, %v", res.Status, res.Header.Get("Retry-After"), body, err)
			}
		})
	}
	close(gate)
	faenatest.EventuallyNil(t, 30*time.Second, "all are answered but those that were admitted", func() error {
		if n := refused.Load(); n != 500-limit {
			return fmt.Errorf("%d are refused", n)
		}
		return nil
	})
	if u := usage(t, c, "jorgeSD"); u.Active != limit {
		t.Errorf("%d are active, want %d", u.Active, limit)
	}
	release()
	wg.Wait()
	if n := admitted.Load(); n != limit {
		t.Errorf("%d have ended well, want %d", n, limit)
	}
}

func testLimitChanges(t *testing.T, i *installation, c *client.Client) {
	release := i.hold(t)
	var ids []string
	accept := func(n int) {
		for range n {
			ids = append(ids, async(t, c, "arg", strconv.Itoa(len(ids))))
		}
	}
	refuse := func(why string) {
		t.Helper()
		if _, err := activate(t.Context(), c, "arg", []byte("x")); failure(t, err).Status != http.StatusTooManyRequests {
			t.Errorf("%s: %v", why, err)
		}
	}
	i.limit(t, "jorgeSD", 10, "")
	accept(8) // asynchronous calls leave a fifth of the limit
	i.limit(t, "jorgeSD", 2, "")
	refuse("8 are active, and 2 are allowed")
	i.limit(t, "jorgeSD", 20, "")
	accept(3)
	i.limit(t, "jorgeSD", 11, "")
	refuse("11 are active, and 11 are allowed")
	release()
	for n, id := range ids {
		if a := ended(t, c, id); a.State != client.StateSucceeded {
			t.Errorf("number %d %s: %s", n, a.State, a.Message)
		}
		if out, _, err := result(t.Context(), c, id); err != nil || string(out) != strconv.Itoa(n) {
			t.Errorf("the result of number %d is %q, %v", n, out, err)
		}
	}
}
