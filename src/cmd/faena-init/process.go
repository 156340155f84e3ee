package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/sandbox"
)

const (
	// short is how long init at first waits for nothing but the end: most processes are over by then, what they wrote
	// fits into the pipes, and worker and init wake up once.
	short = 2 * time.Millisecond
	// gather is how long what was written is held back, so that it goes together with what comes next.
	gather = 300 * time.Microsecond
	// reapEvery is how often children that others left to init are reaped while a process runs.
	reapEvery = time.Second
	// killWithin is how long what was killed may take to be gone, looked at every killPause.
	killWithin = time.Second
	killPause  = 100 * time.Microsecond
	// oomFunction makes the kernel choose the function, not init, when memory is short.
	oomFunction = "500"
	oomInit     = "0"
)

// process is one process and its pipes.
type process struct {
	i              *initProcess
	pid, pidfd     int
	stdin          int    // -1 when closed
	stdout, stderr int    // -1 when at their end
	pending        []byte // input that the pipe had no room for
	wantInput      bool   // the worker has more
	began          time.Time
	copied         int64 // bytes of output
	status         syscall.WaitStatus
	ended          bool
}

// runOne runs a process to its end, its output sent as it comes, and reports how it ended. What it left behind is
// killed. An error means that the connection is broken.
func (i *initProcess) runOne(start *sandbox.Start, hasStdin bool) error {
	p := &process{i: i, stdin: -1, stdout: -1, stderr: -1, wantInput: hasStdin}
	exit := sandbox.Exit{StartError: p.fork(start)}
	if exit.StartError == "" {
		if err := p.follow(); err != nil {
			return err
		}
		exit.RunUS = time.Since(p.began).Microseconds()
		if p.status.Signaled() {
			exit.Signal = int(p.status.Signal())
		} else {
			exit.Code = p.status.ExitStatus()
		}
		var left error
		if exit.Leftover, left = killAll(); left == nil {
			left = i.tidy()
		}
		if err := p.drain(); err != nil {
			return err
		}
		if exit.Tampered = i.self.changed(); exit.Tampered == "" && left != nil {
			exit.Tampered = left.Error()
		}
	}
	p.close()
	i.out = sandbox.AppendExit(i.out, &exit)
	if err := i.flush(); err != nil {
		return err
	}
	if exit.Tampered != "" {
		return errors.New(exit.Tampered) // nothing runs here any more
	}
	for p.wantInput { // what nobody reads any more
		kind, _, err := i.frame(sandbox.MaxPiece)
		if err != nil {
			return err
		}
		if kind != sandbox.FrameStdin && kind != sandbox.FrameEOF {
			return fmt.Errorf("the worker sent a frame %q as input", kind)
		}
		p.wantInput = kind == sandbox.FrameStdin
	}
	return nil
}

// fork starts the process and returns why it could not be, an errno's name, or nothing.
func (p *process) fork(start *sandbox.Start) string {
	program, err := lookUp(start)
	if err != nil {
		return errnoName(err)
	}
	var in, out, errs [2]int
	ours := []*[2]int{&out, &errs}
	stdin := p.i.devNull
	if p.wantInput {
		ours = append(ours, &in)
	}
	for n, pipe := range ours {
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			for _, made := range ours[:n] {
				closeAll(made[0], made[1])
			}
			return errnoName(err)
		}
	}
	p.stdout, p.stderr = out[0], errs[0]
	theirs := []int{out[1], errs[1]}
	if p.wantInput {
		stdin, p.stdin = in[0], in[1]
		theirs = append(theirs, in[0])
	}
	for _, fd := range []int{p.stdin, p.stdout, p.stderr} {
		if fd >= 0 {
			_ = unix.SetNonblock(fd, true) // of a pipe that was just made
		}
	}
	env := start.Env
	if !hasHome(env) {
		env = append(env, "HOME="+p.i.home)
	}
	dir := start.Dir
	if dir == "" {
		dir = "/"
	}
	p.i.setOOM(oomFunction)
	p.began = time.Now()
	p.pidfd = -1
	p.pid, err = syscall.ForkExec(program, start.Argv, &syscall.ProcAttr{Dir: dir, Env: env,
		Files: []uintptr{uintptr(stdin), uintptr(out[1]), uintptr(errs[1])}, Sys: &syscall.SysProcAttr{PidFD: &p.pidfd, Setsid: true}})
	p.i.setOOM(oomInit)
	closeAll(theirs...)
	if err != nil {
		return errnoName(err)
	}
	return ""
}

func (i *initProcess) setOOM(score string) {
	// It fails only where the kernel refuses to lower what it has been given, and then nothing was raised.
	_, _ = unix.Pwrite(i.oom, []byte(score), 0)
}

func hasHome(env []string) bool {
	for _, kv := range env {
		if strings.HasPrefix(kv, "HOME=") {
			return true
		}
	}
	return false
}

// lookUp finds the program as execvp does, with the PATH of the process's own environment.
func lookUp(start *sandbox.Start) (string, error) {
	name := start.Argv[0]
	if name == "" {
		return "", syscall.ENOENT
	}
	if strings.Contains(name, "/") {
		return name, nil
	}
	search := ""
	for _, kv := range start.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	found := error(syscall.ENOENT)
	for dir := range strings.SplitSeq(search, ":") {
		if !path.IsAbs(dir) {
			dir = path.Join(start.Dir, dir)
		}
		candidate := path.Join(dir, name)
		info, err := os.Stat(candidate)
		if err != nil || info.IsDir() {
			continue
		}
		if info.Mode().Perm()&0o111 != 0 {
			return candidate, nil
		}
		found = syscall.EACCES
	}
	return "", found
}

func errnoName(err error) string {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		if name := unix.ErrnoName(e); name != "" {
			return name
		}
	}
	return "EINVAL"
}

// follow feeds the process and sends on what it writes until it has ended.
func (p *process) follow() error {
	defer closeAll(p.pidfd)
	if err := p.feed(); err != nil {
		return err
	}
	if !p.wantInput && len(p.pending) == 0 {
		if err := p.wait(false, short); err != nil {
			return err
		}
	}
	for !p.ended {
		timeout := reapEvery
		if len(p.i.out) > 0 {
			timeout = gather
		}
		if err := p.wait(true, timeout); err != nil {
			return err
		}
	}
	return nil
}

// wait waits until something happens, or timeout, and deals with it. Without pipes only the end of the process, and of
// the worker, is something.
func (p *process) wait(pipes bool, timeout time.Duration) error {
	var set [5]unix.PollFd
	poll := append(set[:0], unix.PollFd{Fd: int32(p.pidfd), Events: unix.POLLIN}, unix.PollFd{Fd: int32(p.i.sock), Events: unix.POLLRDHUP})
	if pipes {
		poll = append(poll, unix.PollFd{Fd: int32(p.stdout), Events: unix.POLLIN}, unix.PollFd{Fd: int32(p.stderr), Events: unix.POLLIN})
		switch {
		case len(p.pending) > 0:
			poll = append(poll, unix.PollFd{Fd: int32(p.stdin), Events: unix.POLLOUT})
		case p.wantInput:
			poll[1].Events |= unix.POLLIN
		}
	}
	ts := unix.NsecToTimespec(int64(timeout))
	n, err := ignoringEINTR(func() (int, error) { return unix.Ppoll(poll, &ts, nil) })
	if err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	if poll[1].Revents&(unix.POLLHUP|unix.POLLRDHUP|unix.POLLERR) != 0 {
		return io.ErrUnexpectedEOF // the worker is gone
	}
	if poll[0].Revents != 0 {
		return p.reap()
	}
	if n == 0 {
		if len(p.i.out) > 0 {
			return p.i.flush()
		}
		if pipes {
			return p.reapOthers()
		}
		return nil
	}
	if !pipes {
		return nil
	}
	if err := errors.Join(p.copyOut(&p.stdout, sandbox.FrameStdout), p.copyOut(&p.stderr, sandbox.FrameStderr)); err != nil {
		return err
	}
	if poll[1].Revents&unix.POLLIN != 0 {
		if err := p.i.receive(); err != nil {
			return err
		}
	}
	return p.feed()
}

// reap collects the process, whose end the pidfd has told. It never waits for what a function can hold back: a process
// that is traced is not its parent's to collect as long as the tracer lives.
func (p *process) reap() error {
	for deadline := time.Now().Add(killWithin); ; {
		pid, err := syscall.Wait4(p.pid, &p.status, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR: //nolint:errorlint // a system call's own
			continue
		case err != nil:
			return fmt.Errorf("wait for the process: %w", err)
		case pid == p.pid:
			p.ended = true
			return nil
		case time.Now().After(deadline):
			return errors.New("the process has ended, but something holds it")
		}
		_ = unix.Kill(-1, unix.SIGKILL) // the tracer too
		time.Sleep(killPause)
	}
}

// reapOthers collects what orphans have become init's children, which would fill the function's limit of processes. The
// process itself may be among what has ended.
func (p *process) reapOthers() error {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err != nil || pid <= 0 {
			return nil // nothing, or interrupted: there is another time
		}
		if pid == p.pid {
			p.status, p.ended = status, true
			return nil
		}
	}
}

// feed writes input into the process's pipe as far as there is room, and reads on in what the worker has sent.
func (p *process) feed() error {
	for {
		for len(p.pending) > 0 {
			n, err := ignoringEINTR(func() (int, error) { return unix.Write(p.stdin, p.pending) })
			if err == unix.EAGAIN { //nolint:errorlint // a system call's own
				return nil
			}
			if err != nil { // it reads no more
				p.closeStdin()
				break
			}
			p.pending = p.pending[n:]
		}
		if !p.wantInput {
			p.closeStdin()
			return nil
		}
		kind, payload, ok, err := p.i.buffered(sandbox.MaxPiece)
		if err != nil || !ok {
			return err
		}
		switch kind {
		case sandbox.FrameEOF:
			p.wantInput = false
		case sandbox.FrameStdin:
			if p.stdin >= 0 {
				p.pending = payload
			}
		default:
			return fmt.Errorf("the worker sent a frame %q as input", kind)
		}
	}
}

func (p *process) closeStdin() {
	closeAll(p.stdin)
	p.stdin, p.pending = -1, nil
}

// copyOut reads a pipe once and appends what was read to the frames that are sent next.
func (p *process) copyOut(fd *int, kind byte) error {
	if *fd < 0 {
		return nil
	}
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(*fd, p.i.read) })
	switch {
	case err == unix.EAGAIN: //nolint:errorlint // a system call's own
		return nil
	case err != nil || n == 0:
		closeAll(*fd)
		*fd = -1
		return nil
	}
	if len(p.i.out)+sandbox.HeaderBytes+n > cap(p.i.out) {
		if err := p.i.flush(); err != nil {
			return err
		}
	}
	p.copied += int64(n)
	p.i.out = append(sandbox.AppendHeader(p.i.out, kind, n), p.i.read[:n]...)
	if n == len(p.i.read) {
		return p.i.flush()
	}
	return nil
}

// drain reads the pipes to their end. All who could write are dead.
func (p *process) drain() error {
	for p.stdout >= 0 || p.stderr >= 0 {
		out, errs, had := p.stdout, p.stderr, p.copied
		if err := errors.Join(p.copyOut(&p.stdout, sandbox.FrameStdout), p.copyOut(&p.stderr, sandbox.FrameStderr)); err != nil {
			return err
		}
		if p.stdout == out && p.stderr == errs && p.copied == had {
			return nil // a writer that is not ours to kill holds it open: it is left
		}
	}
	return nil
}

func (p *process) close() { closeAll(p.stdin, p.stdout, p.stderr) }

// flush sends the frames that were gathered.
func (i *initProcess) flush() error {
	err := writeAll(i.sock, i.out)
	i.out = i.out[:0]
	if err != nil {
		return fmt.Errorf("write to the worker: %w", err)
	}
	return nil
}

// killAll kills every other process of the container, collects them, and returns how many it had to kill. An error means
// that one is left which cannot be killed: it runs as somebody else.
func killAll() (n int, err error) {
	// Each round may race with a fork: what was forked by one that was already dying is killed in the next.
	for deadline := time.Now().Add(killWithin); ; {
		_ = unix.Kill(-1, unix.SIGKILL) // that there is nobody the next call says
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR: //nolint:errorlint // a system call's own
		case err != nil:
			return n, nil
		case pid == 0 && time.Now().After(deadline):
			return n, errors.New("a process that cannot be killed is left")
		case pid == 0:
			time.Sleep(killPause) // they are dying
		case status.Signaled() && status.Signal() == syscall.SIGKILL:
			n++
		}
	}
}

func closeAll(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}
