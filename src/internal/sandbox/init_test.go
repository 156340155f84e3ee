package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/sandbox"
)

// TestInit runs processes of every kind in one warm container, as root and as nobody: none may leave anything for the
// next, except where the container ends.
func TestInit(t *testing.T) {
	ref := faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{Files: []faenatest.File{
		{Path: "/bin/f", Link: faenatest.FixturePath},
		{Path: "/etc/passwd", Data: []byte("root:x:0:0::/root:/bin/sh\nbad line\nnobody:x:65534:65534::/home/nobody:\n")},
		{Path: "/etc/text", Data: []byte("no program"), Mode: 0o644},
		{Path: "/etc/garbage", Data: []byte("\x00\x01\x02")},
	}}))
	for _, user := range []string{"0:0", "65534:65534"} {
		t.Run("as "+user, func(t *testing.T) {
			b := newBox(t, ref, user)
			for _, part := range []struct {
				name string
				test func(t *testing.T, b *box)
			}{
				{"Bytes", testBytes}, {"Ends", testEnds}, {"StartErrors", testStartErrors}, {"Surroundings", testSurroundings},
				{"Leftovers", testLeftovers}, {"Streams", testStreams}, {"Secrets", testSecrets}, {"Small", testSmall},
				{"Cheap", testCheap},
			} {
				t.Run(part.name, func(t *testing.T) { part.test(t, &box{b.Conn, t, b.id}) })
			}
			b.says("still here", "arg", "still here")
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			b.ends()
		})
	}
}

func testBytes(t *testing.T, b *box) {
	for _, n := range []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 16 << 20} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			want := pattern(n)
			equal(t, b.fixture(nil, "size", strconv.Itoa(n)).stdout, want)
			equal(t, b.fixture(want, "cat").stdout, want)
		})
	}
	for _, n := range []int{sandbox.MaxPiece - 1, sandbox.MaxPiece, sandbox.MaxPiece + 1} {
		equal(t, b.fixture(pattern(n), "cat").stdout, pattern(n))
	}
	if o := b.fixture(nil, "err", "1000000"); len(o.stderr) != 1000000 || string(o.stdout) != "done" {
		t.Errorf("%d bytes on stderr, %q on stdout", len(o.stderr), o.stdout)
	}
	t.Run("nobody reads", func(t *testing.T) {
		for _, n := range []int{1, 100 << 10, 8 << 20} {
			if o := b.fixture(pattern(n), "deaf"); string(o.stdout) != "deaf" || o.Code != 0 {
				t.Errorf("%d bytes: %q, %+v", n, o.stdout, o.Exit)
			}
			if o := b.fixture(pattern(n), "exit", "3"); string(o.stdout) != "out" || o.Code != 3 {
				t.Errorf("%d bytes: %q, %+v", n, o.stdout, o.Exit)
			}
		}
	})
}

func testEnds(t *testing.T, b *box) {
	for _, code := range []int{0, 1, 127, 255} {
		o := b.fixture(nil, "exit", strconv.Itoa(code))
		if o.Code != code || o.Signal != 0 || string(o.stdout) != "out" || string(o.stderr) != "err" || o.RunUS <= 0 {
			t.Errorf("exit %d: %+v, %q, %q", code, o.Exit, o.stdout, o.stderr)
		}
	}
	for _, signal := range []int{6, 9, 11, 15} {
		if o := b.fixture(nil, "raise", strconv.Itoa(signal)); o.Signal != signal || o.Code != 0 {
			t.Errorf("signal %d: %+v", signal, o.Exit)
		}
	}
}

func testStartErrors(t *testing.T, b *box) {
	env := []string{"PATH=/nowhere:/bin:/etc"}
	for _, c := range []struct{ name, dir, want string }{
		{"/absent", "", "ENOENT"}, {"absent", "", "ENOENT"}, {"", "", "ENOENT"},
		{"/etc/text", "", "EACCES"}, {"text", "", "EACCES"}, {"/etc", "", "EACCES"},
		{"/etc/garbage", "", "ENOEXEC"}, {"garbage", "", "ENOEXEC"},
		{"/fixture", "/absent", "ENOENT"}, {"/fixture/x", "", "ENOTDIR"},
	} {
		if o := b.run(sandbox.Start{Argv: []string{c.name}, Env: env, Dir: c.dir}, []byte("input")); o.StartError != c.want {
			t.Errorf("%q in %q: %+v, want %s", c.name, c.dir, o.Exit, c.want)
		}
	}
	if o := b.run(sandbox.Start{Argv: []string{"/fixture", strings.Repeat("x", 200<<10)}}, nil); o.StartError != "E2BIG" {
		t.Errorf("an argument that is too long: %+v", o.Exit)
	}
	if o := b.run(sandbox.Start{Argv: []string{"/fixture", strings.Repeat("x", sandbox.MaxStart)}}, nil); o.StartError != "E2BIG" {
		t.Errorf("an argument that is far too long: %+v", o.Exit)
	}
	if o := b.run(sandbox.Start{Argv: []string{"f", "arg", "found"}, Env: env}, nil); string(o.stdout) != "found" {
		t.Errorf("by PATH: %+v", o)
	}
}

func testSurroundings(t *testing.T, b *box) {
	o := b.run(sandbox.Start{Argv: []string{"/fixture", "env"}, Env: []string{"A=1", "HOME=/mine", "B=x\ny"}}, nil)
	if got := string(o.stdout); got != "A=1\nHOME=/mine\nB=x\ny\n" {
		t.Errorf("environment %q", got)
	}
	home := "/root"
	if strings.Contains(t.Name(), "65534") {
		home = "/home/nobody"
	}
	b.says("HOME="+home+"\n", "env")
	b.says("/", "cwd")
	if o := b.run(sandbox.Start{Argv: []string{"/fixture", "cwd"}, Dir: "/etc"}, nil); string(o.stdout) != "/etc" {
		t.Errorf("directory %q", o.stdout)
	}
	b.says("done", "signals") // what init does with its own is not inherited
	b.says("0 1 2 ", "fds")
	if o := b.fixture([]byte("x"), "fds"); string(o.stdout) != "0 1 2 " {
		t.Errorf("descriptors with input: %q", o.stdout)
	}
	b.says("Read-only file system", "write", "/etc/new")
}

func testLeftovers(t *testing.T, b *box) {
	began := time.Now()
	if o := b.fixture(nil, "daemon"); string(o.stdout) != "main has ended" || o.Leftover != 1 {
		t.Errorf("a child holds the output: %q, %+v", o.stdout, o.Exit)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a child held the end back for %v", took)
	}
	if o := b.fixture(nil, "orphans", "20"); string(o.stdout) != "left" || o.Leftover != 20 {
		t.Errorf("orphans: %q, %+v", o.stdout, o.Exit)
	}
	for range 3 {
		o := b.fixture(nil, "bomb")
		made, err := strconv.Atoi(string(o.stdout))
		if err != nil || made < 40 || o.Leftover != made || o.Code != 0 {
			t.Errorf("a bomb of %q: %+v", o.stdout, o.Exit)
		}
		b.says("next", "arg", "next")
	}
	for range 2 {
		b.says("littered", "litter")
		b.says("tmp 0 shm 0 ipc 0", "found")
		b.says("written", "make", "/my data/x") // a volume
		if got := string(b.fixture(nil, "make", "/dev/x").stdout); got != "written" && got != "Permission denied" {
			t.Errorf("a file in /dev: %s", got)
		}
	}
	b.says("File exists", "make", "/dev/null") // what belongs there stays
}

func testStreams(t *testing.T, b *box) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var first, last time.Time
	var all string
	_, err := b.Run(ctx, sandbox.Start{Argv: []string{"/fixture", "tick", "4", "100"}}, nil, func(stream int, p []byte) error {
		if last = time.Now(); first.IsZero() {
			first = last
		}
		all += fmt.Sprint(stream) + string(p)
		return nil
	})
	if want := "2tick 0\n2tick 1\n2tick 2\n2tick 3\n"; err != nil || all != want {
		t.Errorf("%v, %q", err, all)
	}
	if last.Sub(first) < 150*time.Millisecond {
		t.Errorf("the first line came only %v before the last", last.Sub(first))
	}
}

// testSecrets: what init holds is not for a function, even of the same user.
func testSecrets(t *testing.T, b *box) {
	for _, path := range []string{"/proc/1/mem", "/proc/1/fd/0"} {
		o := b.fixture(nil, "write", path)
		if got := string(o.stdout); got != "Permission denied" && !strings.HasPrefix(got, "No such") {
			t.Errorf("opening %s says %q", path, got)
		}
	}
}

// testSmall: the memory of init counts as the function's. Its program's pages are those of every other init too.
func testSmall(t *testing.T, b *box) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil || kb > 4<<10 {
				t.Errorf("init has %s of memory", strings.TrimSpace(v))
			}
			return
		}
	}
	t.Errorf("no memory in %q", status)
}

// testCheap: init's own processor time is taken from the function. It is a sixth of a millisecond a run; a runtime that
// collects garbage without end takes ten times that.
func testCheap(t *testing.T, b *box) {
	const runs = 500
	before := b.cpu()
	for range runs {
		b.says("x", "arg", "x")
	}
	if each := (b.cpu() - before) / runs; each > time.Millisecond {
		t.Errorf("init took %v of processor time a run", each)
	}
}

func TestInit_Kill(t *testing.T) {
	ref := faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{}))
	for _, args := range [][]string{{"/fixture", "stubborn"}, {"/fixture", "yes"}, {"/fixture", "tick", "100000", "10"}} {
		t.Run(args[1], func(t *testing.T) {
			b := newBox(t, ref, "65534:65534")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var cancelled time.Time
			_, err := b.Run(ctx, sandbox.Start{Argv: args}, nil, func(int, []byte) error {
				if cancelled.IsZero() {
					cancelled = time.Now()
					cancel()
				}
				return nil
			})
			if took := time.Since(cancelled); !errors.Is(err, context.Canceled) || took > 2*time.Second {
				t.Errorf("%v after %v", err, took)
			}
			b.ends()
			if _, err := b.Run(t.Context(), sandbox.Start{Argv: args}, nil, func(int, []byte) error { return nil }); err == nil {
				t.Error("a dead container ran something")
			}
		})
	}
	t.Run("by what takes the output", func(t *testing.T) {
		b := newBox(t, ref, "0:0")
		enough := errors.New("enough")
		_, err := b.Run(t.Context(), sandbox.Start{Argv: []string{"/fixture", "yes"}}, nil, func(int, []byte) error { return enough })
		if !errors.Is(err, enough) {
			t.Errorf("%v", err)
		}
		b.ends()
	})
	t.Run("init killed from outside", func(t *testing.T) {
		b := newBox(t, ref, "0:0")
		_, err := b.Run(t.Context(), sandbox.Start{Argv: []string{"/fixture", "stubborn"}}, nil, func(int, []byte) error {
			return syscall.Kill(b.pid(), syscall.SIGKILL)
		})
		if !errors.Is(err, io.EOF) {
			t.Errorf("the run ended with %v", err)
		}
		<-b.Dead()
	})
}

func TestInit_Tampered(t *testing.T) {
	ref := faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{}))
	for _, c := range []struct {
		name, user string
		args       []string
		done       string   // what it writes where it could do it; otherwise nothing is changed
		caps       []string // that the container has
	}{
		{"a limit of init, by root", "0:0", []string{"limit"}, "0", nil},
		{"a limit of init, by its user", "65534:65534", []string{"limit"}, "0", nil},
		{"a device, by root", "0:0", []string{"replace", "/dev/null"}, "replaced", nil},
		{"a device, by another", "65534:65534", []string{"replace", "/dev/null"}, "replaced", nil},
		{"a process that it may not kill", "0:0", []string{"stranger"}, "left", []string{"SETUID"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t, ref, c.user, c.caps...)
			o := b.fixture(nil, c.args...)
			if done := string(o.stdout) == c.done; done != (o.Tampered != "") || o.Code != 0 {
				t.Errorf("it says %q and ended with %+v", o.stdout, o.Exit)
			}
			if o.Tampered != "" {
				b.ends()
			} else {
				b.says("next", "arg", "next")
			}
		})
	}
}

// A function cannot hold back its own end, nor leave what is closed to the next one.
func TestInit_Closed(t *testing.T) {
	ref := faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{}))
	for _, user := range []string{"0:0", "65534:65534"} {
		t.Run("as "+user, func(t *testing.T) {
			b := newBox(t, ref, user)
			for range 2 {
				if o := b.fixture(nil, "traced"); string(o.stdout) != "traced" || o.Code != 0 || o.Leftover != 1 || o.Tampered != "" {
					t.Errorf("%q, %+v", o.stdout, o.Exit)
				}
				if o := b.fixture(nil, "close-tmp"); string(o.stdout) != "closed" && user == "0:0" || o.Tampered != "" {
					t.Errorf("%q, %+v", o.stdout, o.Exit)
				}
				b.says("tmp 0 shm 0 ipc 0", "found")
				b.says("written", "make", "/tmp/new")
			}
		})
	}
}
