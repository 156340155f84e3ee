package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// at wraps a registry so that requests whose path has a part are answered by h.
func at(part string, h http.HandlerFunc) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, part) {
				h(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// stall keeps a caller waiting until he goes.
func stall(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// stallInBody begins an answer and never ends it.
func stallInBody(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	_, _ = io.WriteString(w, "{")             // the caller waits for more
	_ = http.NewResponseController(w).Flush() // the same
	<-r.Context().Done()
}

// However a registry stalls, the caller is told in time.
func TestResolver_Stalls(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	with := func(o faenatest.RegistryOptions) string {
		armed := new(atomic.Bool)
		if wrap := o.Wrap; wrap != nil {
			o.Wrap = func(next http.Handler) http.Handler {
				stalling := wrap(next)
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if armed.Load() {
						stalling.ServeHTTP(w, r)
						return
					}
					next.ServeHTTP(w, r)
				})
			}
		}
		addr := faenatest.Registry(t, o)
		faenatest.Push(t, addr, "app", img, nil)
		armed.Store(true)
		return addr
	}
	for name, addr := range map[string]string{
		"BeforeTheFirstByte": silent.Addr().String(),
		"AtTheAPI":           with(faenatest.RegistryOptions{Wrap: at("/v2/", stall)}),
		"AtTheToken":         with(faenatest.RegistryOptions{Bearer: true, Wrap: at("/token", stall)}),
		"AtTheManifest":      with(faenatest.RegistryOptions{Wrap: at("/manifests/", stall)}),
		"InTheManifest":      with(faenatest.RegistryOptions{Wrap: at("/manifests/", stallInBody)}),
		"AtTheConfig":        with(faenatest.RegistryOptions{Wrap: at("/blobs/", stall)}),
		"InTheConfig":        with(faenatest.RegistryOptions{Wrap: at("/blobs/", stallInBody)}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := NewResolver(loopback)
			if r.within != resolveFor {
				t.Errorf("all questions are bounded by %v", r.within)
			}
			r.within = 300 * time.Millisecond
			began := time.Now()
			_, err := r.Resolve(t.Context(), addr+"/app", nil, arch)
			refusal(t, err, faena.KindUnavailable, "registry_unavailable", "The registry "+addr+" did not answer as it should: ")
			if took := time.Since(began); took < r.within || took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			r.within = time.Hour
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			began = time.Now()
			if _, err := r.Resolve(ctx, addr+"/app", nil, arch); err == nil || time.Since(began) > 10*time.Second {
				t.Errorf("after %v, its caller gone, it is %v", time.Since(began), err)
			}
		})
	}
}

func TestResolver_BadAnswers(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	oci := http.Header{"Content-Type": {"application/vnd.oci.image.manifest.v1+json"}}
	index := http.Header{"Content-Type": {"application/vnd.oci.image.index.v1+json"}}
	deep := strings.Repeat(`{"config":`, 20_000)
	for name, c := range map[string]struct{ addr, words string }{
		"NobodyListens":      {closed.Addr().String(), "connection refused"},
		"AnEmptyManifest":    {answer(t, 200, oci, ""), "EOF"},
		"AManifestOfGarbage": {answer(t, 200, oci, "\x00\x01\x02"), "invalid character"},
		"ADeepManifest":      {answer(t, 200, oci, deep), ""},
		"AnIndexOfGarbage":   {answer(t, 200, index, "[]"), "cannot unmarshal"},
		"HangsUp": {faenatest.Registry(t, faenatest.RegistryOptions{Wrap: at("/manifests/", func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		})}), "EOF"},
		"RedirectsForEver": {answer(t, 307, http.Header{"Location": {"/v2/app/manifests/again"}}, ""), "stopped after 10 redirects"},
		"EndlessManifest": {faenatest.Registry(t, faenatest.RegistryOptions{Wrap: at("/manifests/", func(w http.ResponseWriter, _ *http.Request) {
			endless(w, oci)
		})}), ""},
		"EndlessError": {faenatest.Registry(t, faenatest.RegistryOptions{Wrap: at("/manifests/", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			endless(w, nil)
		})}), ""},
		"EndlessHeader": {faenatest.Registry(t, faenatest.RegistryOptions{Wrap: at("/manifests/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 20<<20))
		})}), ""},
		"AnEmptyToken": {faenatest.Registry(t, faenatest.RegistryOptions{Bearer: true, Wrap: at("/token", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "{}") // the caller sees a short answer
		})}), "no token in bearer response"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := NewResolver(loopback).Resolve(t.Context(), c.addr+"/app", creds, arch)
			refusal(t, err, faena.KindUnavailable, "registry_unavailable", c.words)
			secretFree(t, err)
		})
	}
}

// endless writes for as long as somebody reads, a bounded time.
func endless(w http.ResponseWriter, header http.Header) {
	for k, v := range header {
		w.Header()[k] = v
	}
	chunk := bytes.Repeat([]byte(" "), 1<<20)
	for range 200 {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
	_, _ = io.WriteString(w, "{}") // this far nobody reads
}

// What a registry or somebody on the way changed has another digest: it is refused, not run.
func TestResolver_Tampered(t *testing.T) {
	t.Parallel()
	img, other := small(t, faenatest.ImageSpec{Cmd: []string{"run"}}), small(t, faenatest.ImageSpec{Cmd: []string{"something else"}})
	text, err := other.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := other.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	media, err := img.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		part   string
		answer []byte
		image  string
	}{
		"TheManifest": {"/manifests/", text, "/app@" + digestOf(t, img)},
		"TheConfig":   {"/blobs/", config, "/app"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := faenatest.Registry(t, faenatest.RegistryOptions{Wrap: at(c.part, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", string(media))
				_, _ = w.Write(c.answer) // the caller sees a short answer
			})})
			faenatest.Push(t, addr, "app", img, nil)
			got, err := NewResolver(loopback).Resolve(t.Context(), addr+c.image, nil, arch)
			refusal(t, err, faena.KindUnavailable, "registry_unavailable")
			if got.Digest != "" {
				t.Errorf("it is %+v", got)
			}
		})
	}
}

// A registry that stumbles once is asked again; so often as it must, not for ever.
func TestResolver_AsksAgain(t *testing.T) {
	t.Parallel()
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	for _, c := range []struct{ failures, most int64 }{{1, 2}, {1000, 5}} {
		t.Run(fmt.Sprint(c.failures), func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			addr := faenatest.Registry(t, faenatest.RegistryOptions{Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") && asked.Add(1) <= c.failures {
						w.WriteHeader(http.StatusServiceUnavailable)
						return
					}
					next.ServeHTTP(w, r)
				})
			}})
			faenatest.Push(t, addr, "app", img, nil)
			got, err := NewResolver(loopback).Resolve(t.Context(), addr+"/app", nil, arch)
			if c.failures == 1 && (err != nil || got.Digest != digestOf(t, img)) || c.failures > 1 && err == nil {
				t.Errorf("it is %+v, %v", got, err)
			}
			if n := asked.Load(); n > c.most || n < 2 {
				t.Errorf("it was asked %d times", n)
			}
			if e, ok := errors.AsType[*faena.Error](err); ok && e.Kind != faena.KindUnavailable {
				t.Errorf("the error is %+v", e)
			}
		})
	}
}
