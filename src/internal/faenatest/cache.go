package faenatest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// CacheDir is where built things outlive a test run. It may be removed at any time.
func CacheDir(t testing.TB) string {
	t.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir() // no home, as in some build environments
	}
	dir := filepath.Join(base, "faena-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("make the cache of tests: %v", err)
	}
	return dir
}

var built sync.Map // paths that this process has made sure of

// cached returns the path of name in the cache, and calls build with a path to write to where it is not there yet. It
// is safe among goroutines and processes. name changes with whatever the content depends on.
func cached(t testing.TB, name string, build func(to string) error) string {
	t.Helper()
	path := filepath.Join(CacheDir(t), name)
	unlock := lock(t, path+".lock")
	defer unlock()
	if _, ok := built.Load(path); ok {
		return path
	}
	if _, err := os.Stat(path); err != nil {
		to := path + ".new"
		if err := build(to); err != nil {
			t.Fatalf("build %s: %v", name, err)
		}
		if err := os.Rename(to, path); err != nil {
			t.Fatalf("build %s: %v", name, err)
		}
	}
	built.Store(path, true)
	return path
}

// lock holds an advisory lock on a file until the returned function is called.
func lock(t testing.TB, path string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatalf("lock: %v", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatalf("lock %s: %v", path, err)
	}
	return func() { _ = f.Close() } // closing unlocks
}

// CProgram compiles a C source file into a static program and returns its path. The result is cached by content.
func CProgram(t testing.TB, source string) string {
	t.Helper()
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatalf("read a C program: %v", err)
	}
	sum := sha256.Sum256(append(text, cFlags...))
	name := fmt.Sprintf("%s-%s", trimExt(source), hex.EncodeToString(sum[:8]))
	return cached(t, name, func(to string) error {
		out, err := exec.CommandContext(t.Context(), "gcc", append(strings.Fields(cFlags), "-o", to, source)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("gcc (install it with testing/setup.sh): %w: %s", err, out)
		}
		return nil
	})
}

const cFlags = "-O2 -Wall -Werror -static -s -pthread"

func trimExt(path string) string {
	base := filepath.Base(path)
	return base[:len(base)-len(filepath.Ext(base))]
}

// SourceDir is the root of the Go module.
func SourceDir(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("the test does not run below the module's root")
		}
		dir = parent
	}
}

// Fixture is the path of the static program with one mode for each thing a function can do, good or bad; see the
// source for its modes.
func Fixture(t testing.TB) string {
	t.Helper()
	source := filepath.Join(SourceDir(t), "internal", "faenatest", "testdata", "fixture.c")
	return CProgram(t, source)
}

// InitBinary builds cmd/faena-init as the packages do, and returns its path.
func InitBinary(t testing.TB) string {
	t.Helper()
	dir := CacheDir(t)
	unlock := lock(t, filepath.Join(dir, "faena-init.lock"))
	defer unlock()
	// The go command links anew only where something has changed. What is run is a copy under the content's name, so
	// that a later build does not write to a program that is in use.
	latest := filepath.Join(dir, "faena-init.latest")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", latest, "./cmd/faena-init")
	cmd.Dir = SourceDir(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build faena-init: %v: %s", err, out)
	}
	program, err := os.ReadFile(latest)
	if err != nil {
		t.Fatalf("build faena-init: %v", err)
	}
	sum := sha256.Sum256(program)
	return cached(t, "faena-init-"+hex.EncodeToString(sum[:8]), func(to string) error { return os.WriteFile(to, program, 0o755) })
}
