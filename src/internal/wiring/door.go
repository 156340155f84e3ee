package wiring

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/httpapi"
)

const (
	// startPatience is how long, from the start of an API on, calls wait for it: a restart with everything there takes less, and no
	// caller notices it. Calls that come later, or have waited until then, are told that it is starting.
	startPatience = 5 * time.Second
	// startAgain is when they may ask again.
	startAgain = 2 * time.Second
	// closeWithin is how long an API that is stopped while it starts may take to tell those who wait.
	closeWithin = 500 * time.Millisecond
	// leaveFor is how long an API that is to end still answers on the connections that it has, each of which it closes behind its answer:
	// package http drops what it reads after Shutdown, and a connection that is closed while nothing is on its way may be so just when a
	// client uses it again. leaveEarly is that of an API which was never there.
	leaveFor   = time.Second
	leaveEarly = 100 * time.Millisecond
)

// door is the server of an API. It may serve before the API is there: a socket that systemd has passed refuses nobody, so that who
// is not served there would wait, with a handshake that nobody answers.
//
//	serve ──► calls wait for startPatience, then are answered 503 ──► open ──► the API answers, also those that wait
type door struct {
	tls      *tls.Config // nil: plain HTTP
	server   *http.Server
	starting http.Handler // answers before the API is there
	until    time.Time    // calls wait for it
	api      *httpapi.API // from open on
	opened   chan struct{}
	closing  chan struct{}
	served   chan error // what Serve has returned
	serving  sync.WaitGroup
	listener net.Listener // from serve on
	leaving  atomic.Bool  // connections are closed behind their answers
}

// newDoor makes the door of an API that is starting: health tells what it lacks.
func newDoor(s config.Serve, health httpapi.Health, observer httpapi.Observer, log *slog.Logger) (*door, error) {
	config, err := serverTLS(s)
	if err != nil {
		return nil, err
	}
	// Nobody gets beyond the authentication, so that there is nothing behind it.
	starting := httpapi.New(httpapi.Options{Health: health, Auth: startingError{}, Observer: observer, Logger: log})
	d := &door{tls: config, server: starting.Server(), starting: starting, until: time.Now().Add(startPatience),
		opened: make(chan struct{}), closing: make(chan struct{}), served: make(chan error, 1)}
	d.server.Handler = d
	return d, nil
}

// serve takes calls on a listener, in a goroutine.
func (d *door) serve(l net.Listener) {
	d.listener = l
	if d.tls != nil {
		l = tls.NewListener(l, d.tls)
	}
	d.serving.Go(func() { d.served <- d.server.Serve(l) })
}

// open lets calls through to the API.
func (d *door) open(api *httpapi.API) {
	d.server.RegisterOnShutdown(api.Close)
	d.api = api
	close(d.opened)
}

// leave takes no more connections, and has clients let go of those that there are. It is for a socket that systemd holds, in which who calls
// waits for the next API. Its second call does nothing.
func (d *door) leave(after time.Duration) {
	if d.listener == nil || d.leaving.Swap(true) {
		return
	}
	_ = d.listener.Close() // Serve returns
	time.Sleep(after)
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.leaving.Load() {
		w.Header().Set("Connection", "close")
	}
	select {
	case <-d.opened:
		d.api.ServeHTTP(w, r)
		return
	default:
	}
	if strings.HasPrefix(r.URL.Path, "/v1/") { // who asks for its health is told at once
		patience := time.NewTimer(time.Until(d.until))
		defer patience.Stop()
		select {
		case <-d.opened:
			d.api.ServeHTTP(w, r)
			return
		case <-patience.C:
		case <-d.closing:
		case <-r.Context().Done():
		}
	}
	d.starting.ServeHTTP(w, r)
}

// close answers who waits, and ends the server. After API.Run there is nothing left to do. It is called once.
func (d *door) close(ctx context.Context) error {
	close(d.closing)
	d.leave(leaveEarly)
	ctx, cancel := context.WithTimeout(ctx, closeWithin)
	defer cancel()
	err := d.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) { // somebody who does not read
		err = d.server.Close()
	}
	d.serving.Wait()
	return err
}

// startingError is an authenticator that tells everybody that the API is starting.
type startingError struct{}

// Authenticate implements httpapi.Authenticator.
func (startingError) Authenticate(*http.Request) (faena.User, error) {
	return faena.User{}, &faena.Error{Kind: faena.KindUnavailable, Reason: "starting", Component: faena.ComponentAPI, Retryable: true, RetryAfter: startAgain,
		Message: "This instance is starting, and cannot reach the queue (NATS) or the document store yet. Nothing was accepted: make the call again."}
}
