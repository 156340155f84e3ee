package installation

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// control is the socket of a daemon's failpoints, "" where the programs have none.
func (i *Installation) control(daemon string) string {
	if !i.o.Failpoints {
		return ""
	}
	return filepath.Join(i.Dir, "failpoints-"+daemon)
}

// Tell tells a running daemon about its failpoints, in the words of package failpoint: "arm worker/ran=kill@2".
func (d *Daemon) Tell(t testing.TB, format string, args ...any) {
	t.Helper()
	if err := d.tell(fmt.Sprintf(format, args...)); err != nil {
		t.Fatalf("tell %s %q: %v", d.Name, fmt.Sprintf(format, args...), err)
	}
}

func (d *Daemon) tell(line string) error {
	const limit = 10 * time.Second
	c, err := net.DialTimeout("unix", d.control, limit)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c, line); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if answer = strings.TrimSpace(answer); err == nil && answer != "ok" {
		err = errors.New(answer)
	}
	return err
}

// Died waits for the end of a daemon that kills itself, at a failpoint. It fails the test where the daemon goes on for that long, and
// where it ends otherwise.
func (d *Daemon) Died(t testing.TB, within time.Duration) {
	t.Helper()
	select {
	case err := <-d.ended:
		d.cmd = nil
		ended, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			t.Fatalf("%s was to kill itself and ended with %v", d.Name, err)
		}
		if s, ok := ended.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
			t.Fatalf("%s was to kill itself and ended with %v", d.Name, err)
		}
	case <-time.After(within):
		t.Fatalf("%s did not come to its failpoint within %v", d.Name, within)
	}
}

// FirstDied is Died of whichever of several daemons comes to its failpoint first.
func FirstDied(t testing.TB, within time.Duration, daemons ...*Daemon) *Daemon {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(within); time.Now().Before(until); <-tick.C {
		for _, d := range daemons {
			if d.cmd != nil && len(d.ended) > 0 {
				d.Died(t, time.Second)
				return d
			}
		}
	}
	t.Fatalf("none of %d daemons came to its failpoint within %v", len(daemons), within)
	return nil
}

// Running reports whether it was started and, as far as this process was told, neither stopped nor killed.
func (d *Daemon) Running() bool { return d.cmd != nil }

// Signal sends a signal to a daemon that runs.
func (d *Daemon) Signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %v to %s: %v", s, d.Name, err)
	}
}

// Log is all that it has said, over all of its lives.
func (d *Daemon) Log() string {
	d.log.mu.Lock()
	defer d.log.mu.Unlock()
	return d.log.text.String()
}
