package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// serve answers each call with the name of who calls, or the kind of the error and its text.
func serve(authenticate func(*http.Request) (faena.User, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, err := authenticate(r)
		switch e, ok := errors.AsType[*faena.Error](err); {
		case ok:
			_, _ = fmt.Fprintf(w, "%s: %v", e.Kind, e) // the caller sees a short answer
		case err != nil:
			_, _ = fmt.Fprintf(w, "no faena.Error: %v", err)
		default:
			_, _ = fmt.Fprint(w, u.Name)
		}
	})
}

// call sends a request, changed by edit, and returns what is answered.
func call(t *testing.T, c *http.Client, url string, edit func(*http.Request)) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	edit(req)
	res, err := c.Do(req)
	if err != nil {
		t.Fatalf("call the API: %v", err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// from is a client whose every call is a new connection from an address of loopback.
func from(address string) *http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
}

func basic(user, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

func TestLocal_Authenticate(t *testing.T) {
	t.Parallel()
	l := newLocal(t, newBook("umlaut", cheapHash("contraseña")))
	server := httptest.NewServer(serve(l.Authenticate))
	defer server.Close()
	const needed, wrong = "unauthenticated: The call needs credentials", "unauthenticated: User name or password is wrong."
	b64 := base64.StdEncoding.EncodeToString
	for i, c := range []struct{ name, header, want string }{
		{"Right", "Basic " + b64([]byte("ann:ann's-password")), "ann"},
		{"TheSchemeInLowerCase", "basic " + b64([]byte("ann:ann's-password")), "ann"},
		{"UTF8", "Basic " + b64([]byte("umlaut:contraseña")), "umlaut"},
		{"Latin1", "Basic " + b64([]byte("umlaut:contrase\xf1a")), wrong},
		{"Wrong", "Basic " + b64([]byte("ann:wrong")), wrong},
		{"APasswordWithAColon", "Basic " + b64([]byte("ann:ann's-password:")), wrong},
		{"NoColon", "Basic " + b64([]byte("ann")), needed},
		{"NoBase64", "Basic ann:ann's-password", needed},
		{"Bearer", "Bearer " + b64([]byte("ann:ann's-password")), needed},
		{"NoCredentials", "Basic", needed},
		{"None", "", needed},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := call(t, from(fmt.Sprint("127.0.0.", i+1)), server.URL, func(r *http.Request) {
				if c.header != "" {
					r.Header.Set("Authorization", c.header)
				}
				r.Header.Set(consumerHeader, "umlaut") // means something behind a gateway only
			})
			if !strings.HasPrefix(got, c.want) || c.want == "ann" && got != c.want {
				t.Errorf("the answer is %q, want %q", got, c.want)
			}
		})
	}
}

// Failures count for the address of the connection, whatever its port and whatever a header says; who logged in before,
// or comes from elsewhere, is not kept out.
func TestLocal_AuthenticateThrottles(t *testing.T) {
	t.Parallel()
	b := newBook("bob", cheapHash("bob's-password"))
	l := newLocal(t, b)
	clock := newClock()
	l.throttle, l.dummy = newThrottle(clock.now), cheapHash("nobody's-password")
	server := httptest.NewServer(serve(l.Authenticate))
	defer server.Close()
	is := func(c *http.Client, user, password, want string) {
		t.Helper()
		if got := call(t, c, server.URL, basic(user, password)); !strings.HasPrefix(got, want) {
			t.Errorf("%s with %q is answered %q, want %q", user, password, got, want)
		}
	}
	here, there := from("127.0.0.1"), from("127.0.0.2")
	for i := range pairBurst {
		got := call(t, here, server.URL, func(r *http.Request) {
			r.SetBasicAuth("ann", fmt.Sprint("guess", i))
			r.Header.Set("X-Forwarded-For", fmt.Sprint("192.0.2.", i))
			r.Header.Set("X-Real-Ip", fmt.Sprint("192.0.2.", i))
		})
		if !strings.HasPrefix(got, "unauthenticated: ") {
			t.Fatalf("guess %d is answered %q", i, got)
		}
	}
	is(here, "ann", "another guess", "limit: Too many failed logins. Try again in 10s.")
	is(here, "ann", "ann's-password", "limit: ")
	is(there, "ann", "ann's-password", "ann")
	is(here, "ann", "ann's-password", "ann") // it was verified: no guess
	is(here, "ann", "another guess", "limit: ")
	is(here, "bob", "bob's-password", "bob")
	b.put("ann", cheapHash("ann's new password"))
	is(here, "ann", "ann's-password", "limit: ")
	is(there, "ann", "ann's-password", "unauthenticated: ")
	clock.pass(time.Minute / pairPerMinute)
	is(here, "ann", "ann's new password", "ann")
	// An address that tries users in turn is kept out for all of them; the answers do not tell which of them there are.
	for i := range addressBurst {
		call(t, there, server.URL, basic(fmt.Sprint("user", i), "guess"))
	}
	is(there, "nobody", "guess", "limit: ")
	is(there, "bob", "wrong", "limit: ")
	is(there, "", "guess", "limit: ")
	is(there, "bob", "bob's-password", "bob")
	is(here, "nobody", "guess", "unauthenticated: ")
}
