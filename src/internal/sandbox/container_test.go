package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/sandbox"
)

// patience is the deadline of everything that these tests wait for.
const patience = 20 * time.Second

// box is a real container with faena-init as its first process, locked down as a worker's are.
type box struct {
	*sandbox.Conn
	t  testing.TB
	id string
}

// newBox starts a container of an image that has the fixture. It is removed when the test ends.
func newBox(t testing.TB, ref, user string, capabilities ...string) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "faena") // t.TempDir's paths are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := sandbox.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := faenatest.Engine(t)
	var made struct{ Id string } //nolint:revive // the engine's spelling
	d.Post(t, "/containers/create", containerOf(ref, user, faenatest.InitBinary(t), dir, capabilities), &made)
	t.Cleanup(func() { d.Delete(t, "/containers/"+made.Id+"?force=1&v=1") })
	d.Post(t, "/containers/"+made.Id+"/start", nil, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, sandbox.SocketName)); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	return &box{conn, t, made.Id}
}

type object = map[string]any

func containerOf(ref, user, init, dir string, capabilities []string) object {
	bind := func(source, target string) object {
		return object{"Type": "bind", "Source": source, "Target": target, "ReadOnly": true}
	}
	const tmpfs = "rw,nosuid,nodev,mode=1777,size=67108864,nr_inodes=65536,"
	return object{
		"Image": ref, "User": user, "Entrypoint": []string{"/.faena/init"}, "Cmd": []string{}, "WorkingDir": "/",
		"HostConfig": object{
			"CapDrop": []string{"ALL"}, "CapAdd": capabilities, "SecurityOpt": []string{"no-new-privileges"}, "IpcMode": "private", "NetworkMode": "none",
			"ReadonlyRootfs": true, "Tmpfs": object{"/tmp": tmpfs + "exec", "/dev/shm": tmpfs + "noexec", "/my data": tmpfs + "exec"},
			"Mounts":    []object{bind(init, "/.faena/init"), bind(dir, "/.faena/run")},
			"LogConfig": object{"Type": "none"}, "Memory": 256 << 20, "MemorySwap": 256 << 20, "PidsLimit": 96,
			"Ulimits": []object{{"Name": "nofile", "Soft": 1024, "Hard": 1024}, {"Name": "core", "Soft": 0, "Hard": 0}},
		},
	}
}

// output is all that one process has written, and how it ended.
type output struct {
	sandbox.Exit
	stdout, stderr []byte
}

// fixture runs a mode of the fixture with a deadline.
func (b *box) fixture(stdin []byte, args ...string) output {
	b.t.Helper()
	return b.run(sandbox.Start{Argv: append([]string{faenatest.FixturePath}, args...)}, stdin)
}

func (b *box) run(start sandbox.Start, stdin []byte) (o output) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	exit, err := b.Run(ctx, start, stdin, func(stream int, p []byte) error {
		if stream == 1 {
			o.stdout = append(o.stdout, p...)
		} else {
			o.stderr = append(o.stderr, p...)
		}
		return nil
	})
	if err != nil {
		b.t.Fatalf("run %q: %v", start.Argv, err)
	}
	o.Exit = exit
	return o
}

// says runs a mode that must end with 0 and nothing else to be told, and write want.
func (b *box) says(want string, args ...string) {
	b.t.Helper()
	if o := b.fixture(nil, args...); o.Code != 0 || o.Signal != 0 || o.StartError != "" || o.Tampered != "" || string(o.stdout) != want {
		b.t.Errorf("%v wrote %.200q and ended with %+v, want %q", args, o.stdout, o.Exit, want)
	}
}

// ends checks that the container comes to its end by itself.
func (b *box) ends() {
	b.t.Helper()
	d := faenatest.Engine(b.t)
	faenatest.Eventually(b.t, patience, "the container has ended", func() bool {
		var c struct{ State struct{ Running bool } }
		d.Get(b.t, "/containers/"+b.id+"/json", &c)
		return !c.State.Running
	})
}

// cpu is the processor time that the container's init has taken for itself.
func (b *box) cpu() time.Duration {
	b.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.pid()))
	if err != nil {
		b.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(after) // from the third field on
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err1, err2); err != nil {
		b.t.Fatal(err)
	}
	return time.Duration(user+system) * time.Second / 100 // USER_HZ, which is 100 on every Linux that Go runs on
}

// pid is that of the container's init on this host.
func (b *box) pid() int {
	b.t.Helper()
	var c struct{ State struct{ Pid int } }
	faenatest.Engine(b.t).Get(b.t, "/containers/"+b.id+"/json", &c)
	return c.State.Pid
}

// pattern is what the fixture's mode size writes.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i/251)
	}
	return p
}

func equal(t testing.TB, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came, want %d, or they differ", len(got), len(want))
	}
}
