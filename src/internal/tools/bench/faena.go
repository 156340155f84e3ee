package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// appliance is a `faena up` of the benchmark's own.
type appliance struct {
	bin, dir string
	cmd      *exec.Cmd
	log      bytes.Buffer
	url      string
	user     string
	password string
	registry string
	settings []string // besides those that every benchmark has
	held     bool     // its worker takes nothing
	http     *http.Client
}

// startAppliance starts it on a directory of its own and waits until it takes activations.
func startAppliance(ctx context.Context, bin string, settings ...string) (_ *appliance, err error) {
	a := &appliance{bin: bin, settings: settings, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	if a.dir, err = os.MkdirTemp("", "faena-bench"); err != nil {
		return nil, err
	}
	if err := os.Chmod(a.dir, 0o711); err != nil {
		return nil, err
	}
	if err := a.up(ctx); err != nil {
		return nil, errors.Join(err, a.stop())
	}
	return a, nil
}

// up starts the process and waits until it takes activations.
func (a *appliance) up(ctx context.Context) error {
	a.log.Reset()
	a.cmd = exec.CommandContext(ctx, a.bin, "up")
	a.cmd.Env = append(a.environ(), a.settings...)
	a.cmd.Stderr = &a.log
	a.cmd.Cancel = func() error { return a.cmd.Process.Signal(syscall.SIGTERM) }
	a.cmd.WaitDelay = time.Minute
	if err := a.cmd.Start(); err != nil {
		return err
	}
	if err := a.awaitReady(ctx); err != nil {
		return errors.Join(err, errors.New(a.log.String()))
	}
	return nil
}

// down ends the process; what it keeps stays.
func (a *appliance) down() error {
	if a.cmd == nil || a.cmd.Process == nil {
		return nil
	}
	_ = a.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	err := a.cmd.Wait()
	if a.cmd.ProcessState != nil && a.cmd.ProcessState.Success() {
		err = nil
	}
	a.cmd = nil
	return err
}

// environ is of the appliance and of the command line: nothing of the caller's settings.
func (a *appliance) environ() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + a.dir, "FAENA_DATA_DIR=" + filepath.Join(a.dir, "d"), "FAENA_LISTEN=127.0.0.1:0",
		"FAENA_OPERATIONS_LISTEN=127.0.0.1:0", "FAENA_REGISTRY_LISTEN=127.0.0.1:0", "FAENA_WORKER_ID=bench", "FAENA_LOG_LEVEL=warn"}
}

func (a *appliance) awaitReady(ctx context.Context) error {
	var last error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if last = a.readProfile(); last != nil {
			continue
		}
		var ready struct {
			Ready   bool
			Missing []string
		}
		if last = a.get(ctx, "/readyz", &ready); last == nil && ready.Ready && (a.held || len(ready.Missing) == 0) {
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
	var p struct{ URL, Username, Password, Registry string }
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	a.url, a.user, a.password, a.registry = p.URL, p.Username, p.Password, p.Registry
	return nil
}

func (a *appliance) get(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path, nil)
	if err != nil {
		return err
	}
	req.SetBasicAuth(a.user, a.password)
	res, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	return json.NewDecoder(res.Body).Decode(out)
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

// activate runs a function once through HTTP; anything but a 200 with the parameter as its body is an error.
func (a *appliance) activate(ctx context.Context, name, parameter string) (time.Duration, error) {
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+"/v1/functions/"+name+"/activations", bytes.NewReader([]byte(parameter)))
	if err != nil {
		return 0, err
	}
	req.SetBasicAuth(a.user, a.password)
	res, err := a.http.Do(req)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close() // read to its end
	took := time.Since(began)
	if err != nil || res.StatusCode != http.StatusOK || string(body) != parameter {
		return 0, fmt.Errorf("activation of %s answered %s %q: %w", name, res.Status, body, err)
	}
	return took, nil
}

// load runs n activations with several clients at once, and returns how long each took and how many a second there were.
func (a *appliance) load(ctx context.Context, name string, clients, n int) (sample, float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	times := make([]sample, clients)
	var wg sync.WaitGroup
	began := time.Now()
	for c := range clients {
		wg.Go(func() {
			for i := range n / clients {
				took, err := a.activate(ctx, name, fmt.Sprintf("%d.%d", c, i))
				if err != nil {
					cancel(err)
					return
				}
				times[c] = append(times[c], took)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	var all sample
	for _, t := range times {
		all = append(all, t...)
	}
	return all, float64(len(all)) / took.Seconds(), context.Cause(ctx)
}

func (a *appliance) usage() (usage, error) { return processUsage(a.cmd.Process.Pid) }

// stop ends the appliance and removes its directory.
func (a *appliance) stop() error { return errors.Join(a.down(), os.RemoveAll(a.dir)) }
