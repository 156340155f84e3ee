package dockerengine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestEngine_Stats(t *testing.T) {
	e := open(t)
	a := launch(t, e, spec(t, plain(t))) // 64 MiB, 20 processes
	g, err := e.Stats(a.id, a.pid())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	counts := func() (oom uint64, peak int64, pids uint64) {
		t.Helper()
		oom, err := g.OOMKills()
		if err != nil {
			t.Fatal(err)
		}
		if peak, err = g.PeakMemory(); err != nil {
			t.Fatal(err)
		}
		if pids, err = g.PIDsExceeded(); err != nil {
			t.Fatal(err)
		}
		return oom, peak, pids
	}
	if oom, peak, pids := counts(); oom != 0 || pids != 0 || peak <= 0 || peak > 32<<20 {
		t.Errorf("at first: %d OOM kills, %d bytes, pids exceeded %d times", oom, peak, pids)
	}
	a.expect("exit 0", "grow 32")
	if oom, peak, _ := counts(); oom != 0 || peak < 32<<20 {
		t.Errorf("after 32 MiB: %d OOM kills, %d bytes", oom, peak)
	}
	if err := g.ResetPeak(); err != nil {
		t.Fatal(err)
	}
	if _, peak, _ := counts(); g.resettable && peak >= 32<<20 {
		t.Errorf("after the reset: %d bytes", peak)
	}
	a.expect("signal 9", "grow 128")
	if oom, peak, _ := counts(); oom != 1 || peak < 60<<20 || peak > 64<<20 {
		t.Errorf("after an OOM of a child: %d OOM kills, %d bytes", oom, peak)
	}
	a.expect(strconv.Itoa(20+InitPIDs-1)+" 11", "forks 100") // all but the agent itself; EAGAIN
	if _, _, pids := counts(); pids == 0 {
		t.Error("a fork failed, but the limit was never met")
	}
	if err := e.Kill(t.Context(), a.id); err != nil {
		t.Fatal(err)
	}
	if err := e.Remove(t.Context(), a.id); err != nil {
		t.Fatal(err)
	}
	if _, err := g.OOMKills(); err == nil {
		t.Error("a cgroup that is gone still counts")
	}
}

func TestEngine_Stats_NotOfTheContainer(t *testing.T) {
	e := open(t)
	id := create(t, e, spec(t, plain(t)))
	if _, err := e.Stats(id, os.Getpid()); err == nil {
		t.Error("opened the cgroup of a container by a process that is not in it")
	}
	if _, err := e.Stats(id, 0); err == nil {
		t.Error("opened the cgroup of a container by a process that is none")
	}
}

// The id that the fixtures have in their paths.
const fixtureID = "3f2a9c0d41e7b8563f2a9c0d41e7b8563f2a9c0d41e7b8563f2a9c0d41e7b856"

func TestLocate(t *testing.T) {
	const v1, v2, nested = "/docker/" + fixtureID, "/system.slice/docker-" + fixtureID + ".scope", "/docker/" + fixtureID
	for name, want := range map[string]location{
		"v1":                 {1, "/sys/fs/cgroup/memory" + v1, "/sys/fs/cgroup/pids" + v1},
		"v1-joined":          {1, "/sys/fs/cgroup/cpu,memory,pids" + v1, "/sys/fs/cgroup/cpu,memory,pids" + v1},
		"v1-nested-hostns":   {1, "/sys/fs/cgroup/memory" + nested, "/sys/fs/cgroup/pids" + nested},
		"v1-nested-private":  {1, "/sys/fs/cgroup/memory" + nested, "/sys/fs/cgroup/pids" + nested},
		"v2":                 {2, "/sys/fs/cgroup" + v2, "/sys/fs/cgroup" + v2},
		"v2-nested-hostns":   {2, "/sys/fs/cgroup" + nested, "/sys/fs/cgroup" + nested},
		"v2-nested-private":  {2, "/sys/fs/cgroup" + nested, "/sys/fs/cgroup" + nested},
		"v2-space-in-mounts": {2, "/mnt/c groups" + v2, "/mnt/c groups" + v2},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := locate(read(t, name+".cgroup"), read(t, name+".mountinfo"), fixtureID)
			if err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
	for name, c := range map[string]struct{ cgroup, mountinfo, id string }{
		"another process took the pid": {"v2.cgroup", "v2.mountinfo", strings.Repeat("0", 64)},
		"not mounted":                  {"v2.cgroup", "v1-joined.mountinfo", fixtureID},
		"outside of what is mounted":   {"v1.cgroup", "v1-nested-hostns.mountinfo", fixtureID},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := locate(read(t, c.cgroup), read(t, c.mountinfo), c.id); err == nil {
				t.Errorf("got %+v", got)
			}
		})
	}
	for name, text := range map[string]string{"empty": "", "garbage": "a\n:\n::\n\x00"} {
		t.Run(name, func(t *testing.T) {
			if got, err := locate(text, text, fixtureID); err == nil {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "cgroup", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// files makes a file system with the counters of one container, as a kernel would show them, and opens them.
func files(t *testing.T, mountinfo, cgroup string, counters map[string]string) *Cgroup {
	t.Helper()
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("proc/self/mountinfo", strings.ReplaceAll(mountinfo, " /sys/fs/cgroup", " "+root+"/sys/fs/cgroup"))
	write("proc/42/cgroup", cgroup)
	for path, text := range counters {
		write(path, text)
	}
	g, err := openCgroup(filepath.Join(root, "proc"), 42, fixtureID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

func TestCgroup_Files(t *testing.T) {
	const v1, v2 = "docker/" + fixtureID, "sys/fs/cgroup/system.slice/docker-" + fixtureID + ".scope"
	expect := func(t *testing.T, g *Cgroup, oom uint64, peak int64, pids uint64) {
		t.Helper()
		gotOOM, err1 := g.OOMKills()
		gotPeak, err2 := g.PeakMemory()
		gotPIDs, err3 := g.PIDsExceeded()
		if gotOOM != oom || gotPeak != peak || gotPIDs != pids || err1 != nil || err2 != nil || err3 != nil {
			t.Errorf("got %d, %d, %d (%v, %v, %v), want %d, %d, %d", gotOOM, gotPeak, gotPIDs, err1, err2, err3, oom, peak, pids)
		}
	}
	t.Run("v1", func(t *testing.T) {
		expect(t, files(t, read(t, "v1.mountinfo"), read(t, "v1.cgroup"), map[string]string{
			"sys/fs/cgroup/memory/" + v1 + "/memory.oom_control":        read(t, "v1.memory.oom_control"),
			"sys/fs/cgroup/memory/" + v1 + "/memory.max_usage_in_bytes": "67108864\n",
			"sys/fs/cgroup/pids/" + v1 + "/pids.events":                 "max 49\n",
		}), 3, 67108864, 49)
	})
	events := map[string]string{v2 + "/memory.events": read(t, "v2.memory.events"), v2 + "/pids.events": "max 2\n"}
	t.Run("v2 without a peak", func(t *testing.T) {
		g := files(t, read(t, "v2.mountinfo"), read(t, "v2.cgroup"), events)
		expect(t, g, 5, 0, 2)
		if err := g.ResetPeak(); err != nil {
			t.Error(err)
		}
	})
	t.Run("v2", func(t *testing.T) {
		events[v2+"/memory.peak"] = "1048576\n"
		g := files(t, read(t, "v2.mountinfo"), read(t, "v2.cgroup"), events)
		expect(t, g, 5, 1048576, 2)
		if err := g.ResetPeak(); err != nil {
			t.Error(err)
		}
	})
}

func TestCounter(t *testing.T) {
	for _, text := range []string{"", "max\n", "max x\n", "maximum 3\n", "max -1\n"} {
		if n, err := counter([]byte(text), "max"); err == nil {
			t.Errorf("%q: got %d", text, n)
		}
	}
	if n, err := counter([]byte("high 1\nmax 18446744073709551615"), "max"); err != nil || n != 1<<64-1 {
		t.Errorf("got %d, %v", n, err)
	}
}

// A read is one pread: it is made after every activation.
func BenchmarkCgroup_OOMKills(b *testing.B) {
	e := open(b)
	a := launch(b, e, spec(b, plain(b)))
	g, err := e.Stats(a.id, a.pid())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	for b.Loop() {
		if _, err := g.OOMKills(); err != nil {
			b.Fatal(err)
		}
	}
}
