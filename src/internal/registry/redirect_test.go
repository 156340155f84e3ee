package registry

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// redirect sends every caller somewhere else. A %s in it is the path that was asked for.
func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.ReplaceAll(to, "%s", r.URL.Path), http.StatusTemporaryRedirect)
	}
}

// A registry that may be asked cannot send on to what may not.
func TestResolver_SentIntoTheNetwork(t *testing.T) {
	t.Parallel()
	port, came := victim(t)
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	for _, to := range []string{"http://localhost:" + port + "%s", "http://127.0.0.1:" + port + "%s", "http://127.0.0.2:" + port + "%s", "http://[::ffff:127.0.0.1]:" + port + "/",
		"https://localhost:" + port + "/", "http://169.254.169.254/latest/meta-data/", "http://2130706433:" + port + "/", "http://0:" + port + "/", "file:///etc/passwd", "gopher://localhost:" + port + "/",
		"//localhost:" + port + "%s"} {
		for where, o := range map[string]faenatest.RegistryOptions{
			"the API":          {Wrap: at("/v2/", redirect(to))},
			"a manifest":       {Wrap: at("/manifests/", redirect(to))},
			"a configuration":  {Wrap: at("/blobs/", redirect(to))},
			"a realm":          {Bearer: true, Realm: strings.ReplaceAll(to, "%s", "/token")},
			"a realm's answer": {Bearer: true, Wrap: at("/token", redirect(to))},
		} {
			addr := faenatest.Registry(t, o)
			if where == "a configuration" { // which comes after a manifest
				faenatest.Push(t, addr, "app", img, nil)
			}
			r := NewResolver(Rules{PrivateHosts: []string{addr}})
			_, err := r.Resolve(t.Context(), addr+"/app", creds, arch)
			if err == nil || !faena.IsKind(err, faena.KindInvalid) && !faena.IsKind(err, faena.KindUnavailable) {
				t.Errorf("%s sends to %s: %v", where, to, err)
			}
			secretFree(t, err)
		}
	}
	if n := came.Load(); n != 0 {
		t.Errorf("%d requests came into the network", n)
	}
}

// heard is a registry that remembers what credentials it was given.
type heard struct {
	mu      sync.Mutex
	headers []string
}

func (h *heard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.headers = append(h.headers, strings.Join(r.Header["Authorization"], ","))
		h.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// all are the credentials that came, in how many requests.
func (h *heard) all() (requests int, given string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.headers), strings.Join(h.headers, "")
}

// A registry may keep its content elsewhere: it is fetched there, without the credentials.
func TestResolver_CredentialsStayWithTheirRegistry(t *testing.T) {
	t.Parallel()
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	for _, bearer := range []bool{false, true} {
		for _, part := range []string{"/manifests/", "/blobs/"} {
			var h heard
			elsewhere := faenatest.Registry(t, faenatest.RegistryOptions{Wrap: h.wrap})
			faenatest.Push(t, elsewhere, "app", img, nil)
			pushed, _ := h.all()
			_, port := split(elsewhere)
			addr := faenatest.Registry(t, faenatest.RegistryOptions{Username: creds.Username, Password: creds.Password, Bearer: bearer, Wrap: func(next http.Handler) http.Handler {
				return at(part, authenticated(redirect("http://localhost:"+port+"%s"), next))(next)
			}})
			faenatest.Push(t, addr, "app", img, creds)
			r := NewResolver(Rules{PrivateHosts: []string{addr, "localhost:" + port}})
			got, err := r.Resolve(t.Context(), addr+"/app", creds, arch)
			if err != nil || got.Digest != digestOf(t, img) {
				t.Errorf("bearer %v, %s: it is %+v, %v", bearer, part, got, err)
			}
			if n, given := h.all(); n == pushed || given != "" {
				t.Errorf("bearer %v, %s: elsewhere came %d requests with %q", bearer, part, n-pushed, given)
			}
		}
	}
}

// authenticated redirects who has shown something; everybody else is asked for it by the registry.
func authenticated(redirect http.HandlerFunc, registry http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			registry.ServeHTTP(w, r)
			return
		}
		redirect(w, r)
	}
}

// Where content is kept elsewhere, and that place asks for a token of its own, its realm is not given the credentials.
func TestResolver_CredentialsAndAnothersRealm(t *testing.T) {
	t.Parallel()
	var h, realm heard
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	thief := faenatest.Registry(t, faenatest.RegistryOptions{Bearer: true, Wrap: realm.wrap}) // its realm is its own
	faenatest.Push(t, thief, "app", img, nil)
	_, port := split(thief)
	pushed, before := realm.all()
	addr := faenatest.Registry(t, faenatest.RegistryOptions{Username: creds.Username, Password: creds.Password, Wrap: func(next http.Handler) http.Handler {
		return h.wrap(at("/manifests/", authenticated(redirect("http://localhost:"+port+"%s"), next))(next))
	}})
	r := NewResolver(Rules{PrivateHosts: []string{addr, "localhost:" + port, thief}})
	_, err := r.Resolve(t.Context(), addr+"/app", creds, arch)
	secretFree(t, err)
	n, given := realm.all()
	if n == pushed {
		t.Error("nobody came to the other place: this tests nothing")
	}
	if given = strings.TrimPrefix(given, before); strings.Contains(given, "Basic") {
		t.Errorf("the other place was given %q", given)
	}
	if _, given := h.all(); !strings.Contains(given, "Basic") {
		t.Error("the registry itself was given nothing")
	}
}

// Over TLS the registry is who it says it is, or learns nothing. It has a name, since a loopback address would be asked
// without TLS then.
func TestResolver_TLS(t *testing.T) {
	t.Parallel()
	dns.set("example.com", "127.0.0.1") // the name that the server's certificate is for
	var h heard
	plain := faenatest.Registry(t, faenatest.RegistryOptions{Username: creds.Username, Password: creds.Password})
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	faenatest.Push(t, plain, "app", img, creds)
	server := httptest.NewUnstartedServer(h.wrap(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: plain})))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that failed
	server.StartTLS()
	defer server.Close()
	_, port := split(server.Listener.Addr().String())
	image := "example.com:" + port + "/app"
	r := NewResolver(loopback)
	_, err := r.Resolve(t.Context(), image, creds, arch)
	refusal(t, err, faena.KindUnavailable, "registry_unavailable", "certificate signed by unknown authority; where the registry has a CA of its own")
	if n, _ := h.all(); n != 0 {
		t.Errorf("%d requests were sent to who knows whom", n)
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	r.transport.(*guarded).next.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
	got, err := r.Resolve(t.Context(), image, creds, arch)
	if err != nil || got.Digest != digestOf(t, img) {
		t.Errorf("with a certificate that is known it is %+v, %v", got, err)
	}
	if n, given := h.all(); n == 0 || !strings.Contains(given, "Basic") {
		t.Errorf("%d requests came, with %q", n, given)
	}
}
