package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"faena.dev/faena/internal/tools/bench/installation"
	"faena.dev/faena/internal/tools/bench/report"
)

// appliance is a `faena up` of the benchmark's own.
type appliance struct {
	bin, dir string
	cmd      *exec.Cmd
	log      bytes.Buffer
	client   *installation.Client
	user     installation.User
}

// startAppliance starts it on a directory of its own and waits until it takes activations.
func startAppliance(ctx context.Context, bin string) (_ *appliance, err error) {
	a := &appliance{bin: bin}
	if a.dir, err = os.MkdirTemp("", "faena-bench"); err != nil {
		return nil, err
	}
	if err := a.up(ctx); err != nil {
		return nil, errors.Join(err, errors.New(a.log.String()), a.stop())
	}
	return a, nil
}

func (a *appliance) up(ctx context.Context) error {
	if err := os.Chmod(a.dir, 0o711); err != nil {
		return err
	}
	a.cmd = exec.CommandContext(ctx, a.bin, "up")
	a.cmd.Env = a.environ()
	a.cmd.Stderr = &a.log
	a.cmd.Cancel = func() error { return a.cmd.Process.Signal(syscall.SIGTERM) }
	a.cmd.WaitDelay = time.Minute
	if err := a.cmd.Start(); err != nil {
		a.cmd = nil
		return err
	}
	return a.awaitReady(ctx)
}

// environ is of the appliance and of the command line: nothing of the caller's settings.
func (a *appliance) environ() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + a.dir, "FAENA_DATA_DIR=" + filepath.Join(a.dir, "d"), "FAENA_LISTEN=127.0.0.1:0",
		"FAENA_OPERATIONS_LISTEN=127.0.0.1:0", "FAENA_REGISTRY_LISTEN=127.0.0.1:0", "FAENA_WORKER_ID=bench", "FAENA_LOG_LEVEL=warn"}
}

func (a *appliance) awaitReady(ctx context.Context) error {
	var last error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if a.client == nil {
			if last = a.readProfile(); last != nil {
				continue
			}
		}
		var ready struct {
			Ready   bool
			Missing []string
		}
		if last = a.client.Get(ctx, a.user, "/readyz", &ready); last == nil && ready.Ready && len(ready.Missing) == 0 {
			return nil
		}
	}
	return fmt.Errorf("the appliance was not ready in time: %w", last)
}

func (a *appliance) readProfile() error {
	text, err := os.ReadFile(filepath.Join(a.dir, ".config", "faena", "default.json"))
	if err != nil {
		return err
	}
	var p struct{ URL, Username, Password string }
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	a.user, a.client = installation.User{Name: p.Username, Password: p.Password}, installation.NewClient([]string{p.URL}, nil)
	return nil
}

// deploy registers the benchmark's image as a function.
func (a *appliance) deploy(ctx context.Context, name string, flags ...string) error {
	cmd := exec.CommandContext(ctx, a.bin, append([]string{"deploy", name, "--from-engine", image}, flags...)...)
	cmd.Env = a.environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("deploy %s: %w: %s", name, err, out)
	}
	return nil
}

func (a *appliance) activate(ctx context.Context, name, parameter string) (time.Duration, error) {
	return a.client.Activate(ctx, a.user, name, parameter)
}

func (a *appliance) load(ctx context.Context, name string, clients, n int) (report.Sample, float64, error) {
	return a.client.Load(ctx, a.user, name, clients, n)
}

func (a *appliance) usage() (installation.Usage, error) {
	return installation.UsageOf(a.cmd.Process.Pid)
}

// stop ends the process and removes its directory.
func (a *appliance) stop() error {
	var err error
	if a.cmd != nil {
		_ = a.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err = a.cmd.Wait(); a.cmd.ProcessState != nil && a.cmd.ProcessState.Success() {
			err = nil // it was told to stop, by ctx
		}
	}
	return errors.Join(err, os.RemoveAll(a.dir))
}
