// Package hosts gives tests real hosts on one machine: containers of a minimal Debian in which systemd is process 1. What dpkg, systemd and
// Ansible do there they do for real; a Docker Engine can be installed there, too. testing/hosts.sh makes their image. They reach each other, and
// nothing else: their network has no way out.
package hosts

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

const (
	// bootFor bounds the start of a host, on a machine that is busy.
	bootFor = 2 * time.Minute
	// runFor bounds one command.
	runFor = 5 * time.Minute
)

// Network is one that hosts are in. It has no way out.
type Network struct{ name string }

// NewNetwork makes a network that is removed when the test ends.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	n := &Network{"faenatest-" + strings.ToLower(rand.Text()[:10])}
	docker(t, "network", "create", "--internal", n.name)
	t.Cleanup(func() { _, _ = try(context.WithoutCancel(t.Context()), nil, "docker", "network", "rm", n.name) }) // a host that is still there keeps it
	return n
}

// Gateway is this machine's address in the network: what a test serves there, its hosts reach.
func (n *Network) Gateway(t testing.TB) string {
	t.Helper()
	return strings.TrimSpace(docker(t, "network", "inspect", "--format", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", n.name))
}

// Host is a running host. It is safe for concurrent use.
type Host struct {
	Name string // what it calls itself
	id   string
}

// Start starts a host that is removed when the test ends, and returns when systemd has come up. Where the test has failed its journal is in the
// log of the test.
func (n *Network) Start(t testing.TB, image, name string) *Host {
	t.Helper()
	args := []string{"run", "--detach", "--hostname", name, "--network", n.name, "--network-alias", name,
		"--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", "--cgroupns=private", "--stop-signal", "SIGRTMIN+3",
		"--tmpfs", "/run", "--tmpfs", "/tmp:exec", "--volume", "/var/lib/docker"}
	for _, c := range capabilities(t) {
		args = append(args, "--cap-add", c)
	}
	h := &Host{name, strings.TrimSpace(docker(t, append(args, image)...))}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if t.Failed() {
			out, err := h.Try(ctx, "journalctl --no-pager --output short-precise | grep -vE ' (dockerd|containerd|kernel)[][0-9]*:' | tail -n 1000")
			t.Logf("the journal of %s: %v\n%s", name, err, out)
		}
		if _, err := try(ctx, nil, "docker", "rm", "--force", "--volumes", h.id); err != nil {
			t.Error(err)
		}
	})
	h.comesUp(t)
	return h
}

func (h *Host) comesUp(t testing.TB) {
	t.Helper()
	faenatest.EventuallyNil(t, bootFor, h.Name+" comes up", func() error {
		out, err := h.Try(t.Context(), "systemctl is-system-running")
		if state := strings.TrimSpace(out); state == "running" || state == "degraded" { // some unit has failed: the test knows whether that matters
			return nil
		}
		return fmt.Errorf("it is %q: %w", out, err)
	})
}

// Reboot stops the host as a shutdown does and starts it again: what is in /run and /tmp is gone.
func (h *Host) Reboot(t testing.TB) {
	t.Helper()
	docker(t, "restart", "--time", "120", h.id)
	h.comesUp(t)
}

// PowerCut kills all of the host at once and starts it again.
func (h *Host) PowerCut(t testing.TB) {
	t.Helper()
	docker(t, "kill", "--signal", "KILL", h.id)
	docker(t, "start", h.id)
	h.comesUp(t)
}

// Run runs a command of bash as root and returns what it writes to standard output. It fails the test where the command fails.
func (h *Host) Run(t testing.TB, command string) string {
	t.Helper()
	out, err := h.Try(t.Context(), command)
	if err != nil {
		t.Fatalf("on %s: %v", h.Name, err)
	}
	return out
}

// Try is Run for a command that may fail. The error has the command, and what it has written to standard error.
func (h *Host) Try(ctx context.Context, command string) (string, error) {
	return h.TryWith(ctx, nil, command)
}

// TryWith is Try with a standard input.
func (h *Host) TryWith(ctx context.Context, in io.Reader, command string) (string, error) {
	return try(ctx, in, "docker", "exec", "--interactive", h.id, "bash", "-euo", "pipefail", "-c", command)
}

// Put writes a file, with the mode that chmod understands.
func (h *Host) Put(t testing.TB, path, mode, content string) {
	t.Helper()
	command := fmt.Sprintf("install -D -m %s /dev/stdin %s", mode, path)
	if _, err := h.TryWith(t.Context(), strings.NewReader(content), command); err != nil {
		t.Fatalf("on %s: %v", h.Name, err)
	}
}

// Copy copies a file or a directory of this machine into a directory of the host.
func (h *Host) Copy(t testing.TB, from, to string) {
	t.Helper()
	h.Run(t, "mkdir -p "+to)
	pack := exec.CommandContext(t.Context(), "tar", "-C", filepath.Dir(from), "-c", filepath.Base(from))
	stdout, err := pack.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := pack.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = h.TryWith(t.Context(), stdout, "tar -C "+to+" --no-same-owner -x")
	if err = errors.Join(err, pack.Wait()); err != nil {
		t.Fatalf("copy %s to %s: %v", from, h.Name, err)
	}
}

// Address is the host's address in its network.
func (h *Host) Address(t testing.TB) string {
	t.Helper()
	return strings.TrimSpace(docker(t, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", h.id))
}

// capabilities are all that this machine has and the engine knows: what a host of its own would have.
func capabilities(t testing.TB) (names []string) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "CapBnd:")
	line, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for n, name := range strings.Fields("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE " +
		"NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE " +
		"SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ") {
		if set>>n&1 == 1 {
			names = append(names, name)
		}
	}
	return names
}

func docker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := try(t.Context(), nil, "docker", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func try(ctx context.Context, in io.Reader, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runFor)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}
