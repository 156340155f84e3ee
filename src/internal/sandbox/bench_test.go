package sandbox_test

import (
	"os/exec"
	"testing"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/sandbox"
)

// BenchmarkConn_Run compares one run in a warm container with what starting the same program on this host costs.
func BenchmarkConn_Run(b *testing.B) {
	start := sandbox.Start{Argv: []string{faenatest.FixturePath, "arg", "hello"}}
	discard := func(int, []byte) error { return nil }
	b.Run("container", func(b *testing.B) {
		box := newBox(b, faenatest.Load(b, faenatest.Image(b, faenatest.ImageSpec{})), "65534:65534")
		for b.Loop() {
			if exit, err := box.Run(b.Context(), start, nil, discard); err != nil || exit.Code != 0 {
				b.Fatal(exit, err)
			}
		}
	})
	b.Run("container, 1 MiB in and out", func(b *testing.B) {
		box := newBox(b, faenatest.Load(b, faenatest.Image(b, faenatest.ImageSpec{})), "65534:65534")
		stdin := pattern(1 << 20)
		b.SetBytes(2 << 20)
		for b.Loop() {
			if exit, err := box.Run(b.Context(), sandbox.Start{Argv: []string{faenatest.FixturePath, "cat"}}, stdin, discard); err != nil || exit.Code != 0 {
				b.Fatal(exit, err)
			}
		}
	})
	b.Run("host", func(b *testing.B) {
		program := faenatest.Fixture(b)
		for b.Loop() {
			if out, err := exec.Command(program, "arg", "hello").Output(); err != nil || string(out) != "hello" {
				b.Fatal(string(out), err)
			}
		}
	})
}
