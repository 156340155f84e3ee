package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// appliance is a running `faena up`.
type appliance struct {
	t                         *testing.T
	worker                    string // its id
	cmd                       *exec.Cmd
	out, said                 text
	url, operations, registry string
	ended                     chan error // closed after the process's end
}

var greeting = regexp.MustCompile(`Faena is up\. API (\S+), operations http://(\S+), image registry (\S+), data in (\S+)\.`)

// up starts the appliance and waits until it takes calls. When the test ends it is stopped, and must leave no
// container.
func (a *account) up(settings ...string) *appliance {
	a.t.Helper()
	u := a.start(settings...)
	faenatest.EventuallyNil(a.t, time.Minute, "the appliance is up", func() error {
		select {
		case <-u.ended:
			a.t.Fatalf("faena up has ended: %s", u.said.String())
		default:
		}
		if !greeting.MatchString(u.said.String()) {
			return errors.New(u.said.String())
		}
		return nil
	})
	words := greeting.FindStringSubmatch(u.said.String())
	u.url, u.operations, u.registry = words[1], words[2], words[3]
	if words[4] != a.data {
		a.t.Errorf("its data is in %s, want %s", words[4], a.data)
	}
	return u
}

// upCommand is `faena up` on free ports, small and quick to stop, unless the settings say otherwise.
func (a *account) upCommand(ctx context.Context, settings ...string) *exec.Cmd {
	cmd := a.command(ctx, "faena", "up")
	cmd.Env = append(cmd.Env, "FAENA_DATA_DIR="+a.data, "FAENA_LISTEN=127.0.0.1:0", "FAENA_OPERATIONS_LISTEN=127.0.0.1:0",
		"FAENA_REGISTRY_LISTEN=127.0.0.1:0", "FAENA_NATS_MAX_STORE=1GiB", "FAENA_DISK_MIN_FREE=1MiB", "FAENA_DRAIN_AFTER=1s",
		"FAENA_WORKER_DRAIN_WITHIN=5s")
	cmd.Env = append(cmd.Env, settings...) // of two of the same name the last one counts
	if a.weak {
		cmd.Args = append([]string{"setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/usr/bin/setpriv"
	}
	return cmd
}

// start starts the appliance.
func (a *account) start(settings ...string) *appliance {
	a.t.Helper()
	u := &appliance{t: a.t, worker: "test-" + filepath.Base(filepath.Dir(a.data)), ended: make(chan error, 1)}
	faenatest.NoContainersLeft(a.t, u.worker)
	u.cmd = a.upCommand(a.t.Context(), append([]string{"FAENA_WORKER_ID=" + u.worker}, settings...)...)
	u.cmd.Stdout, u.cmd.Stderr = &u.out, &u.said
	u.cmd.Cancel = func() error { return nil } // it is stopped below
	if err := u.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	go func() { u.ended <- u.cmd.Wait(); close(u.ended) }()
	a.t.Cleanup(func() {
		u.stop(30 * time.Second)
		if a.t.Failed() {
			a.t.Logf("faena up has said:\n%s", u.said.String())
		}
	})
	return u
}

// stop asks the appliance to stop, by SIGTERM, and returns its exit code.
func (u *appliance) stop(within time.Duration) int {
	u.t.Helper()
	send(u.t, u.cmd, syscall.SIGTERM)
	select {
	case <-u.ended:
	case <-time.After(within):
		u.t.Errorf("the appliance has not stopped within %v of SIGTERM", within)
		u.kill()
	}
	return u.cmd.ProcessState.ExitCode()
}

// kill ends the appliance by SIGKILL, as a crash would.
func (u *appliance) kill() {
	u.t.Helper()
	send(u.t, u.cmd, syscall.SIGKILL)
	<-u.ended
}

// password is the first admin's.
func (a *account) password() string {
	a.t.Helper()
	p, err := os.ReadFile(filepath.Join(a.data, "admin.password"))
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.TrimSuffix(string(p), "\n")
}

// at are the settings to serve on the same addresses again.
func (u *appliance) at() []string {
	return []string{"FAENA_LISTEN=" + strings.TrimPrefix(u.url, "http://"), "FAENA_OPERATIONS_LISTEN=" + u.operations,
		"FAENA_REGISTRY_LISTEN=" + u.registry}
}
