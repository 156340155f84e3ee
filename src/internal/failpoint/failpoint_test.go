package failpoint_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// A program as it is released has no failpoint, and not even its name; the same one for tests has each.
func TestHit_CostsNothing(t *testing.T) {
	for _, program := range []string{"faena-worker", "faena-api"} {
		released, tested := build(t, "./cmd/"+program), build(t, "./cmd/"+program, "-tags=failpoints")
		found := 0
		for _, name := range faenatest.Failpoints(t) {
			if bytes.Contains(released, []byte(name)) {
				t.Errorf("%s as it is released knows %s", program, name)
			}
			if bytes.Contains(tested, []byte(name)) {
				found++
			}
		}
		if bytes.Contains(released, []byte("FAENA_FAILPOINTS")) || found == 0 {
			t.Errorf("%s as it is released looks for FAENA_FAILPOINTS, or the one for tests has no failpoint: %d", program, found)
		}
	}
}

// build returns the bytes of a program.
func build(t *testing.T, pkg string, args ...string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	compile(t, file, pkg, args...)
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func compile(t *testing.T, file, pkg string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"build", "-o", file}, args...), pkg)...)
	cmd.Dir = faenatest.SourceDir(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", pkg, err, out)
	}
}

func TestHit(t *testing.T) {
	program := filepath.Join(t.TempDir(), "subject")
	compile(t, program, "./internal/failpoint/testdata/subject", "-tags=failpoints")
	for name, test := range map[string]func(*testing.T, *subject){
		"nothing is armed": func(t *testing.T, s *subject) { s.says(t, "a 0s") },
		"kill at the second time": func(t *testing.T, s *subject) {
			s.tell(t, "arm test/line=kill@2", "ok")
			s.tell(t, "arm test/other=kill", "ok")
			s.says(t, "a 0s")
			s.dies(t)
		},
		"armed from the start": func(t *testing.T, s *subject) {
			s.restart(t, "test/line=kill@2,test/other=stop")
			s.says(t, "a 0s")
			s.dies(t)
			s.restart(t, "") // over the socket of one that was killed
			s.says(t, "a 0s")
		},
		"delay once": func(t *testing.T, s *subject) {
			s.tell(t, "arm test/line=delay:200ms", "ok")
			began := time.Now()
			if s.says(t, "a 0s"); time.Since(began) < 200*time.Millisecond {
				t.Errorf("it waits for %v", time.Since(began))
			}
			s.tell(t, "arm test/line=delay:1h", "ok")
			s.tell(t, "clear", "ok")
			s.says(t, "b 0s")
		},
		"stop and go on": func(t *testing.T, s *subject) {
			s.tell(t, "arm test/line=stop", "ok")
			s.send(t, "a")
			var status syscall.WaitStatus
			if _, err := syscall.Wait4(s.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
				t.Fatalf("it is not stopped: %v, %v", status, err)
			}
			if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			s.hears(t, "a 0s")
		},
		"clock": func(t *testing.T, s *subject) {
			s.tell(t, "clock -5m", "ok")
			s.says(t, "a -5m0s")
			s.tell(t, "clock 0s", "ok")
			s.says(t, "b 0s")
		},
		"what is wrong": func(t *testing.T, s *subject) {
			for line, answer := range map[string]string{"arm": "no command", "arm x": "is not NAME=ACTION", "arm x=fly": "no action",
				"arm x=kill@0": "not a number of times", "arm x=delay:y": "invalid duration", "clock": "no command", "": "no command"} {
				s.tell(t, line, answer)
			}
			s.says(t, "a 0s")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &subject{program: program, socket: filepath.Join(t.TempDir(), "s")}
			s.restart(t, "")
			test(t, s)
		})
	}
}

// subject is the program of testdata.
type subject struct {
	program, socket string
	cmd             *exec.Cmd
	in              io.Writer
	out             *bufio.Reader
}

func (s *subject) restart(t *testing.T, points string) {
	t.Helper()
	s.cmd = exec.CommandContext(t.Context(), s.program)
	s.cmd.Env = []string{"FAENA_FAILPOINTS=" + s.socket + "," + points}
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd := s.cmd
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s.in, s.out = in, bufio.NewReader(out)
	s.hears(t, "ready ") // the variable is gone
}

func (s *subject) send(t *testing.T, line string) {
	t.Helper()
	if _, err := fmt.Fprintln(s.in, line); err != nil {
		t.Fatal(err)
	}
}

func (s *subject) hears(t *testing.T, want string) {
	t.Helper()
	if got, err := s.out.ReadString('\n'); err != nil || got != want+"\n" {
		t.Fatalf("it says %q, %v; want %q", got, err, want)
	}
}

// says sends the first word of what it answers.
func (s *subject) says(t *testing.T, want string) {
	t.Helper()
	word, _, _ := strings.Cut(want, " ")
	s.send(t, word)
	s.hears(t, want)
}

func (s *subject) dies(t *testing.T) {
	t.Helper()
	s.send(t, "x")
	if got, err := s.out.ReadString('\n'); err != io.EOF {
		t.Fatalf("it goes on and says %q, %v", got, err)
	}
	_ = s.cmd.Wait() // how it ended is looked at
	if status, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", s.cmd.ProcessState)
	}
}

func (s *subject) tell(t *testing.T, line, want string) {
	t.Helper()
	c, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintln(c, line); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), want) {
		t.Errorf("%q is answered %q, %v; want %q", line, answer, err, want)
	}
}
