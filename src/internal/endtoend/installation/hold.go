package installation

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
)

// holdFor is the timeout of a function that holds: longer than any case.
const holdFor = 3 * time.Minute

// DeployHold deploys a function of that name whose activations run until they are released, and write their parameter then. No two
// users have one of the same name. In the process's arguments it is told from those of other installations on this host.
func (c Caller) DeployHold(t testing.TB, name string, change ...func(*client.Spec)) {
	t.Helper()
	c.Deploy(t, name, func(s *client.Spec) {
		s.TimeoutMs = holdFor.Milliseconds()
		for _, fn := range change {
			fn(s)
		}
	}, "hold", c.I.held(name))
}

func (i *Installation) held(name string) string { return filepath.Base(i.Dir) + "-" + name }

// Release releases what runs of such a function now: those activations with one of the parameters, or all where there is none. It
// signals the processes, which are this host's too.
func (i *Installation) Release(t testing.TB, name string, parameters ...string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	if len(parameters) == 0 {
		parameters = []string{""}
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for _, p := range parameters {
			want := FunctionPath + "\x00hold\x00" + i.held(name) + "\x00" + p
			if p != "" {
				want += "\x00"
			}
			if !bytes.HasPrefix(line, []byte(want)) {
				continue
			}
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err == nil {
				err = syscall.Kill(pid, syscall.SIGURG)
			}
			if err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Errorf("release %s: %v", name, err)
			}
		}
	}
}

// Finish releases activations until they have succeeded, in the eyes of an API.
func (c Caller) Finish(t testing.TB, name string, ids ...string) {
	t.Helper()
	Within(t, 40*time.Second, "what was held has succeeded", func() error {
		c.I.Release(t, name)
		for _, id := range ids {
			a, err := c.Record(t, id)
			if err != nil {
				return err
			}
			if Terminal(a.State) && a.State != client.StateSucceeded {
				t.Fatalf("%s has %s: %s %s", id, a.State, a.Reason, a.Message)
			}
			if !Terminal(a.State) {
				return fmt.Errorf("%s is %s", id, a.State)
			}
		}
		return nil
	})
}
