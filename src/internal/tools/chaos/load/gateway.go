package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// User is who calls.
type User struct {
	Name, Password string
	Limit          int // of active activations
	Waiting, Async int // how many of his clients wait for an answer, and how many do not; each makes one call after the other
	// Every is the time between two calls that are made however long those before take: they show when there is service at all. 0:
	// there are none.
	Every time.Duration
}

// API is where one API listens.
type API struct{ URL, Operations string }

// Gateway spreads calls over the APIs as a gateway does: in turn over those whose readiness check answers well, and without
// repeating a call that may have arrived. It is safe for concurrent use.
type Gateway struct {
	targets []*target
	next    atomic.Uint64
	http    *http.Client
}

type target struct {
	API
	ready atomic.Bool
}

// NewGateway makes a gateway that trusts a CA; run Check beside it.
func NewGateway(apis []API, trust *tls.Config) *Gateway {
	g := &Gateway{http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, TLSClientConfig: trust, TLSHandshakeTimeout: 5 * time.Second,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}}}
	for _, a := range apis {
		t := &target{API: a}
		t.ready.Store(true)
		g.targets = append(g.targets, t)
	}
	return g
}

// Wait has calls wait so long for an API that takes their connection and says nothing yet, as one does that is started again. It is called first.
func (g *Gateway) Wait(within time.Duration) {
	g.http.Transport.(*http.Transport).TLSHandshakeTimeout = within
}

// checkEvery is how often the APIs are looked at, and checkWithin how long they may take to answer that.
const (
	checkEvery  = time.Second
	checkWithin = 2 * time.Second
)

// Check looks at the APIs until ctx ends.
func (g *Gateway) Check(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, t := range g.targets {
			go func() { t.ready.Store(Ready(ctx, t.Operations) == nil) }()
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// Ready asks an operations listener whether its daemon takes work.
func Ready(ctx context.Context, operations string) error {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+operations+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it is read
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %d: %.300s", res.StatusCode, text)
	}
	return err
}

// choose is the next API in turn that is ready; the next one of all where none is.
func (g *Gateway) choose() *target {
	for range g.targets {
		if t := g.targets[g.next.Add(1)%uint64(len(g.targets))]; t.ready.Load() {
			return t
		}
	}
	return g.targets[g.next.Add(1)%uint64(len(g.targets))]
}

// Answer is that of an API.
type Answer struct {
	Err    error // there is none
	Sent   bool  // with Err: the request may have arrived
	Status int
	Header http.Header
	Body   []byte
	API    string
}

// Do makes a call. headers are pairs.
func (g *Gateway) Do(ctx context.Context, who User, method, path string, body []byte, headers ...string) (a Answer) {
	t := g.choose()
	a.API = t.URL
	var connected atomic.Bool // for this request
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, method, t.URL+path, bytes.NewReader(body))
	if err != nil {
		a.Err = err
		return a
	}
	req.GetBody = nil // nothing is sent twice
	req.SetBasicAuth(who.Name, who.Password)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := g.http.Do(req)
	if err != nil {
		if a.Err, a.Sent = err, connected.Load(); !a.Sent {
			t.ready.Store(false) // until the next check
		}
		return a
	}
	defer func() { _ = res.Body.Close() }() // it is read
	a.Status, a.Header, a.Sent = res.StatusCode, res.Header, true
	a.Body, a.Err = io.ReadAll(res.Body)
	return a
}

// Close closes the connections that are idle.
func (g *Gateway) Close() { g.http.CloseIdleConnections() }
