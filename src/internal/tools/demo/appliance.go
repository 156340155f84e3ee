package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Patience with the appliance.
const (
	readyWithin = 60 * time.Second
	stopWithin  = 45 * time.Second
)

// appliance is a running `faena up`.
type appliance struct {
	url            string
	user, password string

	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when the process has ended
	err   error         // how, once ended is closed
}

// startAppliance starts the appliance on free ports of loopback, with all that it writes below dir, and waits until it
// is ready. registries are host:port, separated by commas.
func startAppliance(ctx context.Context, p *progress, program, dir, registries string) (a *appliance, err error) {
	err = p.step("start the appliance: faena up", func(say func(string)) error {
		if a, err = launch(program, dir, registries); err != nil {
			return err
		}
		if err = a.becomeReady(ctx, say); err == nil {
			a.user, a.password, err = readProfile(dir)
		}
		if err == nil {
			return nil
		}
		if a.runs() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanWithin)
			defer cancel()
			err = errors.Join(err, a.stop(ctx))
		}
		return errors.Join(err, a.logTail())
	})
	return a, err
}

func launch(program, dir, registries string) (*appliance, error) {
	program, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	a := &appliance{url: "http://" + ports[0], log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	log, err := os.Create(a.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	a.cmd = exec.Command(program, "up") // ended by stop
	a.cmd.Stdout, a.cmd.Stderr = log, log
	a.cmd.Env = append(foreign(os.Environ()),
		"HOME="+dir, "XDG_CONFIG_HOME="+filepath.Join(dir, "config"), // where it writes the profile of its first user
		"FAENA_DATA_DIR="+filepath.Join(dir, "data"),
		"FAENA_LISTEN="+ports[0], "FAENA_OPERATIONS_LISTEN="+ports[1], "FAENA_REGISTRY_LISTEN="+ports[2],
		"FAENA_DOCKER_NETWORK="+network,
		"FAENA_REGISTRY_PRIVATE_HOSTS="+registries, "FAENA_REGISTRY_INSECURE="+registries)
	// Ctrl-C is for the demo alone, which then stops the appliance in its turn.
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		a.err = a.cmd.Wait()
		close(a.ended)
	}()
	return a, nil
}

// foreign are the variables of an environment that are not Faena's.
func foreign(environ []string) (kept []string) {
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "FAENA_") && name != "HOME" && !strings.HasPrefix(name, "XDG_") && name != "STATE_DIRECTORY" {
			kept = append(kept, v)
		}
	}
	return kept
}

// freePorts are addresses on loopback that nobody listens on.
func freePorts(n int) (addrs []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at the end: no port is given twice
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// becomeReady waits for /readyz.
func (a *appliance) becomeReady(ctx context.Context, say func(string)) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	state := "no answer yet"
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("it did not become ready (%s): %w", state, ctx.Err())
		case <-a.ended:
			return fmt.Errorf("it ended: %w", cmp.Or(a.err, errors.New("without an error")))
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/readyz", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			continue // it does not listen yet
		}
		_ = res.Body.Close() // the status says it all
		if res.StatusCode == http.StatusOK {
			say("it answers at " + a.url)
			return nil
		}
		state = res.Status
		say(state)
	}
}

func (a *appliance) runs() bool {
	select {
	case <-a.ended:
		return false
	default:
		return true
	}
}

// stop asks the appliance to end and waits for it. An end that is not clean is an error.
func (a *appliance) stop(ctx context.Context) error {
	if !a.runs() {
		return fmt.Errorf("it had ended by itself: %w", cmp.Or(a.err, errors.New("without an error")))
	}
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	select {
	case <-a.ended:
		if a.err != nil {
			return fmt.Errorf("it did not end cleanly: %w", a.err)
		}
		return nil
	case <-ctx.Done():
		err := a.cmd.Process.Kill()
		<-a.ended
		return errors.Join(fmt.Errorf("it did not end within %s and was killed", stopWithin), err)
	}
}

// logTail is the end of the appliance's log, as an error to be shown with another.
func (a *appliance) logTail() error {
	text, err := os.ReadFile(a.log)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if lines[0] == "" {
		return errors.New("the appliance logged nothing")
	}
	return fmt.Errorf("the end of the appliance's log:\n%s", strings.Join(lines[max(0, len(lines)-25):], "\n"))
}
