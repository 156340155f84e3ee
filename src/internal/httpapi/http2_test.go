package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// overTLS serves the same API with TLS, where clients speak HTTP/2.
func (s *site) overTLS() *site {
	s.t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.Config, server.EnableHTTP2 = s.api.Server(), true
	server.StartTLS()
	s.t.Cleanup(server.Close)
	inner := *s
	inner.scheme, inner.address, inner.client = "https", server.Listener.Addr().String(), server.Client()
	return &inner
}

// HTTP/2 has other ways to send a body, to hold it back and to go away; the answers are the same.
func TestHTTP2(t *testing.T) {
	plain := start(t).serve(t)
	s := plain.overTLS()
	w := s.worker(1, echo)
	s.deploy("ann", "tool")
	res, err := s.client.Do(s.request(http.MethodGet, "/healthz"))
	noError(t, err)
	if s.read(s.request(http.MethodGet, "/healthz"), res).is(http.StatusOK); res.ProtoMajor != 2 {
		t.Fatalf("the answer came by %s", res.Proto)
	}
	t.Run("bytes", func(t *testing.T) {
		large := strings.Repeat("\x00\xffab", 1<<18)
		for name, sent := range map[string]option{"length said": body(large), "length not said": chunked(large)} {
			if a := s.in(t).activate(sent).is(http.StatusOK); string(a.body) != large {
				t.Errorf("%s: %d other bytes came back", name, len(a.body))
			}
		}
	})
	t.Run("too large", func(t *testing.T) {
		over := strings.Repeat("a", faena.DefaultMaxParameterBytes+1)
		for _, sent := range []option{body(over), chunked(over)} {
			s.in(t).activate(sent).problem(http.StatusRequestEntityTooLarge, "parameter_too_large")
		}
	})
	t.Run("slow body", func(t *testing.T) {
		r, hold := io.Pipe()
		t.Cleanup(func() { _ = hold.Close() })
		s := plain.serve(t, func(s *site) { s.api.timeouts.body = 500 * time.Millisecond }).overTLS()
		p := s.activate(func(q *http.Request) { q.Body, q.ContentLength = r, 1000 }).problem(http.StatusBadRequest, "body_incomplete")
		if !strings.Contains(p.Detail, "in time") {
			t.Errorf("it does not say why: %s", p.Detail)
		}
	})
	t.Run("log", func(t *testing.T) {
		s := s.in(t)
		k := newTalk()
		w.does(k.run)
		id := s.accepted("x")
		<-k.id
		st := s.follow(id)
		k.say <- "as it comes"
		st.reads(0, "as it comes")
		close(k.say)
		st.ends(id, "succeeded", "")
	})
	t.Run("caller goes away", func(t *testing.T) {
		s := s.in(t)
		g := newGate()
		w.does(g.run)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		s.background(http.MethodPost, "/v1/functions/tool/activations", as("ann"), body("x"), until(ctx))
		id := <-g.running
		leave()
		s.eventually("the call is over for the API", func() bool {
			return s.observer.count(request{http.MethodPost, "/v1/functions/{name}/activations", http.StatusServiceUnavailable}) == 1
		})
		close(g.open)
		s.becomes(id, "succeeded")
	})
}
