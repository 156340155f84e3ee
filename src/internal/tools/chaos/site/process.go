package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// startWithin is how long a part may take until it is ready, on a busy machine.
	startWithin = time.Minute
	// stopWithin is how long a part may take to stop when it is asked to.
	stopWithin = 45 * time.Second
	poll       = 50 * time.Millisecond
)

// Process is a part that can be stopped, killed and started again.
type Process struct {
	Name string
	Log  string // the file of what it says, over all its lives

	program string
	args    []string
	env     []string
	socket  *os.File // that it listens on; nil: it opens its own

	mu      sync.Mutex
	cmd     *exec.Cmd // nil while it does not run
	ended   chan struct{}
	err     error // what it ended with, valid once ended is closed
	started time.Time
}

func newProcess(name, dir string, env []string, program string, args ...string) *Process {
	return &Process{Name: name, Log: filepath.Join(dir, name+".log"), program: program, args: args, env: env}
}

// Start starts it. It is killed with this process, and hears nothing of the terminal's Ctrl-C.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return fmt.Errorf("start %s: it runs", p.Name)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the process has it by then
	cmd := exec.Command(p.program, p.args...)
	cmd.Env = p.env
	if p.socket != nil { // as systemd passes it, from descriptor 3 on
		cmd = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, p.program}, p.args...)...)
		cmd.Env, cmd.ExtraFiles = append(slices.Clip(p.env), "LISTEN_FDS=1", "LISTEN_FDNAMES=api"), []*os.File{p.socket}
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended, p.started = cmd, ended, time.Now()
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err, p.cmd = err, nil
		p.mu.Unlock()
		close(ended)
	}()
	return nil
}

// Started is when its present, or last, life began.
func (p *Process) Started() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}

// Runs reports whether it does.
func (p *Process) Runs() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// Signal sends it a signal; it is an error where it does not run.
func (p *Process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("signal %s: it has ended by itself: %w\n%s", p.Name, p.err, p.words())
	}
	return p.cmd.Process.Signal(s)
}

// Kill is kill -9.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.end()
	return nil
}

func (p *Process) end() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// Stop asks it to end, and waits until it has, which it must with exit code 0.
func (p *Process) Stop() error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.end():
	case <-time.After(stopWithin):
		return errors.Join(fmt.Errorf("%s did not stop within %v and was killed\n%s", p.Name, stopWithin, p.words()), p.Kill())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return fmt.Errorf("%s was told to stop and ended with %w\n%s", p.Name, p.err, p.words())
	}
	return nil
}

// discard ends it however it is.
func (p *Process) discard() {
	if p.Runs() {
		_ = p.Signal(syscall.SIGKILL) // it may end at this moment
		<-p.end()
	}
}

// await polls until ready returns nil, and gives up when the process ends.
func (p *Process) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if !p.Runs() {
			return fmt.Errorf("%s has ended: %w\n%s", p.Name, p.err, p.words())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.Name, err, p.words())
		case <-time.After(poll):
		}
	}
}

// words are the last of what it has said.
func (p *Process) words() string {
	const most = 4 << 10
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

// command runs a program to its end and returns what it prints.
func command(ctx context.Context, env []string, input []byte, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stdin = env, newReader(input)
	out, err := cmd.Output()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, ended.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s %q: %w", filepath.Base(program), args, err)
	}
	return string(out), nil
}
