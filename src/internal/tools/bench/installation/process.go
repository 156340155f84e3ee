package installation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// startWithin is how long a part may take until it is ready, on a busy machine.
	startWithin = time.Minute
	// stopWithin is how long a part may take to stop when it is asked to, before it is killed.
	stopWithin = 30 * time.Second
	// poll is the pause between two looks at something that is waited for.
	poll = 50 * time.Millisecond
)

// Process is a part that runs.
type Process struct {
	Name string

	cmd   *exec.Cmd
	stdin io.Closer // held open, and never written to: some end when it ends
	log   string    // the file of its standard error
	ended chan struct{}
	err   error // what it ended with; valid once ended is closed
}

// launch starts a program with an environment of its own. It is killed with this process, and hears nothing of the
// terminal's Ctrl-C: it is stopped in its turn.
func launch(name, dir string, environ []string, program string, args ...string) (*Process, error) {
	p := &Process{Name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has it by then
	p.cmd = exec.Command(program, args...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = environ, log, log
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// await polls until ready returns nil. It gives up when the process ends.
func (p *Process) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s has ended: %w\n%s", p.Name, p.err, p.words())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.Name, err, p.words())
		case <-time.After(poll):
		}
	}
}

// stop asks the process to end and waits for it. It is an error where it ends with another code than 0, which is also how
// a data race is told, or has to be killed.
func (p *Process) stop() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s had ended by itself: %w\n%s", p.Name, p.err, p.words())
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // one that ends at this moment says so below
	select {
	case <-p.ended:
	case <-time.After(stopWithin):
		p.kill()
		return fmt.Errorf("%s did not stop within %v and was killed\n%s", p.Name, stopWithin, p.words())
	}
	if p.err != nil {
		return fmt.Errorf("%s ended with %w\n%s", p.Name, p.err, p.words())
	}
	return nil
}

func (p *Process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// words are the last of what the process has said.
func (p *Process) words() string {
	const most = 4 << 10
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

// Usage is what a process has used.
type Usage struct {
	CPU      time.Duration // so far, in user mode and in the kernel, its children left out
	Resident int64         // bytes of memory at this moment
	Private  int64         // of that what is no page of a file: the kernel takes those back whenever it wants
}

// Add is the sum of both.
func (u Usage) Add(v Usage) Usage {
	return Usage{u.CPU + v.CPU, u.Resident + v.Resident, u.Private + v.Private}
}

// UsageOf reads what a process has used.
func UsageOf(pid int) (u Usage, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+2:])
	const (
		utime, stime = 11, 12
		hertz        = 100 // USER_HZ on every Linux architecture that Go knows
	)
	for _, i := range []int{utime, stime} {
		var ticks int64
		if _, err := fmt.Sscan(string(fields[i]), &ticks); err != nil {
			return u, err
		}
		u.CPU += time.Duration(ticks) * time.Second / hertz
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for name, to := range map[string]*int64{"VmRSS:": &u.Resident, "RssAnon:": &u.Private} {
		_, rest, found := bytes.Cut(status, []byte("\n"+name))
		if !found {
			return u, fmt.Errorf("/proc/%d/status has no %s", pid, name)
		}
		if _, err := fmt.Sscan(string(rest), to); err != nil {
			return u, err
		}
		*to <<= 10 // it says kB and means KiB
	}
	return u, nil
}

// usageOf is the sum over processes.
func usageOf(processes []*Process) (sum Usage, err error) {
	for _, p := range processes {
		u, err := UsageOf(p.PID())
		if err != nil {
			return sum, fmt.Errorf("%s: %w", p.Name, err)
		}
		sum = sum.Add(u)
	}
	return sum, nil
}

// stopAll stops processes at once.
func stopAll(processes []*Process) error {
	errs := make(chan error, len(processes))
	for _, p := range processes {
		go func() { errs <- p.stop() }()
	}
	var all []error
	for range processes {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}
