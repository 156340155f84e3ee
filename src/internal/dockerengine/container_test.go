package dockerengine

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"faena.dev/faena/internal/faenatest"
)

// plain loads an image that declares as much as an image can.
func plain(t testing.TB) string {
	t.Helper()
	return faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{Bare: true, Entrypoint: []string{"/nowhere"}, Cmd: []string{"x"},
		Env: []string{"GODEBUG=inittrace=1", "A=b"}, Healthcheck: []string{"CMD", "/nowhere"}, Volumes: []string{"/data", "/dev/shm", "/.faena/run"},
		Files: []faenatest.File{{Path: "/etc/passwd", Data: []byte("root:x:0:0::/:\napp:x:1234:1234::/:\n"), Mode: 0o644},
			{Path: "/etc/group", Data: []byte("root:x:0:\napp:x:1234:\n"), Mode: 0o644}, {Path: "/srv/", Mode: 0o755}}}))
}

func TestEngine_Create_Inspect(t *testing.T) {
	e := open(t)
	bridge := bridgeFor(t, e)
	c := spec(t, plain(t))
	c.Network, c.Volumes, c.Capabilities = bridge, []string{"/data", "/dev/shm", "/.faena/run"}, []string{"CHOWN"}
	id := create(t, e, c)

	var got struct {
		Config struct {
			Entrypoint, Cmd []string
			Labels          map[string]string
			Healthcheck     struct{ Test []string }
		}
		HostConfig struct {
			CapAdd, CapDrop, SecurityOpt, Binds         []string
			IpcMode, CgroupnsMode, NetworkMode, PidMode string
			ReadonlyRootfs, Privileged, AutoRemove      bool
			PublishAllPorts                             bool
			Tmpfs                                       map[string]string
			ShmSize, Memory, MemorySwap, NanoCpus       int64
			PidsLimit                                   int64
			OomKillDisable, Init                        bool
			LogConfig                                   struct{ Type string }
			RestartPolicy                               struct{ Name string }
			Ulimits                                     []struct {
				Name       string
				Soft, Hard int64
			}
			Devices []any
		}
		Mounts []struct {
			Type, Source, Destination string
			RW                        bool
		}
	}
	faenatest.Engine(t).Get(t, "/containers/"+id+"/json", &got)
	check := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	h := got.HostConfig
	check("entrypoint and cmd", slices.Concat(got.Config.Entrypoint, got.Config.Cmd), []string{InitTarget})
	check("labels", fmt.Sprint(got.Config.Labels[LabelWorker], got.Config.Labels[LabelLockFile]), fmt.Sprint(c.Name, c.SocketDir))
	check("health check", got.Config.Healthcheck.Test, []string{"NONE"})
	check("capabilities", fmt.Sprint(h.CapDrop, h.CapAdd, h.Privileged), "[ALL] [CAP_CHOWN] false")
	check("security options", h.SecurityOpt, []string{"no-new-privileges"})
	check("namespaces", fmt.Sprint(h.IpcMode, h.CgroupnsMode, h.NetworkMode, h.PidMode), fmt.Sprint("private", "private", bridge, ""))
	check("memory", fmt.Sprint(h.Memory, h.MemorySwap, h.OomKillDisable), "67108864 67108864 false")
	check("cpus", h.NanoCpus, 1500000000)
	check("pids", h.PidsLimit, 20+InitPIDs)
	check("ulimits", h.Ulimits, "[{nofile 512 512} {core 0 0}]")
	check("root", fmt.Sprint(h.ReadonlyRootfs, h.ShmSize), "true 16777216")
	check("rest", []any{h.LogConfig.Type, h.RestartPolicy.Name, h.Init, h.AutoRemove, h.PublishAllPorts, len(h.Devices), len(h.Binds)}, "[none no false false false 0 0]")
	if len(h.Tmpfs) != 3 || h.Tmpfs["/tmp"] == "" || h.Tmpfs["/data"] == "" || h.Tmpfs["/dev/shm"] == "" {
		t.Errorf("tmpfs: got %v, want /tmp, /data and /dev/shm", h.Tmpfs)
	}
	// Nothing but these two, no anonymous volume for any VOLUME, no socket of the engine.
	if len(got.Mounts) != 2 {
		t.Fatalf("mounts: got %+v, want two", got.Mounts)
	}
	for _, m := range got.Mounts {
		want := map[string]string{InitTarget: c.InitPath, SocketTarget: c.SocketDir}[m.Destination]
		if m.Type != "bind" || m.RW || m.Source != want {
			t.Errorf("mount: got %+v, want %q read-only", m, want)
		}
	}
}

func TestEngine_Create_Inside(t *testing.T) {
	e := open(t)
	c := spec(t, plain(t))
	c.Volumes, c.User, c.WorkingDir = []string{"/data"}, "app", "/srv"
	a := launch(t, e, c)

	status := a.tell("cat /proc/self/status")
	for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000",
		"CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want+"\n") {
			t.Errorf("status lacks %q:\n%s", want, status)
		}
	}
	a.expect("1234 1234 1", "ids")
	a.expect("/srv", "cwd")
	a.expect("512 512", "rlimit 7") // RLIMIT_NOFILE
	a.expect("0 0", "rlimit 4")     // RLIMIT_CORE
	if env := a.tell("cat /proc/self/environ"); !strings.Contains(env, "A=b\x00") || strings.Contains(env, "inittrace") {
		t.Errorf("environment of init: %q", env)
	}
	for _, p := range []string{"/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/.dockerinit"} {
		a.expect(fmt.Sprint(int(syscall.ENOENT)), "access %s", p)
	}
	for _, p := range []string{"/tmp", "/data", "/dev/shm"} {
		a.expect(fmt.Sprintf("%d %d", 16<<20, syscall.ENOSPC), "put %s/file 17", p)
		a.expect("0 0", "put %s/file 0", p)
	}
	a.expect(fmt.Sprintf("0 %d", syscall.EROFS), "put %s/file 1", SocketTarget)
	limit := a.tell("cat /sys/fs/cgroup/pids/pids.max") + a.tell("cat /sys/fs/cgroup/pids.max")
	if !strings.Contains(limit, fmt.Sprint(c.PIDs+InitPIDs)) {
		t.Errorf("pids limit seen inside: %q", limit)
	}
}

func TestEngine_Create_Root(t *testing.T) {
	e := open(t)
	image := plain(t)
	readOnly := fmt.Sprintf("0 %d", syscall.EROFS)
	t.Run("read-only", func(t *testing.T) {
		a := launch(t, e, spec(t, image))
		a.expect("0 0 1", "ids")
		a.expect(readOnly, "put /file 1")
		a.expect(readOnly, "put /srv/file 1")
		a.expect(readOnly, "put /proc/sys/kernel/hostname 0")
		a.expect(fmt.Sprint(int(syscall.EPERM)), "chown") // root without capabilities
	})
	t.Run("writable", func(t *testing.T) {
		c := spec(t, image)
		c.WritableRoot, c.Capabilities, c.Volumes = true, []string{"CHOWN"}, []string{"/data"}
		a := launch(t, e, c)
		a.expect(fmt.Sprintf("%d 0", 1<<20), "put /file 1")
		a.expect("0", "chown")
		a.expect(readOnly, "put %s/file 1", SocketTarget)
		a.expect(fmt.Sprintf("%d %d", 16<<20, syscall.ENOSPC), "put /data/file 17") // bounded although the root is not
		if status := a.tell("cat /proc/self/status"); !strings.Contains(status, "CapEff:\t0000000000000001\n") {
			t.Errorf("granted CHOWN, but:\n%s", status)
		}
	})
}

func TestContainer_Validate(t *testing.T) {
	good := Container{Image: "i", InitPath: "/init", SocketDir: "/run", MemoryBytes: 1, CPUs: 1, PIDs: 1, TmpfsBytes: 1,
		Labels: map[string]string{LabelWorker: "w", LabelLockFile: "/l"}}
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Container){
		"no image":         func(c *Container) { c.Image = "" },
		"relative init":    func(c *Container) { c.InitPath = "init" },
		"relative socket":  func(c *Container) { c.SocketDir = "run" },
		"no memory":        func(c *Container) { c.MemoryBytes = 0 },
		"no cpus":          func(c *Container) { c.CPUs = 0 },
		"no pids":          func(c *Container) { c.PIDs = -1 },
		"no tmpfs":         func(c *Container) { c.TmpfsBytes = 0 },
		"no owner":         func(c *Container) { c.Labels = nil },
		"too many volumes": func(c *Container) { c.Volumes = slices.Repeat([]string{"/data"}, maxVolumes+1) },
		"root volume":      func(c *Container) { c.Volumes = []string{"/data/.."} },
		"relative volume":  func(c *Container) { c.Volumes = []string{"data"} },
		"volume on init":   func(c *Container) { c.Volumes = []string{"/.faena"} },
		"volume in socket": func(c *Container) { c.Volumes = []string{"/.faena/run/x"} },
		"volume on dev":    func(c *Container) { c.Volumes = []string{"/dev/"} },
		"volume in proc":   func(c *Container) { c.Volumes = []string{"/proc/1"} },
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			spoil(&c)
			if c.validate() == nil {
				t.Error("is accepted")
			}
		})
	}
}

func TestContainer_Tmpfs(t *testing.T) {
	c := Container{TmpfsBytes: 1 << 20, Volumes: []string{"/data", "/data/", "/.faena/run", "/a/../dev/shm"}}
	got := c.tmpfs()
	paths := make([]string, 0, len(got))
	for p, options := range got {
		paths = append(paths, p)
		if !strings.Contains(options, "size=1048576,nr_inodes=4096") {
			t.Errorf("%s is not bounded: %s", p, options)
		}
	}
	slices.Sort(paths)
	if want := []string{"/data", "/dev/shm", "/tmp"}; !slices.Equal(paths, want) {
		t.Errorf("got %v, want %v", paths, want)
	}
}
