//go:build packages

package packages_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/tools/chaos/history"
	"faena.dev/faena/internal/tools/chaos/load"
)

// callers stay below their limits, so that nothing of theirs is refused; together they want more at times than the worker runs at once.
var callers = []load.User{
	{Name: "ann", Password: "a-password-of-ann", Limit: 20, Waiting: 2, Async: 3},
	{Name: "bob", Password: "a-password-of-bob", Limit: 20, Waiting: 2, Async: 1},
	{Name: "dot", Password: "a-password-of-dot", Limit: 100, Every: 500 * time.Millisecond},
}

// called are functions that are never run again.
var called = []load.Function{
	{Name: "short", Longest: 50 * time.Millisecond},
	{Name: "long", Shortest: time.Second, Longest: 5 * time.Second},
}

// stopWithin is how long an API may take to end (TimeoutStopSec=): it answers first what still waits. Who connects meanwhile is not refused, and
// answered by the next one. Gateways wait for a minute.
const stopWithin = 30 * time.Second

// traffic is a load on a host, with what its clients were told, and what its functions did.
type traffic struct {
	history *history.History
	gateway *load.Gateway
	load    *load.Load
	began   time.Time
}

// caller is a client of a host's API, which trusts its CA.
func (h *host) caller(t *testing.T) *load.Gateway {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(h.Run(t, "cat /etc/faena/tls/ca.pem"))) {
		t.Fatal("the CA of the host is no certificate")
	}
	g := load.NewGateway([]load.API{{URL: "https://" + net.JoinHostPort(h.Address(t), "8443")}}, &tls.Config{RootCAs: roots})
	g.Wait(stopWithin)
	t.Cleanup(g.Close)
	return g
}

// put makes a call that is to succeed, and repeats it while the API is not ready.
func put(t *testing.T, g *load.Gateway, who load.User, path string, body any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	faenatest.EventuallyNil(t, time.Minute, "PUT "+path, func() error {
		a := g.Do(t.Context(), who, http.MethodPut, path, text, "Content-Type", "application/json")
		switch {
		case a.Err == nil && a.Status/100 == 2:
			return nil
		case a.Err == nil && a.Status/100 == 4 && !bytes.Contains(a.Body, []byte("is pending")):
			t.Fatalf("PUT %s answers %d: %.500s", path, a.Status, a.Body)
		}
		return fmt.Errorf("it answers %d: %.500s (%v)", a.Status, a.Body, a.Err)
	})
}

// traffic makes users and functions, and begins to call.
func (h *host) traffic(t *testing.T, admin load.User, seed uint64) *traffic {
	t.Helper()
	x := &traffic{history: history.New(), gateway: h.caller(t)}
	ledger, err := load.OpenLedger(net.JoinHostPort(h.site.gateway, "0"), x.history)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ledger.Close)
	image := h.site.push(t, filepath.Join(faenatest.SourceDir(t), "internal", "tools", "chaos", "testdata", "function.c"), "/bin/function")
	for _, u := range callers {
		put(t, x.gateway, admin, "/v1/users/"+u.Name, map[string]any{"role": "user", "groups": map[string]int{"default": u.Limit}, "password": u.Password})
		for _, f := range called {
			put(t, x.gateway, u, "/v1/functions/"+f.Name, map[string]any{"image": image, "args": []string{h.site.gateway, ledger.Port()},
				"memory_bytes": 32 << 20, "timeout_ms": load.Timeout.Milliseconds()})
		}
	}
	x.began = time.Now()
	x.load = load.Start(t.Context(), x.gateway, x.history, callers, called, seed)
	t.Cleanup(x.load.Stop)
	return x
}

// flows waits until so many calls have been answered as they should be since a moment.
func (x *traffic) flows(t *testing.T, since time.Time, n int) {
	t.Helper()
	faenatest.EventuallyNil(t, time.Minute, "calls are answered", func() error {
		if got := x.history.GoodSince(since); got < n {
			return fmt.Errorf("only %d have been", got)
		}
		return nil
	})
}

// gap is the longest time without a good answer since a moment.
func (x *traffic) gap(since time.Time) time.Duration {
	longest, _ := x.history.Gap(since, time.Now())
	return longest.Round(time.Millisecond)
}

// settle ends the load and checks all that was seen: nothing that was accepted is lost from the history, has no end, or was run twice.
func (x *traffic) settle(t *testing.T) history.Numbers {
	t.Helper()
	x.load.Quiesce(90 * time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, u := range callers {
		var all []history.Sight
		faenatest.EventuallyNil(t, 30*time.Second, "the history of "+u.Name, func() (err error) {
			all, err = load.List(ctx, x.gateway, u)
			return err
		})
		x.history.Listed(u.Name, all)
	}
	for _, b := range x.history.Check(true) {
		t.Errorf("%v", b)
	}
	n := x.history.Numbers()
	t.Logf("in %v: %+v, the longest time without a good answer was %v", time.Since(x.began).Round(time.Second), n, x.gap(x.began))
	if n.RanTwice > 0 {
		t.Errorf("%d activations were run twice", n.RanTwice)
	}
	if n.Accepted == 0 {
		t.Error("nothing was accepted")
	}
	return n
}

// unnoticed fails the test where any caller has noticed anything: a connection that was refused or broke, an answer 5xx, a call that was not
// accepted, an activation that did not succeed.
func (x *traffic) unnoticed(t *testing.T, n history.Numbers) {
	t.Helper()
	if n.Refused > 0 || n.Unknown > 0 || n.WorkerLost > 0 || n.Open > 0 || n.Succeeded != n.Accepted || n.Accepted != n.Calls {
		t.Errorf("something was noticed: %+v", n)
	}
	for _, c := range x.history.Calls() {
		if !c.Good {
			t.Errorf("a call of %s for %s from %s to %s was not answered as it should be: %q %s %s", c.User, c.Function,
				c.Sent.Format("15:04:05.000"), c.Answered.Format("15:04:05.000"), c.ID, c.Broke, c.Strange)
		}
	}
}
