package worker_test

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
	"faena.dev/faena/internal/worker"
)

// disk is one of 100 GiB, of which so many are in use; below 0 it cannot be looked at.
type disk struct{ used atomic.Int64 }

func (d *disk) usage() (free, total int64, err error) {
	used := d.used.Load()
	if used < 0 {
		return 0, 0, errors.New("no such disk")
	}
	return (100 - used) << 30, 100 << 30, nil
}

// hasImage reports whether the engine has an image.
func (s *site) hasImage(ref string) bool {
	s.t.Helper()
	var list []struct{ RepoDigests []string }
	faenatest.Engine(s.t).Get(s.t, "/images/json", &list)
	for _, i := range list {
		for _, d := range i.RepoDigests {
			if d == ref {
				return true
			}
		}
	}
	return false
}

// TestWorker_CollectImages: above the watermark images are removed, the least recently used first, but none that is in use and
// none that this worker never needed.
func TestWorker_CollectImages(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.hand("collector", loopback, func(o *wiring.WorkerOptions) { o.Pool.IdleTTL = 100 * time.Millisecond })
	addr := faenatest.Registry(t, faenatest.RegistryOptions{})
	push := func(name string) string {
		return faenatest.Push(t, addr, name, faenatest.Image(t, faenatest.ImageSpec{}), nil)
	}
	older, newer, warm, foreign := push("older"), push("newer"), push("warm"), push("foreign")
	faenatest.Engine(t).Post(t, "/images/create?fromImage="+foreign, nil, nil)
	var d disk
	h.SetDisk(func() (free, total int64, err error) {
		if d.used.Load() == 86 && !s.hasImage(older) {
			d.used.Store(74)
		}
		return d.usage()
	})
	h.start()
	for _, ref := range []string{older, newer} { // one after the other has gone, so that they are of different ages
		s.says("x", s.pulled("f", ref, nil), "x")
		faenatest.Eventually(t, patience, "its container is gone", func() bool { return len(h.containers()) == 0 })
	}
	kept := s.pulled("warm", warm, nil)
	kept.Spec.Warm = 1
	s.says("x", kept, "x")
	for _, c := range []struct {
		name string
		used int64
		left []string
	}{
		{"at the watermark nothing", 85, []string{older, newer, warm, foreign}},
		{"above it the oldest, until there is room", 86, []string{newer, warm, foreign}},
		{"and more where there is none", 99, []string{warm, foreign}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.used.Store(c.used)
			s.check(h.CollectImages(t.Context()))
			for _, ref := range []string{older, newer, warm, foreign} {
				if has := s.hasImage(ref); has != slices.Contains(c.left, ref) {
					t.Errorf("that the engine has %s is %v", ref, has)
				}
			}
		})
	}
	d.used.Store(0)
	t.Run("what was removed is pulled again", func(t *testing.T) {
		if r := s.says("x", s.pulled("f", newer, nil), "x"); r.Timings.PullUS == 0 {
			t.Errorf("timings %+v", r.Timings)
		}
	})
}

// TestWorker_DiskFull: with too little room nothing is claimed, the heartbeat says why, and all goes on when there is room.
func TestWorker_DiskFull(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.hand("full", func(o *wiring.WorkerOptions) { o.Pool.DiskPath = s.dir })
	var d disk
	h.SetDisk(d.usage)
	h.Quicken(worker.Every{Ping: 50 * time.Millisecond})
	h.start()
	rev := s.function("f", nil)
	heir := s.run("heir")
	s.says("arg", rev, "arg")
	for used, words := range map[int64]string{100: "The disk of " + s.dir + " has 0 MiB free, 1 MiB", -1: "The disk cannot be looked at"} {
		d.used.Store(used)
		faenatest.Eventually(t, patience, "it says that it is not ready", func() bool {
			w := h.heartbeat()
			return w != nil && strings.HasPrefix(w.NotReady, words)
		})
		for range 4 {
			if r := s.says("arg", rev, "arg"); r.Worker != heir.id {
				t.Errorf("it was taken by %s while %s", r.Worker, words)
			}
		}
	}
	heir.Abort()
	d.used.Store(0)
	if r := s.says("arg", rev, "arg"); r.Worker != h.id {
		t.Errorf("with room again %s has taken it", r.Worker)
	}
	faenatest.Eventually(t, patience, "it says that it is ready", func() bool { w := h.heartbeat(); return w != nil && w.NotReady == "" })
}
