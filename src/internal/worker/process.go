package worker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/sandbox"
)

const (
	streamStdout = 1
	streamStderr = 2
)

// startOf is the command of the activation's process. Its environment is the image's and the spec's, and besides:
//
//	FAENA_ACTIVATION_ID, FAENA_FUNCTION, FAENA_REVISION, FAENA_ATTEMPT
//	FAENA_DEADLINE   when the timeout strikes, RFC 3339 with milliseconds, UTC
//	TRACEPARENT      W3C Trace Context of the request, and FAENA_TRACE_ID, its trace id, where there is one
//	HOSTNAME         the container's, where neither image nor spec has another
//
// and HOME, which init adds as the engine sets it, where neither image nor spec do.
func (w *Worker) startOf(a *activation, c *container, deadline time.Time) sandbox.Start {
	base := a.rev.Env()
	env := make([]string, 0, len(base)+8)
	tp, host := a.record.Traceparent, false
	for _, kv := range base { // a name that came twice would have the first value in some programs, the last in others
		if strings.HasPrefix(kv, "FAENA_") || tp != "" && strings.HasPrefix(kv, "TRACEPARENT=") {
			continue
		}
		host = host || strings.HasPrefix(kv, "HOSTNAME=")
		env = append(env, kv)
	}
	if !host {
		env = append(env, "HOSTNAME="+c.id[:min(12, len(c.id))])
	}
	env = append(env,
		"FAENA_ACTIVATION_ID="+a.id,
		"FAENA_FUNCTION="+a.rev.Function,
		"FAENA_REVISION="+strconv.Itoa(a.rev.Number),
		"FAENA_ATTEMPT="+strconv.Itoa(a.attempt),
		"FAENA_DEADLINE="+deadline.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	if tp != "" {
		env = append(env, "TRACEPARENT="+tp)
		if parts := strings.Split(tp, "-"); len(parts) >= 4 {
			env = append(env, "FAENA_TRACE_ID="+parts[1])
		}
	}
	return sandbox.Start{Argv: a.rev.Argv(string(a.parameter)), Env: env, Dir: a.rev.Config.WorkingDir}
}

// stdinOf is what the process reads on its standard input.
func stdinOf(a *activation) []byte {
	if a.rev.Spec.Input == faena.InputArg {
		return nil
	}
	return a.parameter
}

// sink takes what the process writes: stdout up to its limit, of stderr the tail. One goroutine calls write.
type sink struct {
	w        *Worker
	a        *activation
	limit    int64
	result   []byte
	tooLarge bool
}

// write returns an error, which ends the run, when the result is over its limit.
func (s *sink) write(stream int, p []byte) error {
	if stream == streamStderr {
		offset, live := s.a.log.write(p, time.Now())
		if live {
			if err := s.w.o.Bus.PublishLog(s.a.group, s.a.user, s.a.id, offset, p); err != nil {
				s.w.logOf(s.a).Debug("a piece of a log was not published", "error", err)
			}
		}
		return nil
	}
	if room := s.limit - int64(len(s.result)); int64(len(p)) > room {
		s.result = append(s.result, p[:room]...)
		s.tooLarge = true
		return errTooLarge
	}
	s.result = append(s.result, p...)
	return nil
}

// verdictOf judges a process that ended by itself.
func (w *Worker) verdictOf(a *activation, out *outcome, met metLimits) {
	exit := &out.exit
	switch {
	case exit.StartError != "":
		out.exited = false
		out.reason, out.message = startFailure(a.rev.Argv(""), exit.StartError)
	case exit.Code == 0 && exit.Signal == 0:
		if met.ooms > 0 {
			out.remarks = append(out.remarks, fmt.Sprintf("%d of its processes were killed because the memory limit was met.", met.ooms))
		}
	case met.ooms > 0:
		out.reason, out.message = faena.ReasonOOMKilled, oomMessage(a)
	case exit.Signal != 0:
		out.reason = faena.ReasonKilledBySignal
		out.message = fmt.Sprintf("The function was killed by signal %d (%s).", exit.Signal, syscall.Signal(exit.Signal))
	default:
		out.reason = faena.ReasonExitNonzero
		out.message = fmt.Sprintf("The function ended with exit code %d.", exit.Code)
	}
	if exit.Leftover > 0 {
		out.remarks = append(out.remarks, fmt.Sprintf("%d processes that it left behind were killed.", exit.Leftover))
	}
}

// startFailure says why a program could not be executed. The kernel answers ENOENT also for a missing interpreter.
func startFailure(argv []string, errno string) (faena.Reason, string) {
	program := argv[0]
	switch errno {
	case "ENOENT", "ENOTDIR":
		return faena.ReasonNoCommand, fmt.Sprintf("The image has no program %q, or not the interpreter that it needs (%s).", program, errno)
	case "EACCES", "EPERM":
		return faena.ReasonExecFormat, fmt.Sprintf("The program %q may not be executed by the image's user (%s).", program, errno)
	case "ENOEXEC", "ELIBBAD", "EINVAL":
		return faena.ReasonExecFormat, fmt.Sprintf("The program %q is not in a format that this machine executes: a script needs a #! line, a binary this architecture (%s).", program, errno)
	case "E2BIG":
		return faena.ReasonStartFailed, "The arguments and the environment together are more than Linux lets a program start with (E2BIG)."
	default:
		return faena.ReasonStartFailed, fmt.Sprintf("The program %q could not be started (%s).", program, errno)
	}
}

func oomMessage(a *activation) string {
	return fmt.Sprintf("The function needed more than its %d MiB of memory and was killed.", a.rev.Spec.MemoryBytes>>20)
}

// metLimits is what the kernel counted during one run.
type metLimits struct {
	ooms, forks uint64
	peak        int64
}

// account reads what the kernel has counted since the last run, and begins a new peak. Counters that cannot be read
// any more (the container is gone) count as unchanged: nothing is guessed.
func (c *container) account() metLimits {
	var met metLimits
	if n, err := c.cgroup.OOMKills(); err == nil && n > c.ooms {
		met.ooms, c.ooms = n-c.ooms, n
	}
	if n, err := c.cgroup.PIDsExceeded(); err == nil && n > c.forks {
		met.forks, c.forks = n-c.forks, n
	}
	if n, err := c.cgroup.PeakMemory(); err == nil {
		met.peak = n
	}
	// Without a new peak the next run reports this one's as well, which is no reason to retire the container.
	_ = c.cgroup.ResetPeak()
	return met
}

// readSoon reads the record again for an activation whose own context has ended.
func (w *Worker) readSoon(ctx context.Context, a *activation) (*faena.Record, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return w.read(ctx, a)
}
