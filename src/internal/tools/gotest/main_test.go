package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// module makes a Go module with the given files and makes it the current directory.
func module(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.test\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

// engine answers like a Docker Engine that is well.
func engine(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "e"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("OK")) }),
		ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return "unix://" + l.Addr().String()
}

var files = map[string]string{
	"good/good_test.go": `package good
import "testing"
func TestA(t *testing.T) { t.Log("nobody needs this") }
func TestB(t *testing.T) { t.Run("one", func(t *testing.T) {}); t.Run("two", func(t *testing.T) {}) }`,
	"plain/plain.go": `package plain`,
	"bad/bad_test.go": `package bad
import "testing"
func TestFine(t *testing.T) { t.Log("nobody needs this") }
func TestWrong(t *testing.T) { t.Run("sum", func(t *testing.T) { t.Error("two and two are five") }) }`,
	"skips/skips_test.go": `package skips
import "testing"
func TestLater(t *testing.T) { t.Skip("no time") }`,
	"broken/broken_test.go": `package broken
import "testing"
func TestX(t *testing.T) { undefined() }`,
	"panics/panics_test.go": `package panics
import "testing"
func TestBoom(t *testing.T) { panic("out of cheese") }`,
	"exits/exits_test.go": `package exits
import ("os"; "testing")
func TestX(t *testing.T) { os.Exit(3) }`,
	"none/none_test.go": `package none`,
	"hangs/hangs_test.go": `package hangs
import "testing"
func TestForever(t *testing.T) { select {} }`,
}

func TestRun(t *testing.T) {
	host := engine(t)
	module(t, files)
	for _, c := range []struct {
		name, args string
		passes     bool
		last       string
		says       []string
		silent     []string
	}{
		{"all pass", "./good ./plain", true, "4 passed, 0 failed, 0 skipped",
			[]string{"ok   example.test/good: 4 tests", "-    example.test/plain: no test files"}, []string{"nobody needs this"}},
		{"one fails", "./good ./bad", false, "5 passed, 2 failed, 0 skipped",
			[]string{"--- FAIL example.test/bad TestWrong/sum", "two and two are five", "FAIL example.test/bad"}, []string{"nobody needs this"}},
		{"one is skipped", "./good ./skips", false, "4 passed, 0 failed, 1 skipped",
			[]string{"--- SKIP example.test/skips TestLater", "no time", "FAIL tests were skipped"}, nil},
		{"one does not compile", "./good ./broken", false, "4 passed, 1 failed, 0 skipped", []string{"undefined: undefined", "FAIL example.test/broken"}, nil},
		{"one panics", "./panics", false, "0 passed, 1 failed, 0 skipped", []string{"out of cheese"}, nil},
		{"one ends the process", "./exits", false, "0 passed, 1 failed, 0 skipped", []string{"FAIL example.test/exits"}, nil},
		{"one does not end", "-timeout 1s ./hangs", false, "0 passed, 1 failed, 0 skipped", []string{"panic: test timed out after 1s", "TestForever"}, nil},
		{"everything takes too long", "-within 4s ./hangs", false, "", []string{"FAIL the tests did not end in time"}, nil},
		{"no tests", "./plain ./none", false, "0 passed, 0 failed, 0 skipped", []string{"FAIL there are no tests"}, nil},
		{"no packages", "./good/...x", false, "0 passed, 0 failed, 0 skipped", []string{"FAIL there are no packages to test"}, nil},
		{"a package that does not exist", "./nowhere", false, "0 passed, 1 failed, 0 skipped", []string{"FAIL ./nowhere"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, stderr strings.Builder
			err := run(t.Context(), strings.Fields(c.args), host, &out, &stderr)
			if (err == nil) != c.passes {
				t.Errorf("the run ends with %v", err)
			}
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			if last := lines[len(lines)-1]; last != c.last && c.last != "" {
				t.Errorf("the last line is %q, want %q", last, c.last)
			}
			for _, text := range c.says {
				if !strings.Contains(out.String(), text) {
					t.Errorf("it does not say %q", text)
				}
			}
			for _, text := range c.silent {
				if strings.Contains(out.String(), text) {
					t.Errorf("it says %q", text)
				}
			}
			if t.Failed() {
				t.Logf("stdout:\n%s\nstderr:\n%s", &out, &stderr)
			}
		})
	}
}

func TestRun_WithoutAnEngine(t *testing.T) {
	for _, host := range []string{"unix:///nonexistent/docker.sock", "nowhere"} {
		var out, stderr strings.Builder
		err := run(t.Context(), []string{"./..."}, host, &out, &stderr)
		if err == nil || !strings.Contains(out.String(), "FAIL no Docker Engine answers") ||
			!strings.HasSuffix(out.String(), "\n0 passed, 0 failed, 0 skipped\n") {
			t.Errorf("with the engine at %s it ends with %v and says\n%s", host, err, &out)
		}
	}
}

func TestRun_Interrupted(t *testing.T) {
	host := engine(t)
	module(t, map[string]string{"hangs/hangs_test.go": files["hangs/hangs_test.go"]})
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(3*time.Second, cancel).Stop()
	var out, stderr strings.Builder
	if err := run(ctx, []string{"./..."}, host, &out, &stderr); err == nil || !strings.Contains(out.String(), "FAIL interrupted") {
		t.Errorf("it ends with %v and says\n%s", err, &out)
	}
}

func TestTail_KeepsTheEnd(t *testing.T) {
	var kept tail
	for range 100 {
		kept.write(strings.Repeat("x", maxOutput/10))
	}
	kept.write("the end")
	if n := len(kept.text); n > 3*maxOutput || !strings.HasSuffix(string(kept.text), "the end") {
		t.Errorf("%d bytes are kept", n)
	}
}
