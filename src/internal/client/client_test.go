package client

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

const password = "correct-horse"

// serve answers with a handler until the test ends.
func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func connect(t *testing.T, url string) *Client {
	t.Helper()
	c, err := New(Options{URL: url, Username: "ada", Password: password, UserAgent: "faena/test"})
	if err != nil {
		t.Fatal(err)
	}
	c.pause = 1
	return c
}

func TestNew(t *testing.T) {
	for _, c := range []struct{ name, url, want string }{
		{"no URL", "127.0.0.1:8080", "no http or https URL"},
		{"another scheme", "ftp://127.0.0.1", "no http or https URL"},
		{"no host", "https://", "no http or https URL"},
		{"plain HTTP to another host", "http://192.0.2.1:8080", "plain HTTP to another host"},
		{"plain HTTP to a name", "http://localhost.example.org", "plain HTTP to another host"},
		{"a password in it", "https://ada:correct-horse@example.org", "given apart"},
		{"a password in what is no URL", "ada:correct-horse%zz@example.org", "given apart"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(Options{URL: c.url})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), password) {
				t.Errorf("New(%q) gives %v, want %q", c.url, err, c.want)
			}
		})
	}
	for _, url := range []string{"https://example.org", "http://127.0.0.1:8080/", "http://[::1]:8080", "http://localhost:8080"} {
		if _, err := New(Options{URL: url}); err != nil {
			t.Errorf("New(%q): %v", url, err)
		}
	}
	if _, err := New(Options{URL: "https://example.org", CA: []byte("nonsense")}); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("a CA that is none gives %v", err)
	}
}

func TestClient_Failure(t *testing.T) {
	problem := `{"type":"urn:faena:problem:limit","title":"Too many","status":200,"reason":"limit","component":"api","retryable":true,"detail":"You are at your limit."}`
	for _, c := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"a problem document", problem, 429, "You are at your limit. (limit)"},
		{"of something in between", "<html>Bad Gateway</html>", 502, "The answer is 502 Bad Gateway, which is not one of Faena's. (no_problem_document)"},
		{"JSON that is none", `{"error":"x"}`, 404, "The answer is 404 Not Found, which is not one of Faena's. (no_problem_document)"},
		{"nothing", "", 500, "The answer is 500 Internal Server Error, which is not one of Faena's. (no_problem_document)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			_, err := Read[Function](connect(t, s.URL).GetFunction(t.Context(), "f", &GetFunctionParams{}))
			f, ok := errors.AsType[*Failure](err)
			if !ok || f.Status != c.status || err.Error() != c.want || errors.Is(err, ErrAway) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// Credentials go to the appliance that the caller named, and nowhere else.
func TestClient_Redirects(t *testing.T) {
	var strayed atomic.Int64
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { strayed.Add(1) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL+r.URL.Path, status) })
			c := connect(t, s.URL)
			_, list := Read[FunctionPage](c.ListFunctions(t.Context(), &ListFunctionsParams{}))
			_, run := Stream(c.ActivateWithBody(t.Context(), "f", &ActivateParams{}, "text/plain", strings.NewReader("secret")))
			_, follow := c.FollowLogs(t.Context(), "id", 0, func([]byte) error { return nil })
			_, change := Read[struct{}](c.PutPassword(t.Context(), "ada", Password{Password: "new"}))
			for _, err := range []error{list, run, follow, change} {
				if f, ok := errors.AsType[*Failure](err); !ok || f.Status != status {
					t.Errorf("got %v, want a failure with status %d", err, status)
				}
			}
		})
	}
	if n := strayed.Load(); n > 0 {
		t.Errorf("%d requests went to where the answers pointed", n)
	}
}

func TestClient_Signs(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "ada" || pass != password || r.UserAgent() != "faena/test" {
			t.Errorf("%s %s came as %q with user agent %q", r.Method, r.URL, user, r.UserAgent())
		}
		w.WriteHeader(http.StatusNoContent)
	})
	if _, err := Read[struct{}](connect(t, s.URL+"/").DeleteFunction(t.Context(), "f", &DeleteFunctionParams{})); err != nil {
		t.Error(err)
	}
}

// An appliance that is away is told apart from one that refuses.
func TestClient_Away(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	silent := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for name, c := range map[string]struct {
		url    string
		broken bool // the request may have arrived
	}{"nothing listens": {"http://" + unused(t), false},
		"a stranger's certificate": {secure.URL, false}, "no answer": {silent.URL, true}} {
		t.Run(name, func(t *testing.T) {
			_, err := Read[FunctionPage](connect(t, c.url).ListFunctions(t.Context(), &ListFunctionsParams{}))
			if !errors.Is(err, ErrAway) || errors.Is(err, ErrBroken) != c.broken || strings.Contains(err.Error(), password) {
				t.Errorf("got %v, want ErrAway, and ErrBroken: %v", err, c.broken)
			}
		})
	}
	t.Run("a certificate of the given CA", func(t *testing.T) {
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
		c, err := New(Options{URL: secure.URL, CA: ca})
		if err != nil {
			t.Fatal(err)
		}
		_, err = Read[FunctionPage](c.ListFunctions(t.Context(), &ListFunctionsParams{}))
		if f, ok := errors.AsType[*Failure](err); !ok || f.Status != 404 {
			t.Errorf("got %v, want the server's 404", err)
		}
	})
	t.Run("no answer over HTTP/2", func(t *testing.T) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
		s.EnableHTTP2 = true
		s.StartTLS()
		defer s.Close()
		c, err := New(Options{URL: s.URL, CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read[FunctionPage](c.ListFunctions(t.Context(), &ListFunctionsParams{})); !errors.Is(err, ErrBroken) {
			t.Errorf("got %v, want ErrBroken", err)
		}
	})
	t.Run("the caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := serve(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
		if _, err := Read[FunctionPage](connect(t, s.URL).ListFunctions(ctx, &ListFunctionsParams{})); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

// unused is an address at which nothing listens.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// An activation whose answer is lost may have been accepted: the call is not made again behind the caller's back. What
// only reads is, where a connection kept open has died meanwhile.
func TestClient_Repeats(t *testing.T) {
	t.Run("never an activation", func(t *testing.T) {
		var calls atomic.Int64
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if calls.Add(1) > 1 {
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, "first")
		})
		c := connect(t, s.URL)
		call := func() error {
			res, err := Stream(c.ActivateWithBody(t.Context(), "f", &ActivateParams{}, "text/plain", strings.NewReader("x")))
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
			return err
		}
		if err := call(); err != nil { // the second goes over the same connection
			t.Fatal(err)
		}
		if err := call(); !errors.Is(err, ErrBroken) || calls.Load() != 2 {
			t.Errorf("after %d calls: %v", calls.Load(), err)
		}
	})
	t.Run("an appliance that has gone since the call before", func(t *testing.T) {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"items":[]}`) })
		c := connect(t, s.URL)
		if _, err := Read[FunctionPage](c.ListFunctions(t.Context(), &ListFunctionsParams{})); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if _, err := Read[FunctionPage](c.ListFunctions(t.Context(), &ListFunctionsParams{})); !errors.Is(err, ErrAway) || errors.Is(err, ErrBroken) {
			t.Errorf("got %v, want ErrAway alone: the second call has reached nobody", err)
		}
	})
	t.Run("a read over a connection that has died", func(t *testing.T) {
		var open atomic.Int64
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"items":[]}`) }))
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				open.Add(1)
			}
		}
		s.Start()
		defer s.Close()
		c := connect(t, s.URL)
		for range 5 {
			if _, err := Read[FunctionPage](c.ListFunctions(t.Context(), &ListFunctionsParams{})); err != nil {
				t.Fatal(err)
			}
			s.CloseClientConnections()
		}
		if n := open.Load(); n != 5 {
			t.Errorf("there were %d connections, want one for each read", n)
		}
	})
}
