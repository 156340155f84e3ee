package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// short makes the times of slow clients short.
func short(s *site) {
	s.api.timeouts = timeouts{body: 2 * time.Second, drain: 100 * time.Millisecond, write: 2 * time.Second}
}

// dial opens a connection to the site, which is over after some seconds.
func (s *site) dial() (*net.TCPConn, *bufio.Reader) {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address)
	noError(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	noError(s.t, c.SetDeadline(time.Now().Add(within)))
	return c.(*net.TCPConn), bufio.NewReader(c)
}

// head is a request as text, without its body.
func (s *site) head(method, path string, with ...option) string {
	s.t.Helper()
	r := s.request(method, path, with...)
	r.Header.Set("User-Agent", "raw")
	text, err := httputil.DumpRequestOut(r, false)
	noError(s.t, err)
	return string(text)
}

// length says how long a body is that does not come.
func length(n int64) option {
	return func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("")), n }
}

// A body that does not come, or comes in drops, is given up after a while, and nothing is started.
func TestConnection_SlowBody(t *testing.T) {
	s := start(t).serve(t, short)
	s.worker(1, echo)
	s.deploy("ann", "tool")
	for name, path := range map[string]string{"parameter": "POST /v1/functions/tool/activations", "spec": "PUT /v1/functions/tool"} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			method, path, _ := strings.Cut(path, " ")
			c, answer := s.dial()
			_, err := fmt.Fprint(c, s.head(method, path, as("ann"), length(1000)), `{"image":`)
			noError(t, err)
			res, err := http.ReadResponse(answer, nil)
			noError(t, err)
			if p := s.read(s.request(method, path), res).problem(http.StatusBadRequest, "body_incomplete"); !strings.Contains(p.Detail, "in time") {
				t.Errorf("it does not say why: %s", p.Detail)
			}
			ends(t, answer)
		})
	}
	t.Run("refused before it comes", func(t *testing.T) { // a stranger does not hold a connection with a body that he promises
		s := s.serve(t, func(s *site) {
			s.api.timeouts = timeouts{body: time.Hour, drain: 100 * time.Millisecond, write: time.Minute}
		})
		c, answer := s.dial()
		_, err := fmt.Fprint(c, s.head(http.MethodPost, "/v1/functions/tool/activations", length(1000)))
		noError(t, err)
		res, err := http.ReadResponse(answer, nil)
		noError(t, err)
		s.read(s.request(http.MethodPost, "/v1/functions/tool/activations"), res).problem(http.StatusUnauthorized, "unauthenticated")
		ends(t, answer)
	})
	t.Run("half a body and gone", func(t *testing.T) {
		s := s.in(t)
		c, _ := s.dial()
		_, err := fmt.Fprint(c, s.head(http.MethodPost, "/v1/functions/tool/activations", as("ann"), length(1000)), "half")
		noError(t, err)
		noError(t, c.Close())
		s.eventually("the call is over", func() bool {
			return s.observer.count(request{http.MethodPost, "/v1/functions/{name}/activations", http.StatusBadRequest}) == 2
		})
	})
	if list := decoded[ActivationPage](s.call(http.MethodGet, "/v1/activations", as("ann")).is(http.StatusOK)); len(list.Items) > 0 {
		t.Errorf("there are activations: %+v", list.Items)
	}
}

// ends checks that a connection is closed by the other side.
func ends(t testing.TB, r *bufio.Reader) {
	t.Helper()
	if p, err := io.ReadAll(r); err != nil && !isReset(err) || len(p) > 0 {
		t.Errorf("the connection goes on: %q, %v", p, err)
	}
}

// isReset reports whether a connection was closed rather than still open when its deadline came.
func isReset(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && !e.Timeout()
}

// The wait for an activation has no deadline of its own, and neither has the next call on the connection.
func TestConnection_LongCalls(t *testing.T) {
	s := start(t).serve(t, short)
	s.worker(1, func(j *job) ([]byte, faena.Reason) {
		<-time.After(2200 * time.Millisecond) // longer than a body, or a write, may take
		return j.parameter, ""
	})
	s.deploy("ann", "tool")
	c, answers := s.dial()
	for range 2 {
		_, err := fmt.Fprint(c, s.head(http.MethodPost, "/v1/functions/tool/activations", as("ann"), length(1), header("Expect", "100-continue")))
		noError(t, err)
		res, err := http.ReadResponse(answers, nil)
		noError(t, err)
		if res.StatusCode != http.StatusContinue { // the first that is written, and not by us
			t.Fatalf("the status is %d, want 100", res.StatusCode)
		}
		_, err = fmt.Fprint(c, "x")
		noError(t, err)
		res, err = http.ReadResponse(answers, nil)
		noError(t, err)
		if a := s.read(s.request(http.MethodPost, "/v1/functions/tool/activations"), res).is(http.StatusOK); string(a.body) != "x" {
			t.Errorf("the result is %q", a.body)
		}
		s.activate(body("y")).is(http.StatusOK) // on another connection: until it is over, the deadline of the answer has passed
	}
}

// Whoever does not send his request to its end, or does not read his answer, holds a connection for a bounded time.
func TestConnection_Stalled(t *testing.T) {
	s := start(t).serve(t, short, func(s *site) {
		s.server.ReadHeaderTimeout = 200 * time.Millisecond
		s.server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			noError(t, c.(*net.TCPConn).SetWriteBuffer(4096)) // so that little is on its way
			return ctx
		}
	})
	k := newTalk()
	w := s.worker(1, echo)
	s.deploy("ann", "tool")
	t.Run("header", func(t *testing.T) {
		s := s.in(t)
		c, answer := s.dial()
		_, err := fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost:")
		noError(t, err)
		ends(t, answer)
	})
	t.Run("result", func(t *testing.T) {
		s := s.in(t)
		size := 2 * slowestClient
		c, answer := s.dial()
		noError(t, c.SetReadBuffer(4096))
		_, err := fmt.Fprint(c, s.head(http.MethodPost, "/v1/functions/tool/activations", as("ann"), length(int64(size))), strings.Repeat("x", size))
		noError(t, err)
		s.eventually("the call is over", func() bool {
			return s.observer.count(request{http.MethodPost, "/v1/functions/{name}/activations", http.StatusOK}) == 1
		})
		noError(t, c.SetReadBuffer(1<<20))
		if p, err := io.ReadAll(answer); len(p) >= size {
			t.Errorf("%d bytes came, %v: the answer was not cut off", len(p), err)
		}
	})
	t.Run("log", func(t *testing.T) {
		s := s.in(t)
		w.does(k.run)
		id := s.accepted("x")
		<-k.id
		reads := s.follow(id)
		c, answer := s.dial()
		noError(t, c.SetReadBuffer(4096))
		_, err := fmt.Fprint(c, s.head(http.MethodGet, "/v1/activations/"+id+"/logs?follow", as("ann")))
		noError(t, err)
		_, err = http.ReadResponse(answer, nil)
		noError(t, err)
		said := 0
		s.eventually("the one that does not read is dropped", func() bool {
			line := strings.Repeat("x", 1000) + fmt.Sprintf("%10d\n", said)
			k.say <- line
			reads.reads(said*len(line), line) // the one that reads goes on
			said++
			return s.observer.count(request{http.MethodGet, "/v1/activations/{id}/logs", http.StatusOK}) == 1
		})
		close(k.say)
		reads.ends(id, "succeeded", "")
	})
}
