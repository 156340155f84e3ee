package faenatest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ownNetwork tells a test binary that it is the inner one of OwnNetwork.
const ownNetwork = "FAENATEST_OWN_NETWORK"

// OwnNetwork runs the calling test once more, in a process with a network and mounts of its own, where it returns true: whatever
// the test does to interfaces, packet rules and sysctls of the network is gone with that process, and nobody else has seen it. In
// the process that calls it it returns false when the inner test has passed. It needs root.
func OwnNetwork(t *testing.T) (inside bool) {
	t.Helper()
	if os.Getenv(ownNetwork) != "" {
		moveIn(t)
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v=" + strconv.FormatBool(testing.Verbose())}
	if deadline, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(deadline).String())
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), ownNetwork+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("the test in a network of its own: %v\n%s", err, out)
	case testing.Verbose():
		t.Logf("in a network of its own:\n%s", out)
	}
	return false
}

// moveIn makes the mounts of a process of its own fit its network.
func moveIn(t *testing.T) {
	t.Helper()
	cgroups := filepath.Join(t.TempDir(), "cgroup")
	must := func(what string, err error) {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	must("make a directory", os.Mkdir(cgroups, 0o755))
	must("make the mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must("keep the control groups", unix.Mount("/sys/fs/cgroup", cgroups, "", unix.MS_BIND|unix.MS_REC, ""))
	must("mount /sys", unix.Mount("sysfs", "/sys", "sysfs", 0, ""))
	must("put the control groups back", unix.Mount(cgroups, "/sys/fs/cgroup", "", unix.MS_MOVE, ""))
	IP(t, "link set lo up")
}

// Host is a host of a test: a network namespace, and a thread in it.
type Host struct {
	t    testing.TB
	do   chan func()
	id   int // of the thread, which names the namespace
	gone chan struct{}
}

// NewHost makes a host without any interface but loopback. It is gone when the test ends.
func NewHost(t testing.TB) *Host {
	t.Helper()
	h := &Host{t: t, do: make(chan func()), gone: make(chan struct{})}
	ready := make(chan error)
	go func() {
		defer close(h.gone)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		h.id = unix.Gettid()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range h.do {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { close(h.do); <-h.gone })
	h.IP("link set lo up")
	return h
}

// Do calls f in the host's network: sockets that it makes are there for good.
func (h *Host) Do(f func()) {
	done := make(chan struct{})
	h.do <- func() { defer close(done); f() }
	<-done
}

// IP runs the ip program there, with the words of its arguments.
func (h *Host) IP(args string) {
	h.t.Helper()
	var err error
	h.Do(func() { err = ip(args) })
	if err != nil {
		h.t.Fatal(err)
	}
}

// Join makes a cable from here, where its end is called here, to the host, where it is called eth0, and sets both up.
func (h *Host) Join(here string) {
	h.t.Helper()
	IP(h.t, "link add "+here+" type veth peer name eth0 netns "+strconv.Itoa(h.id))
	IP(h.t, "link set "+here+" up")
	h.IP("link set eth0 up")
}

// IP runs the ip program in the network of this process, with the words of its arguments.
func IP(t testing.TB, args string) {
	t.Helper()
	if err := ip(args); err != nil {
		t.Fatal(err)
	}
}

func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return errors.New("ip " + args + ": " + err.Error() + ": " + strings.TrimSpace(string(out)))
	}
	return nil
}

// Sysctl sets a sysctl of the network of this process, for example net/ipv4/ip_forward.
func Sysctl(t testing.TB, name, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}
