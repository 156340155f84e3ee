package worker_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/wiring"
)

// sealed is what a revision carries of its credentials: for this site's workers alone.
func (s *site) sealed(c faena.Credentials) []byte {
	s.t.Helper()
	plain, err := json.Marshal(c)
	s.check(err)
	sealer, err := seal.NewSealer(s.identity.Recipient())
	s.check(err)
	out, err := sealer.Seal(s.identity.Recipient(), plain)
	s.check(err)
	return out
}

// pulled makes a function of an image in a registry.
func (s *site) pulled(name, ref string, sealed []byte) *faena.Revision {
	return s.function(name, func(r *faena.Revision) { r.Pull, r.Sealed = ref, sealed }, "arg")
}

// counted counts what a registry is asked for, by the kind of thing.
type counted struct{ manifests, blobs atomic.Int64 }

func (c *counted) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/"):
			c.manifests.Add(1)
		case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/"):
			c.blobs.Add(1)
		}
		next.ServeHTTP(w, r)
	})
}

// TestWorker_PullOnce: activations that need the same image at once wait for one pull, whose time is not the function's.
func TestWorker_PullOnce(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	slow := stall(t)
	h := s.run("once", loopback, func(o *wiring.WorkerOptions) { o.Pool.Places = 4 })
	ref := faenatest.Push(t, slow.addr, "slow", faenatest.Image(t, faenatest.ImageSpec{}), nil)
	var ids []string
	for _, name := range []string{"a", "a", "b", "c"} {
		rev := s.pulled(name, ref, nil)
		rev.Spec.TimeoutMS = 5000
		ids = append(ids, s.send(rev, "x"))
	}
	<-slow.asked
	began := time.Now()
	faenatest.Eventually(t, patience, "all wait, for longer than their timeout", func() bool {
		return h.Describe().Busy == 4 && time.Since(began) > 5*time.Second
	})
	slow.let()
	for _, id := range ids {
		if r := s.ended(id); r.State != faena.StateSucceeded || r.Timings.PullUS < 5_000_000 || r.Warm || r.Timings.TotalUS < r.Timings.PullUS {
			t.Errorf("%+v", r)
		}
	}
	if manifests, blobs := slow.manifests.Load(), slow.blobs.Load(); manifests != 1 || blobs > 2 { // configuration and layer
		t.Errorf("the registry was asked for %d manifests and %d blobs", manifests, blobs)
	}
	if r := s.says("x", s.pulled("d", ref, nil), "x"); r.Timings.PullUS != 0 {
		t.Errorf("with the image here: %+v", r.Timings)
	}
}

// TestWorker_PullFails: what a registry refuses ends the activation in its words; what it refused it is not asked again at once.
func TestWorker_PullFails(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("refused", loopback)
	var open, closed counted
	ana := faena.Credentials{Username: "ana", Password: "s3cret-of-ana"}
	public := faenatest.Registry(t, faenatest.RegistryOptions{Wrap: open.wrap})
	private := faenatest.Registry(t, faenatest.RegistryOptions{Username: ana.Username, Password: ana.Password, Wrap: closed.wrap})
	image := faenatest.Image(t, faenatest.ImageSpec{})
	kept := faenatest.Push(t, private, "team/kept", image, &ana)
	other, err := seal.LoadOrCreate(filepath.Join(s.dir, "other.key"))
	s.check(err)
	foreign := &site{t: t, identity: other}
	for _, c := range []struct {
		name   string
		rev    *faena.Revision
		reason faena.Reason
		words  string
	}{
		{"gone", s.pulled("gone", public+"/team/gone@sha256:"+strings.Repeat("0", 64), nil), faena.ReasonImageNotFound, "unknown"},
		{"nobody listens", s.pulled("away", "127.0.0.1:1/team/away@sha256:"+strings.Repeat("0", 64), nil), faena.ReasonStartFailed, "connection refused"},
		{"without credentials", s.pulled("none", kept, nil), faena.ReasonImageDenied, "no basic auth credentials"},
		{"wrong credentials", s.pulled("wrong", kept, s.sealed(faena.Credentials{Username: "ana", Password: "s3cret-of-eve"})),
			faena.ReasonImageDenied, "unauthorized"},
		{"credentials for another worker", s.pulled("foreign", kept, foreign.sealed(ana)), faena.ReasonImageDenied, "Deploy the function again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := s.call(c.rev, "x")
			if r.State != faena.StateFailed || r.Reason != c.reason || !strings.Contains(r.Message, c.words) || r.Attempt != 0 {
				t.Errorf("%s %s: %s", r.State, r.Reason, r.Message)
			}
			if c.reason == faena.ReasonStartFailed {
				return // which may end soon: it is asked again
			}
			asked := open.manifests.Load() + closed.manifests.Load()
			if again := s.call(c.rev, "x"); again.Reason != c.reason || again.Message != r.Message {
				t.Errorf("the second time: %s: %s", again.Reason, again.Message)
			}
			if now := open.manifests.Load() + closed.manifests.Load(); now != asked {
				t.Errorf("the registry was asked %d times more", now-asked)
			}
		})
	}
	t.Run("another machine", func(t *testing.T) {
		ref := faenatest.Push(t, public, "team/arch", faenatest.Image(t, faenatest.ImageSpec{Arch: "s390x"}), nil)
		if r := s.call(s.pulled("arch", ref, nil), "x"); r.Reason != faena.ReasonImagePlatform || !strings.Contains(r.Message, "s390x") {
			t.Errorf("%s %s: %s", r.State, r.Reason, r.Message)
		}
	})
	t.Run("the right credentials are not held back by wrong ones", func(t *testing.T) {
		s.says("x", s.pulled("right", kept, s.sealed(ana)), "x")
	})
	s.quiet()
	if h.log.has("s3cret") {
		t.Error("a password is in the log")
	}
}

// TestWorker_PullOfAnother: who waits for a pull with another's credentials tries again with its own when that was refused.
func TestWorker_PullOfAnother(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("another", loopback)
	ana := faena.Credentials{Username: "ana", Password: "s3cret-of-ana"}
	asked, let := make(chan struct{}, 10), make(chan struct{})
	addr := faenatest.Registry(t, faenatest.RegistryOptions{Username: ana.Username, Password: ana.Password, Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, password, _ := r.BasicAuth(); password == "wrong" {
				asked <- struct{}{}
				<-let
			}
			next.ServeHTTP(w, r)
		})
	}})
	release := sync.OnceFunc(func() { close(let) })
	t.Cleanup(release)
	ref := faenatest.Push(t, addr, "team/image", faenatest.Image(t, faenatest.ImageSpec{}), &ana)
	first := s.send(s.pulled("wrong", ref, s.sealed(faena.Credentials{Username: "ana", Password: "wrong"})), "x")
	<-asked
	second := s.send(s.pulled("right", ref, s.sealed(ana)), "x")
	faenatest.Eventually(t, patience, "both are held", func() bool { return h.Describe().Busy == 2 })
	release()
	if r := s.ended(first); r.Reason != faena.ReasonImageDenied {
		t.Errorf("with wrong credentials: %s %s (%s)", r.State, r.Reason, r.Message)
	}
	if r := s.ended(second); r.State != faena.StateSucceeded || r.Timings.PullUS == 0 {
		t.Errorf("with the right ones: %s %s (%s)", r.State, r.Reason, r.Message)
	}
}

// TestWorker_PullForbidden: the address of a registry is checked again just before the engine is sent there.
func TestWorker_PullForbidden(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	s.run("forbidden") // whose operator allows no private addresses
	var asked atomic.Int64
	addr := faenatest.Registry(t, faenatest.RegistryOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			next.ServeHTTP(w, r)
		})
	}})
	r := s.call(s.pulled("f", addr+"/team/image@sha256:"+strings.Repeat("0", 64), nil), "x")
	if r.Reason != faena.ReasonImageDenied || !strings.Contains(r.Message, "may not be reached") || asked.Load() != 0 {
		t.Errorf("%s %s (%s), the registry was asked %d times", r.State, r.Reason, r.Message, asked.Load())
	}
}
