package wiring_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/dockerengine"
	"faena.dev/faena/internal/faenatest"
)

// TestSecurity_Inside: what a function has and has not, found out by a function that tries, in a container as a worker makes it, for
// both modes of isolation and for root and another user.
func TestSecurity_Inside(t *testing.T) {
	t.Parallel()
	i := install(t)
	program, err := os.ReadFile(faenatest.CProgram(t, filepath.Join("testdata", "inside.c")))
	if err != nil {
		t.Fatal(err)
	}
	images := map[string]string{}
	for _, user := range []string{"", "1234:1234"} {
		images[user] = i.push(t, "inside", faenatest.ImageSpec{Bare: true, User: user, Entrypoint: []string{"/inside"}, Volumes: []string{"/data"},
			Files: []faenatest.File{{Path: "/inside", Data: program}, {Path: "/rootly", Data: program, Mode: 0o4755}, {Path: "/etc/passwd", Data: []byte("root:x:0:0::/:\n"), Mode: 0o666}}})
	}
	c := i.user(t, "prisoner", 20)
	for _, isolation := range []client.Isolation{client.IsolationReuse, client.IsolationFresh} {
		for user, image := range images {
			name := strings.Trim(fmt.Sprintf("%s-%.4s", isolation, user), "-")
			t.Run(fmt.Sprintf("%s as %q", isolation, user), func(t *testing.T) {
				t.Parallel()
				as := func(s *client.Spec) { s.Image, s.Isolation, s.Pids, s.TmpfsBytes = image, isolation, 20, 4<<20 }
				i.deploy(t, c, name, as, "look")
				for range 2 { // the second one comes into a container that was used, or into another
					looksRight(t, must(t, c, name, ""), user)
				}
				i.deploy(t, c, name+"-waits", as, "wait")
				id := async(t, c, name+"-waits", "")
				defer func() {
					if _, err := client.Read[client.Activation](c.CancelActivation(t.Context(), id)); err != nil {
						t.Error(err)
					}
				}()
				running(t, c, id)
				seenFromOutside(t, i, name+"-waits")
			})
		}
	}
}

// refused are what a function tries, and the errors that are right, the first for root: what is absent, read-only, or denied by seccomp
// and the lack of capabilities.
var refused = map[string]string{
	"open /var/run/docker.sock": "ENOENT", "open /run/docker.sock": "ENOENT", "open /run/containerd/containerd.sock": "ENOENT", "open /run/systemd/private": "ENOENT",
	"open /.faena/run/s": "ENOENT", "open /dev/mem": "ENOENT", "open /dev/kmsg": "ENOENT", "open /proc/kcore": "EPERM EACCES ENOENT", // a device over it
	"open /proc/1/environ": "EACCES", "open /proc/1/mem": "EACCES", "open /proc/1/root/etc": "EACCES", "open /proc/sysrq-trigger": "EROFS EACCES ENOENT",
	"open /proc/sys/kernel/core_pattern": "EROFS EACCES", "open /sys/kernel/uevent_helper": "EROFS EACCES ENOENT",
	"open /.faena/init": "EROFS ETXTBSY EACCES", "open /etc/passwd": "EROFS", "open /sys/fs/cgroup/x": "EROFS EACCES", "open /.faena/run/x": "EROFS EACCES", "open /x": "EROFS EACCES",
	"mount": "EPERM", "remount /": "EPERM", "umount init": "EPERM", "chroot": "EPERM", "new user namespace": "EPERM", "new mount namespace": "EPERM",
	"namespace of init": "EPERM EBADF", "trace init": "EPERM", "raw socket": "EPERM", "packet socket": "EPERM", "block device": "EPERM", "chown": "EPERM", "setuid": "EPERM",
	"raise nofile": "EPERM", "bpf": "EPERM", "keyctl": "EPERM", "perf": "EPERM", "reboot": "EPERM", "module": "EPERM", "clock": "EPERM", "hostname": "EPERM", "handle": "EPERM",
}

// looksRight judges a report.
func looksRight(t *testing.T, report, user string) {
	t.Helper()
	got := map[string]string{}
	for line := range strings.Lines(report) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		got[name] = value
	}
	uid := "0"
	if user != "" {
		uid, _, _ = strings.Cut(user, ":")
	}
	want := map[string]string{"CapInh": noCapability, "CapPrm": noCapability, "CapEff": noCapability, "CapBnd": noCapability, "CapAmb": noCapability, "NoNewPrivs": "1", "Seccomp": "2",
		"uid": uid, "euid of a file of root's": uid, "nofile": "16384 16384", "core": "0 0", "pids": fmt.Sprint(20 + dockerengine.InitPIDs), "memory": fmt.Sprint(32 << 20),
		"sockets": "0", "disks": "0"}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
	for what, errors := range refused {
		if !slices.Contains(strings.Fields(errors), got[what]) {
			t.Errorf("%s: %q, want %s", what, got[what], errors)
		}
	}
	mounted(t, got)
	if t.Failed() {
		t.Logf("the report:\n%s", report)
	}
}

const noCapability = "0000000000000000"

// mounted checks that of the host there is init, read-only, and a directory of the container's own: all else is the image, read-only, the
// kernel's, or memory.
func mounted(t *testing.T, report map[string]string) {
	t.Helper()
	fromHost := map[string]bool{"/.faena/init": true, "/.faena/run": true, "/etc/hosts": true, "/etc/hostname": true, "/etc/resolv.conf": true}
	writable := map[string]bool{"/tmp": true, "/dev/shm": true, "/data": true, "/dev": true, "/dev/pts": true, "/dev/mqueue": true,
		"/sys/fs/cgroup": true} // the directory of cgroups of version 1, in which nothing can be made
	for _, name := range slices.Sorted(maps.Keys(report)) {
		point, ok := strings.CutPrefix(name, "mount ")
		if !ok {
			continue
		}
		kind, how, _ := strings.Cut(report[name], " ")
		switch memory := slices.Contains([]string{"tmpfs", "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "overlay"}, kind); {
		case strings.HasPrefix(point, "/etc/"): // the engine's own three, which it writes for each container
			if !fromHost[point] {
				t.Errorf("%s is mounted: %s", point, report[name])
			}
		case point == "/", fromHost[point]:
			if how != "ro" {
				t.Errorf("%s can be written: %s", point, report[name])
			}
		case !memory:
			t.Errorf("%s is of the host: %s", point, report[name])
		case how != "ro" && !writable[point] && !strings.HasPrefix(point, "/proc"):
			t.Errorf("%s can be written: %s", point, report[name])
		}
	}
	for _, point := range []string{"/", "/.faena/init", "/.faena/run", "/tmp", "/data", "/dev/shm"} {
		if report["mount "+point] == "" {
			t.Errorf("%s is not mounted", point)
		}
	}
}

// seenFromOutside asks the engine for the containers of a function.
func seenFromOutside(t *testing.T, i *installation, function string) {
	t.Helper()
	d := faenatest.Engine(t)
	ids := d.Containers(t, "faena.function="+function)
	for _, id := range ids {
		var got struct {
			HostConfig struct {
				Privileged, PublishAllPorts                                bool
				Binds, CapAdd, CapDrop, SecurityOpt, GroupAdd, VolumesFrom []string
				Devices, DeviceRequests                                    []any
				PortBindings, Sysctls                                      map[string]any
				PidMode, IpcMode, UTSMode, UsernsMode, NetworkMode         string
			}
			Mounts []struct {
				Source, Destination string
				RW                  bool
			}
			AppArmorProfile string
		}
		d.Get(t, "/containers/"+id+"/json", &got)
		h := got.HostConfig
		if said := fmt.Sprint(h.Privileged, h.PublishAllPorts, h.Binds, h.CapAdd, h.CapDrop, h.SecurityOpt, h.GroupAdd, h.VolumesFrom, h.Devices, h.DeviceRequests,
			h.PortBindings, h.Sysctls, h.PidMode, h.UTSMode, h.UsernsMode); said != "false false [] [] [ALL] [no-new-privileges] [] [] [] [] map[] map[]" {
			t.Errorf("the engine says of container %s: %q", id, said)
		}
		if h.IpcMode != "private" || h.NetworkMode == "host" || got.AppArmorProfile == "unconfined" {
			t.Errorf("container %s has the namespaces %s and %s, AppArmor %q", id, h.IpcMode, h.NetworkMode, got.AppArmorProfile)
		}
		for _, m := range got.Mounts {
			own := m.Destination == dockerengine.InitTarget && filepath.Base(m.Source) == filepath.Base(faenatest.InitBinary(t)) ||
				m.Destination == dockerengine.SocketTarget && strings.HasPrefix(m.Source, i.dir+"/")
			if m.RW || !own {
				t.Errorf("container %s has %s of the host as %s, writable: %v", id, m.Source, m.Destination, m.RW)
			}
		}
	}
	if len(ids) == 0 {
		t.Error("no container of it is there")
	}
}
