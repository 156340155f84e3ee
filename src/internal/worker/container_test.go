package worker_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
)

// TestWorker_Container: a function's container is what its spec asks for, as far as the operator allows, and says whose it is.
func TestWorker_Container(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	closed := faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{Files: []faenatest.File{{Path: "/data/keep", Data: []byte("x")}}}))
	h := s.run("container", func(o *wiring.WorkerOptions) { o.Pool.Capabilities = []string{"CHOWN", "SETUID"} })
	rev := s.function("f", func(r *faena.Revision) {
		r.Number, r.Config.User, r.Config.Volumes = 7, "65534:65534", []string{"/data"}
		r.Spec.MemoryBytes, r.Spec.CPUs, r.Spec.PIDs, r.Spec.TmpfsBytes = 48<<20, 0.5, 11, 1<<20
		r.Spec.Capabilities = []string{"CHOWN", "SYS_ADMIN"}
	}, "uid")
	if r := s.says("65534:65534", rev, ""); len(r.Remarks) != 1 || !strings.Contains(r.Remarks[0], "SYS_ADMIN") ||
		!strings.Contains(r.Remarks[0], "FAENA_WORKER_CAPABILITIES") {
		t.Errorf("what it did not get is told as %q", r.Remarks)
	}
	var c struct {
		Config struct {
			Labels map[string]string
			User   string
		}
		HostConfig struct {
			Memory, MemorySwap, NanoCpus, PidsLimit int64 //nolint:revive // the engine's spelling
			CapAdd, CapDrop                         []string
			ReadonlyRootfs, Privileged              bool
			Tmpfs                                   map[string]string
		}
		NetworkSettings struct{ Networks map[string]any }
	}
	faenatest.Engine(t).Get(t, "/containers/"+h.containers()[0]+"/json", &c)
	labels := map[string]string{"faena.worker": h.id, "faena.user": "ana", "faena.function": "f", "faena.revision": "7", "faena.lockfile": h.LockFile()}
	for name, want := range labels {
		if got := c.Config.Labels[name]; got != want {
			t.Errorf("label %s is %q, want %q", name, got, want)
		}
	}
	hc := c.HostConfig
	if hc.Memory != 48<<20 || hc.MemorySwap != hc.Memory || hc.NanoCpus != 5e8 || hc.PidsLimit != 11+32 || !hc.ReadonlyRootfs || hc.Privileged {
		t.Errorf("limits: %+v", hc)
	}
	if n := c.NetworkSettings.Networks; len(n) != 1 || n[config.DefaultWorker().Engine.Network] == nil {
		t.Errorf("networks: %v", n)
	}
	if len(hc.CapAdd) != 1 || hc.CapAdd[0] != "CHOWN" && hc.CapAdd[0] != "CAP_CHOWN" || !slices.Equal(hc.CapDrop, []string{"ALL"}) {
		t.Errorf("capabilities: %v but %v", hc.CapDrop, hc.CapAdd)
	}
	theirs := s.function("theirs", func(r *faena.Revision) { // which the image keeps from its user
		r.Pull, r.Config.User, r.Config.Volumes = closed, "65534:65534", []string{"/data"}
	}, "make")
	s.says("written", theirs, "/data/x")
	s.says("written", theirs, "/data/x")
	if mounts := slices.Sorted(maps.Keys(hc.Tmpfs)); !slices.Equal(mounts, []string{"/data", "/dev/shm", "/tmp"}) {
		t.Errorf("in memory are %v", hc.Tmpfs)
	}
	t.Run("no container serves two functions or two revisions", func(t *testing.T) {
		homes := map[string]string{}
		for _, other := range []func(*faena.Revision){
			func(*faena.Revision) {}, func(r *faena.Revision) { r.Function = "g" }, func(r *faena.Revision) { r.Number = 2 },
		} {
			id, r := s.container(s.function("shared", other))
			if was, used := homes[id]; used || r.Warm {
				t.Errorf("%s %d ran in the container of %s", r.Function, r.Revision, was)
			}
			homes[id] = r.Function
		}
	})
}
