package registry

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// house is an appliance's own registry and its users.
type house struct {
	dir  string
	addr string

	mu        sync.Mutex
	passwords map[string]string
	err       error // of every login
	addresses []string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{dir: t.TempDir(), passwords: map[string]string{"ann": "ann's-password", "bob": "bob's-password", "jorgeSD": "jorge's-password"}}
	h.start(t)
	return h
}

// start opens the registry on its directory, again where it was open: as after a kill, nothing is closed first.
func (h *house) start(t *testing.T) {
	t.Helper()
	l, err := NewLoopback(t.Context(), LoopbackOptions{Dir: h.dir, Login: h.login, Known: h.known})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	h.addr = server.Listener.Addr().String()
}

func (h *house) login(_ context.Context, address, user, password string) (faena.User, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addresses = append(h.addresses, address)
	if h.err != nil {
		return faena.User{}, h.err
	}
	if p, ok := h.passwords[user]; !ok || p != password {
		return faena.User{}, &faena.Error{Kind: faena.KindUnauthenticated, Message: "User name or password is wrong."}
	}
	return faena.User{Name: user}, nil
}

func (h *house) known(_ context.Context, user string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.passwords[user]
	return ok && h.err == nil
}

// change sets a user's password; "" takes the user away.
func (h *house) change(user, password string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.passwords[user] = password; password == "" {
		delete(h.passwords, user)
	}
}

func (h *house) of(user string) *faena.Credentials {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &faena.Credentials{Username: user, Password: h.passwords[user]}
}

// do sends a request, and returns the answer and its body.
func (h *house) do(t *testing.T, method, path string, c *faena.Credentials, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+h.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if c != nil {
		req.SetBasicAuth(c.Username, c.Password)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

// status checks how a request is answered.
func (h *house) status(t *testing.T, method, path string, c *faena.Credentials, want int, words string) {
	t.Helper()
	if res, text := h.do(t, method, path, c, ""); res.StatusCode != want || !strings.Contains(text, words) {
		t.Errorf("%s %s is answered %s: %s", method, path, res.Status, text)
	}
}

// pulls checks that somebody gets an image.
func (h *house) pulls(t *testing.T, c *faena.Credentials, repository, digest string) {
	t.Helper()
	got, err := NewResolver(loopback).Resolve(t.Context(), h.addr+"/"+repository, c, arch)
	if err != nil || got.Digest != digest {
		t.Errorf("%s of %s is %+v, %v; want %s", repository, c.Username, got, err, digest)
	}
}

func (h *house) refuses(t *testing.T, c *faena.Credentials, repository, reason string) {
	t.Helper()
	_, err := NewResolver(loopback).Resolve(t.Context(), h.addr+"/"+repository, c, arch)
	refusal(t, err, faena.KindInvalid, reason)
}

// token is what a user's functions pull with.
func (h *house) token(t *testing.T, user string) *faena.Credentials {
	t.Helper()
	res, text := h.do(t, http.MethodGet, PullTokenPath, h.of(user), "")
	var c faena.Credentials
	if err := json.Unmarshal([]byte(text), &c); err != nil || res.StatusCode != http.StatusOK || c.Username != user || len(c.Password) < 32 {
		t.Fatalf("the token of %s is answered %s: %s", user, res.Status, text)
	}
	if res.Header.Get("Cache-Control") != "no-store" {
		t.Error("a token may be kept on its way")
	}
	return &c
}

func TestLoopback_Users(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	digest := digestOf(t, img)
	faenatest.Push(t, h.addr, "ann/app", img, h.of("ann"))
	h.pulls(t, h.of("ann"), "ann/app", digest)
	h.pulls(t, h.of("ann"), "ann/app@"+digest, digest)
	faenatest.Push(t, h.addr, "jorgesd/team/app", img, h.of("jorgeSD")) // names of repositories are in lower case
	h.pulls(t, h.of("jorgeSD"), "jorgesd/team/app", digest)
	h.refuses(t, h.of("bob"), "ann/app", "image_not_found")
	h.refuses(t, h.of("bob"), "bob/app", "image_not_found")
	h.refuses(t, nil, "ann/app", "image_denied")
	h.refuses(t, &faena.Credentials{Username: "ann", Password: "bob's-password"}, "ann/app", "image_denied")
	h.refuses(t, &faena.Credentials{Username: "nobody", Password: "ann's-password"}, "ann/app", "image_denied")
	blob := "/blobs/" + configDigest(t, img)
	for _, path := range []string{"/v2/ann/app/manifests/latest", "/v2/ann/app/tags/list", "/v2/ann/app" + blob, "/v2/ann/app/referrers/" + digest, "/v2/_catalog", "/v2/app/manifests/latest",
		"/v2/bob/../ann/app/manifests/latest", "/v2/bob/%2e%2e/ann/app/manifests/latest", "/v2//ann/app/manifests/latest", "/v2/bobby/app/manifests/latest", "/v2/bob/manifests/latest", "/v2/ann/app/manifests/bob/manifests/latest",
		"/v2/BOB/app/manifests/latest", "/v1/bob/app", "/bob/app", "/", "/v2", PullTokenPath + "/"} {
		h.status(t, http.MethodGet, path, h.of("bob"), http.StatusNotFound, "")
	}
	for _, path := range []string{"/v2/ann/app/blobs/uploads/", "/v2/bob/app/blobs/uploads/?mount=" + strings.TrimPrefix(blob, "/blobs/") + "&from=ann/app"} {
		h.status(t, http.MethodPost, path, h.of("bob"), http.StatusNotFound, "NAME_UNKNOWN")
	}
	h.status(t, http.MethodPut, "/v2/ann/app/manifests/latest", h.of("bob"), http.StatusNotFound, "NAME_UNKNOWN")
	h.status(t, http.MethodDelete, "/v2/ann/app/manifests/latest", h.of("bob"), http.StatusNotFound, "NAME_UNKNOWN")
	h.status(t, http.MethodGet, "/v2/", h.of("bob"), http.StatusOK, "")
	h.pulls(t, h.of("ann"), "ann/app", digest)
}

// configDigest is the digest of an image's configuration, which is a blob.
func configDigest(t *testing.T, img interface{ RawConfigFile() ([]byte, error) }) string {
	t.Helper()
	text, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return sha256Of(text)
}

// Who is told that he may not has to know why: the engine and other clients act on it.
func TestLoopback_LoginFails(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for name, c := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"Wrong":     {&faena.Error{Kind: faena.KindUnauthenticated, Message: "secret words"}, http.StatusUnauthorized, `"code":"UNAUTHORIZED"`},
		"Throttled": {&faena.Error{Kind: faena.KindLimit, Message: "secret words", RetryAfter: 9 * time.Second}, http.StatusTooManyRequests, `"code":"TOOMANYREQUESTS"`},
		"StoreAway": {faena.Unavailable(faena.ComponentStore, "store_unavailable", "secret words", nil), http.StatusServiceUnavailable, `"code":"UNAVAILABLE"`},
		"Foreign":   {io.ErrUnexpectedEOF, http.StatusServiceUnavailable, `"code":"UNAVAILABLE"`},
	} {
		h.err = c.err
		for _, path := range []string{"/v2/", PullTokenPath, "/v2/ann/app/manifests/latest"} {
			res, text := h.do(t, http.MethodGet, path, h.of("ann"), "")
			if res.StatusCode != c.status || !strings.Contains(text, c.code) || strings.Contains(text, "secret words") {
				t.Errorf("%s: %s is answered %s: %s", name, path, res.Status, text)
			}
			if got := res.Header.Get("WWW-Authenticate"); (got == `Basic realm="faena"`) != (c.status == http.StatusUnauthorized) {
				t.Errorf("%s: %s asks for %q", name, path, got)
			}
		}
	}
	if res, _ := h.do(t, http.MethodGet, "/v2/", nil, ""); res.StatusCode != http.StatusUnauthorized || res.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("without credentials it is answered %s", res.Status)
	}
	for _, a := range h.addresses {
		if !strings.HasPrefix(a, "127.0.0.1") {
			t.Errorf("the login is said to come from %q", a)
		}
	}
}

// A function pulls with a token: it goes on when its user's password changes, and ends with the user.
func TestLoopback_PullToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	digest := digestOf(t, img)
	faenatest.Push(t, h.addr, "ann/app", img, h.of("ann"))
	token := h.token(t, "ann")
	if again := h.token(t, "ann"); *again != *token {
		t.Error("it is another one each time: the first would not be told to end")
	}
	if bobs := h.token(t, "bob"); bobs.Password == token.Password {
		t.Error("bob's is the same")
	}
	h.pulls(t, token, "ann/app", digest)
	h.refuses(t, token, "bob/app", "image_not_found")
	h.refuses(t, &faena.Credentials{Username: "bob", Password: token.Password}, "ann/app", "image_denied")
	h.refuses(t, &faena.Credentials{Username: "bob", Password: token.Password}, "bob/app", "image_denied")
	h.refuses(t, &faena.Credentials{Username: "ANN", Password: token.Password}, "ann/app", "image_denied")
	h.refuses(t, &faena.Credentials{Username: "ann", Password: token.Password[1:]}, "ann/app", "image_denied")
	for _, c := range []struct{ method, path string }{{http.MethodPut, "/v2/ann/app/manifests/latest"}, {http.MethodPost, "/v2/ann/app/blobs/uploads/"}, {http.MethodPatch, "/v2/ann/app/blobs/uploads/1"},
		{http.MethodDelete, "/v2/ann/app/manifests/latest"}, {http.MethodDelete, "/v2/ann/app/blobs/" + digest}, {http.MethodGet, PullTokenPath}} {
		h.status(t, c.method, c.path, token, http.StatusNotFound, "NAME_UNKNOWN")
	}
	h.change("ann", "ann's-new-password")
	h.pulls(t, token, "ann/app", digest)
	h.start(t)
	h.pulls(t, token, "ann/app", digest)
	h.change("ann", "")
	h.refuses(t, token, "ann/app", "image_denied")
	other := newHouse(t)
	other.refuses(t, token, "ann/app", "image_denied")
}
