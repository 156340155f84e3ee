package worker_test

import (
	"slices"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/registry"
	"faena.dev/faena/internal/wiring"
	"faena.dev/faena/internal/worker"
)

// TestWorker_Advice: the heartbeat tells of the engine as soon as it was asked, and of a disk from which images must be removed; of a
// mirror of Docker Hub only where images may come from there.
func TestWorker_Advice(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	var about struct {
		ServerVersion      string
		LiveRestoreEnabled bool
		RegistryConfig     struct{ Mirrors []string }
	}
	faenatest.Engine(t).Get(t, "/info", &about)
	for name, c := range map[string]struct {
		rules registry.Rules
		free  int64
		want  map[string]bool // by code
	}{
		"room":      {registry.Rules{}, 60 << 30, map[string]bool{faena.AdviceNoMirror: len(about.RegistryConfig.Mirrors) == 0, faena.AdviceDiskHigh + "=91": false}},
		"little":    {registry.Rules{}, 9 << 30, map[string]bool{faena.AdviceDiskHigh + "=91": true}},
		"elsewhere": {registry.Rules{Registries: []string{"registry.example:5000"}}, 60 << 30, map[string]bool{faena.AdviceNoMirror: false}},
		"hub":       {registry.Rules{Registries: []string{"docker.io"}}, 60 << 30, map[string]bool{faena.AdviceNoMirror: len(about.RegistryConfig.Mirrors) == 0}},
	} {
		t.Run(name, func(t *testing.T) {
			h := s.hand("advised-"+name, func(o *wiring.WorkerOptions) { o.Registries = c.rules })
			h.Quicken(worker.Every{Heartbeat: time.Hour}) // it says only what is to be said at once
			h.SetDisk(func() (free, total int64, err error) { return c.free, 100 << 30, nil })
			if h.Describe().Engine != nil {
				t.Error("it tells of the engine before it has asked")
			}
			h.start()
			var said *faena.Engine
			faenatest.Eventually(t, patience, "it tells of its engine", func() bool {
				w := h.heartbeat()
				if w != nil {
					said = w.Engine
				}
				return said != nil
			})
			if said.Version != about.ServerVersion || slices.Contains(said.Advice, faena.AdviceNoLiveRestore) == about.LiveRestoreEnabled {
				t.Errorf("it says %+v of %+v", said, about)
			}
			for code, want := range c.want {
				if slices.Contains(said.Advice, code) != want {
					t.Errorf("%s: want %v in %q", code, want, said.Advice)
				}
			}
			h.Abort()
			h.gone()
		})
	}
}
