package faenatest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"faena.dev/faena/internal/faena"
)

// RegistryOptions say what a registry asks of its callers.
type RegistryOptions struct {
	Username, Password string // asked for where set, by Basic authentication
	// Bearer asks for a token instead, which the realm gives in exchange for Username and Password; to anybody where
	// those are empty.
	Bearer bool
	// Realm is announced instead of the registry's own. Only with Bearer.
	Realm string
	// Wrap sees each request first, before authentication: for redirects, delays and refusals.
	Wrap func(http.Handler) http.Handler
}

// Registry serves an image registry in memory, as plain HTTP on loopback, until the test ends. It returns host:port.
func Registry(t testing.TB, o RegistryOptions) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = listener.Addr().String()
	h := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	switch {
	case o.Bearer:
		h = o.bearer(h, addr)
	case o.Username != "":
		h = o.basic(h)
	}
	if o.Wrap != nil {
		h = o.Wrap(h)
	}
	server := httptest.NewUnstartedServer(h)
	_ = server.Listener.Close() // ours is used instead, since its address had to be known
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return addr
}

func (o RegistryOptions) basic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !o.known(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="faenatest"`)
			refuse(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (o RegistryOptions) bearer(next http.Handler, addr string) http.Handler {
	token := rand.Text()
	realm := or(o.Realm, "http://"+addr+"/token")
	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if !o.known(r) {
			refuse(w)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300}) // the caller sees a short answer
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="faenatest"`, realm))
			refuse(w)
			return
		}
		next.ServeHTTP(w, r)
	})
	return mux
}

func (o RegistryOptions) known(r *http.Request) bool {
	user, password, _ := r.BasicAuth()
	return o.Username == "" || user == o.Username && password == o.Password
}

func refuse(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
}

// Push uploads an image as repository:latest and returns repository@digest. creds may be nil. Should the engine have
// pulled it, it forgets it when the test ends.
func Push(t testing.TB, addr, repository string, img v1.Image, creds *faena.Credentials) (ref string) {
	t.Helper()
	tag := tagOf(t, addr, repository)
	if err := remote.Write(tag, img, remote.WithAuth(authOf(creds)), remote.WithContext(t.Context())); err != nil {
		t.Fatalf("push %s: %v", tag, err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return pulledRef(t, tag, digest)
}

// PushIndex uploads several images, each under its own platform, as one index: repository:latest. It returns
// repository@digest of the index.
func PushIndex(t testing.TB, addr, repository string, creds *faena.Credentials, images ...v1.Image) (ref string) {
	t.Helper()
	index := v1.ImageIndex(empty.Index)
	for _, img := range images {
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: config.OS, Architecture: config.Architecture}}})
	}
	tag := tagOf(t, addr, repository)
	if err := remote.WriteIndex(tag, index, remote.WithAuth(authOf(creds)), remote.WithContext(t.Context())); err != nil {
		t.Fatalf("push %s: %v", tag, err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return pulledRef(t, tag, digest)
}

func tagOf(t testing.TB, addr, repository string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(addr+"/"+repository+":latest", name.Insecure)
	if err != nil {
		t.Fatalf("push %s: %v", repository, err)
	}
	return tag
}

func authOf(creds *faena.Credentials) authn.Authenticator {
	if creds == nil {
		return authn.Anonymous
	}
	return &authn.Basic{Username: creds.Username, Password: creds.Password}
}

// pulledRef is what the engine will know the image by, where there is an engine: the tests of what only speaks to
// registries do without.
func pulledRef(t testing.TB, tag name.Tag, digest v1.Hash) string {
	t.Helper()
	ref := tag.Context().Name() + "@" + digest.String()
	if d, err := dial(); err == nil {
		t.Cleanup(func() { d.Delete(t, "/images/"+ref+"?force=1") }) // by force: a container of it may still be on its way out
	}
	return ref
}
