package worker_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/registry"
	"faena.dev/faena/internal/wiring"
	"faena.dev/faena/internal/worker"
)

// cancel asks for the end of an activation, as an API does.
func (s *site) cancel(id string) {
	s.t.Helper()
	s.change(id, func(r *faena.Record) { r.CancelRequested = true })
	s.check(s.bus.RequestCancel(s.t.Context(), group, id))
}

// loopback lets a worker pull from registries of this machine.
func loopback(o *wiring.WorkerOptions) {
	o.Registries = registry.Rules{PrivateHosts: []string{"127.0.0.1"}}
}

// stalled is a registry that gives no layer until it is let to; asked tells of each that is asked for.
type stalled struct {
	addr    string
	asked   chan struct{}
	waiting chan struct{} // closed by let
	once    sync.Once
	counted
}

// let gives all layers from now on.
func (s *stalled) let() { s.once.Do(func() { close(s.waiting) }) }

func stall(t *testing.T) *stalled {
	s := &stalled{asked: make(chan struct{}, 100), waiting: make(chan struct{})}
	s.addr = faenatest.Registry(t, faenatest.RegistryOptions{Wrap: func(next http.Handler) http.Handler {
		return s.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				s.asked <- struct{}{}
				select {
				case <-s.waiting:
				case <-r.Context().Done():
					return
				}
			}
			next.ServeHTTP(w, r)
		}))
	}})
	t.Cleanup(s.let) // the engine may not hang up when nobody waits for its pull any more
	return s
}

// TestWorker_Cancel: whatever an activation does, cancelling it ends it soon, and its slot is free.
func TestWorker_Cancel(t *testing.T) {
	t.Parallel()
	s := start(t, never)
	slow := stall(t)
	absent := faenatest.Push(t, slow.addr, "slow", faenatest.Image(t, faenatest.ImageSpec{}), nil)
	// It reads no record again by itself.
	h := s.quick("cancel", worker.Every{Progress: time.Hour, Fence: 2 * time.Hour}, loopback, func(o *wiring.WorkerOptions) { o.Pool.Places = 1 })
	rev := s.function("f", nil, "stubborn")
	t.Run("running, and queued behind it", func(t *testing.T) {
		id, behind := s.send(rev, ""), s.send(rev, "")
		s.wrote(id, "here")
		s.cancel(behind)
		s.cancel(id)
		r := s.ended(id)
		if r.State != faena.StateCancelled || r.Reason != faena.ReasonCancelled || string(r.Log.Inline) != "here" || ending(r) != "" || r.Timings.RunUS == 0 {
			t.Errorf("%+v", r)
		}
		if r := s.ended(behind); r.State != faena.StateCancelled || r.Attempt != 0 || r.StartedAt != nil {
			t.Errorf("behind it: %+v", r)
		}
		s.quiet()
		s.says("slept", s.function("next", nil, "sleep", "0"), "")
	})
	t.Run("while its image is pulled", func(t *testing.T) {
		id := s.send(s.function("slow", func(r *faena.Revision) { r.Pull = absent }), "arg")
		<-slow.asked
		s.cancel(id)
		if r := s.ended(id); r.State != faena.StateCancelled || r.Attempt != 0 {
			t.Errorf("%+v", r)
		}
		s.quiet()
		h.idle()
		s.says("slept", s.function("next", nil, "sleep", "0"), "")
	})
}

// TestWorker_CancelUnheard: the word may be lost; the flag in the record is not.
func TestWorker_CancelUnheard(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	s.quick("unheard", worker.Every{Tick: 50 * time.Millisecond, Progress: 200 * time.Millisecond})
	id := s.send(s.function("f", nil, "stubborn"), "")
	s.is(id, faena.StateRunning)
	s.change(id, func(r *faena.Record) { r.CancelRequested = true })
	if r := s.ended(id); r.State != faena.StateCancelled || r.Attempt != 1 {
		t.Errorf("%+v", r)
	}
	s.quiet()
}
