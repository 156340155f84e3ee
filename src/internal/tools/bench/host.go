package main

import (
	"bytes"
	"fmt"
	"syscall"
	"time"
)

// forkExec runs the program once the bare way: a pipe, fork, exec, read to the end, wait.
func forkExec(bin, arg string) (time.Duration, error) {
	start := time.Now()
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(bin, []string{bin, arg}, &syscall.ProcAttr{Files: []uintptr{0, uintptr(p[1]), 2}})
	syscall.Close(p[1])
	if err != nil {
		syscall.Close(p[0])
		return 0, err
	}
	defer syscall.Close(p[0])
	var buf [4096]byte
	n := 0
	for {
		m, err := syscall.Read(p[0], buf[n:])
		if err == syscall.EINTR {
			continue
		}
		if m <= 0 {
			break
		}
		n += m
	}
	var ws syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &ws, 0, nil); err != syscall.EINTR {
			break
		}
	}
	took := time.Since(start)
	if !ws.Exited() || ws.ExitStatus() != 0 || !bytes.Equal(buf[:n], []byte(arg)) {
		return 0, fmt.Errorf("the program answered %q, status %v", buf[:n], ws)
	}
	return took, nil
}
