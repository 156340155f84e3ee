package worker_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/dockerengine"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/worker"
)

// leave makes a container as a worker does, in a state, and returns its id. Without a lock file it is nobody's.
func (s *site) leave(owner, lockFile, state string) (id string) {
	s.t.Helper()
	d := faenatest.Engine(s.t)
	labels := map[string]string{}
	if lockFile != "" {
		labels = map[string]string{dockerengine.LabelWorker: owner, dockerengine.LabelLockFile: lockFile}
	}
	var made struct{ Id string } //nolint:revive // the engine's spelling
	d.Post(s.t, "/containers/create", map[string]any{"Image": s.ref, "Entrypoint": []string{faenatest.FixturePath, "stubborn"}, "Labels": labels,
		"HostConfig": map[string]any{"NetworkMode": "none"}}, &made)
	s.t.Cleanup(func() { d.Delete(s.t, "/containers/"+made.Id+"?force=1&v=1") })
	for _, step := range map[string][]string{"created": nil, "running": {"start"}, "paused": {"start", "pause"}, "dead": {"start", "kill"}}[state] {
		d.Post(s.t, "/containers/"+made.Id+"/"+step, nil, nil)
	}
	return made.Id
}

// has reports whether the engine has a container.
func (s *site) has(id string) bool {
	s.t.Helper()
	var list []struct{ Id string } //nolint:revive // the engine's spelling
	faenatest.Engine(s.t).Get(s.t, "/containers/json?all=1", &list)
	for _, c := range list {
		if c.Id == id {
			return true
		}
	}
	return false
}

// hold locks a file as a worker does that lives.
func hold(t *testing.T, path string) (letGo func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return func() { _ = f.Close() }
}

// TestWorker_Sweep: containers that nobody owns any more are removed, in whatever state; those of others stay.
func TestWorker_Sweep(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.hand("sweeper")
	dead, held := filepath.Join(s.dir, "dead.lock"), filepath.Join(s.dir, "live.lock")
	die, letGo := hold(t, dead), hold(t, held) // workers of other tests sweep too
	orphans := []string{s.leave(h.id, h.LockFile(), "running")}
	for _, state := range []string{"created", "running", "paused", "dead"} {
		orphans = append(orphans, s.leave("dead", dead, state))
	}
	live, foreign := s.leave("live", held, "running"), s.leave("", "", "running")
	socket := filepath.Join(filepath.Dir(h.LockFile()), "run", "0123456789")
	s.check(os.MkdirAll(socket, 0o755))
	die()
	h.Quicken(worker.Every{Sweep: 100 * time.Millisecond, Launch: 5 * time.Second})
	h.start()

	t.Run("at the start, before anything is taken", func(t *testing.T) {
		home, _ := s.container(s.function("f", nil))
		for _, id := range orphans {
			if s.has(id) {
				t.Errorf("container %s of a worker that is gone is still there", id)
			}
		}
		if _, err := os.Stat(socket); !os.IsNotExist(err) {
			t.Errorf("the socket's directory of an earlier life: %v", err)
		}
		if c := h.containers(); len(c) != 1 || !strings.HasPrefix(c[0], home) {
			t.Errorf("the worker's containers are %v, it ran in %s", c, home)
		}
	})
	t.Run("of its own what it does not know, later", func(t *testing.T) {
		known := h.containers()
		const drift = `faena_worker_containers_drift{what="unknown"}`
		if n := h.metric(drift); n != 0 {
			t.Errorf("the metric says %d before", n)
		}
		unknown := s.leave(h.id, h.LockFile(), "running")
		faenatest.Eventually(t, patience, "the metric says so", func() bool { return h.metric(drift) == 1 })
		faenatest.Eventually(t, patience, "it is removed", func() bool { return !s.has(unknown) })
		faenatest.Eventually(t, patience, "the metric says that", func() bool { return h.metric(drift) == 0 })
		if again, r := s.container(s.function("f", nil)); len(known) != 1 || !s.has(known[0]) || again == "" || r.Worker != h.id {
			t.Errorf("of %v there are %v", known, h.containers())
		}
	})
	t.Run("of others what they own as long as they live", func(t *testing.T) {
		if !s.has(live) {
			t.Error("the container of a worker that lives is gone")
		}
		letGo()
		faenatest.Eventually(t, patience, "it is removed when its worker is gone", func() bool { return !s.has(live) })
	})
	if !s.has(foreign) {
		t.Error("a container that is not Faena's is gone")
	}
}
