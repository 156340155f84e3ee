package main

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// limits are the resource limits that init compares: all that Linux has.
const limits = 16

// fingerprint is what a function of the same user could change of init although it cannot trace it: limits, priorities,
// processors and schedulers.
type fingerprint struct {
	rlimits [limits]unix.Rlimit
	threads []threadPrint
}

type threadPrint struct {
	tid, nice, policy int
	cpus              unix.CPUSet
}

func takeFingerprint() (fingerprint, error) {
	var f fingerprint
	for n := range f.rlimits {
		if err := unix.Prlimit(0, n, nil, &f.rlimits[n]); err != nil {
			return f, fmt.Errorf("read limit %d: %w", n, err)
		}
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return f, fmt.Errorf("list threads: %w", err)
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		p, err := printOf(tid)
		if err != nil {
			return f, fmt.Errorf("look at thread %d: %w", tid, err)
		}
		f.threads = append(f.threads, p)
	}
	return f, nil
}

func printOf(tid int) (p threadPrint, err error) {
	p.tid = tid
	if p.nice, err = unix.Getpriority(unix.PRIO_PROCESS, tid); err != nil {
		return p, err
	}
	policy, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(tid), 0, 0)
	if errno != 0 {
		return p, errno
	}
	p.policy = int(policy)
	return p, unix.SchedGetaffinity(tid, &p.cpus)
}

// changed says what is not as it was, or nothing. A thread that has ended cannot have been changed.
func (f *fingerprint) changed() string {
	for n := range f.rlimits {
		var now unix.Rlimit
		if err := unix.Prlimit(0, n, nil, &now); err != nil || now != f.rlimits[n] {
			return fmt.Sprintf("limit %d of init", n)
		}
	}
	for i := range f.threads {
		was := &f.threads[i]
		now, err := printOf(was.tid)
		switch {
		case err == unix.ESRCH: //nolint:errorlint // a system call's own
		case err != nil:
			return "init's threads, which cannot be looked at"
		case now.nice != was.nice:
			return "the priority of init"
		case now.policy != was.policy:
			return "the scheduler of init"
		case now.cpus != was.cpus:
			return "the processors of init"
		}
	}
	return ""
}
