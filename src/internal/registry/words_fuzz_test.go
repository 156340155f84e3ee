package registry

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/distribution/reference"

	"faena.dev/faena/internal/faena"
)

// FuzzResolver_parse: a reference that is taken is of a registry that the operator allows, and the engine, which parses it with
// another library, goes to that same registry for that same repository.
func FuzzResolver_parse(f *testing.F) {
	for _, image := range []string{"registry.example/team/tool:1", "registry.example/team/tool@sha256:" + strings.Repeat("a", 64), "busybox", "busybox:1",
		"library/busybox", "docker.io/busybox", "docker.io/0.0/0", "index.docker.iO/l", "docker.io/localhost/tool", "docker.io/team/tool", "index.docker.io/library/busybox:latest", "localhost:5000/a", "127.0.0.1:5000/a/b:c", "[::1]:5000/a",
		"registry.example:443/a", "REGISTRY.example/a", "registry.example/../a", "registry.example./a", "::/0", "registry.example/a/.", "registry.example/A",
		"user:pw@registry.example/a", "https://registry.example/a", "registry.example/a:", "registry.example/a@", "registry.example/a:1@sha256:" + strings.Repeat("b", 64),
		"registry.example./a", "::/0", "registry.example:/a", "registry.example:99999/a", "registry.example?x/a", "registry.example#/a", "registry.example%2fa/b",
		"elsewhere.example/registry.example/a", "registry.example\n/a", " registry.example/a", "", "/", ":", "@", "\x00", "ä/ö"} {
		f.Add(image)
	}
	any, some := NewResolver(Rules{}), NewResolver(Rules{Registries: []string{"registry.example", "docker.io"}})
	f.Fuzz(func(t *testing.T, image string) {
		open, err := any.parse(image)
		if err != nil && !faena.IsKind(err, faena.KindInvalid) {
			t.Errorf("%q is refused as %v", image, err)
		}
		ref, listedErr := some.parse(image)
		if err != nil && listedErr == nil {
			t.Errorf("%q is taken from a list alone", image)
		}
		if err != nil {
			return
		}
		repository := open.Context()
		if u, err := url.Parse("https://" + repository.RegistryStr() + "/v2/"); err != nil || u.Host != repository.RegistryStr() || u.User != nil || u.Path != "/v2/" {
			t.Errorf("%q is of %q, which is not a host: %v", image, repository.RegistryStr(), err)
		}
		if listedErr == nil {
			if host, port := split(ref.Context().RegistryStr()); !strings.EqualFold(host, "registry.example") && !strings.EqualFold(host, dockerHub) || port != "" && strings.Trim(port, "0123456789") != "" {
				t.Errorf("%q is taken from %q", image, ref.Context().RegistryStr())
			}
		}
		const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
		pull := familiar(repository.Name()) + "@" + digest
		engines, err := reference.ParseNormalizedNamed(pull)
		if err != nil {
			return // the engine refuses it: nothing is pulled
		}
		want := canonical(repository.RegistryStr())
		if got := canonical(reference.Domain(engines)); got != want || reference.Path(engines) != repository.RepositoryStr() {
			t.Errorf("%q is looked up at %s as %s, and pulled from %s as %s", image, want, repository.RepositoryStr(), got, reference.Path(engines))
		}
	})
}

// FuzzBounded: a registry's own words are one bounded line of text, without the password, however the registry has put it.
func FuzzBounded(f *testing.F) {
	for _, s := range []struct{ words, user, password string }{
		{"denied for ann:s3cr3t-pass", "ann", "s3cr3t-pass"}, {"a\nb\x00c\xff", "", ""}, {strings.Repeat("ä", 400), "ann", "p"},
		{base64.StdEncoding.EncodeToString([]byte("ann:s3cr3t-pass")), "ann", "s3cr3t-pass"}, {"s3cr3t%26pass", "ann", "s3cr3t&pass"},
		{"s3cr3t\tpass", "ann", "s3cr3t pass"}, {"s3cr\xff3t", "ann", "s3cr3t"}, {strings.Repeat("x", 508) + "s3cr3t-pass", "ann", "s3cr3t-pass"},
	} {
		f.Add(s.words, s.user, s.password)
	}
	f.Fuzz(func(t *testing.T, words, user, password string) {
		got := bounded(words, &faena.Credentials{Username: user, Password: password})
		if len(got) > maxWords+len("…") || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q becomes %q", words, got)
		}
		if len(password) >= 6 && !strings.Contains(password, "*") && strings.Contains(got, password) {
			t.Errorf("%q becomes %q, with the password %q", words, got, password)
		}
	})
}

// FuzzLoopback_Path: on whatever path and in whatever way a user asks the appliance's own registry, nothing of another user's
// repository comes back, and nothing is put there.
func FuzzLoopback_Path(f *testing.F) {
	const marker = "the manifest of bob"
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",` +
		`"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[],"annotations":{"a":"` + marker + `"}}`
	h := &house{dir: f.TempDir(), passwords: map[string]string{"ann": "ann's-password", "bob": "bob's-password"}}
	l, err := NewLoopback(f.Context(), LoopbackOptions{Dir: h.dir, Login: h.login, Known: h.known})
	if err != nil {
		f.Fatal(err)
	}
	ask := func(user, method, target, body string) *httptest.ResponseRecorder {
		r, err := http.NewRequest(method, "http://registry"+target, strings.NewReader(body))
		if err != nil {
			return nil
		}
		r.RemoteAddr = "127.0.0.1:1"
		r.SetBasicAuth(user, h.passwords[user])
		r.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w := httptest.NewRecorder()
		l.ServeHTTP(w, r)
		return w
	}
	if w := ask("bob", http.MethodPut, "/v2/bob/secret/manifests/1", manifest); w.Code != http.StatusCreated {
		f.Fatalf("bob cannot push: %d %s", w.Code, w.Body)
	}
	for _, target := range []string{"/v2/", "/v2/bob/secret/manifests/1", "/v2/ann/../bob/secret/manifests/1", "/v2/ann/%2e%2e/bob/secret/manifests/1",
		"/v2/ann/x/manifests/1", "/v2//bob/secret/manifests/1", "/v2/_catalog", "/v2/ann/_catalog", "/v2/bob/secret/tags/list", "/v2/ann/tags/list", "/v2/Bob/secret/manifests/1",
		"/v2/ann/blobs/uploads/?mount=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855&from=bob/secret", "/v2/ann/x/blobs/uploads/1",
		"/v2/ann/manifests/v2/bob/secret/manifests/1", "/v2/ann/x/referrers/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "/faena/pull-token"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"} {
			f.Add(method, target, manifest[:len(manifest)/2])
		}
	}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		if !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
		if w := ask("ann", method, target, body); w != nil && strings.Contains(w.Body.String(), marker) && !strings.Contains(body, marker) {
			t.Errorf("%s %s shows ann %s", method, target, w.Body)
		}
		if w := ask("bob", http.MethodGet, "/v2/bob/secret/tags/list", ""); w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != `{"name":"bob/secret","tags":["1"]}` {
			t.Fatalf("after %s %s bob has %d %s", method, target, w.Code, w.Body)
		}
		if w := ask("bob", http.MethodGet, "/v2/bob/secret/manifests/1", ""); w.Body.String() != manifest {
			t.Fatalf("after %s %s bob's manifest is %s", method, target, w.Body)
		}
	})
}
