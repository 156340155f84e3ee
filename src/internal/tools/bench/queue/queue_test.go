package queue_test

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/tools/bench/installation"
	"faena.dev/faena/internal/tools/bench/queue"
)

// TestMain is also the main of the installation's parts: under the race detector they run as what is tested here.
func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	code, is := installation.Part(ctx, os.Args[1:])
	if !is {
		code = m.Run()
	}
	stop()
	os.Exit(code)
}

// TestMeasure is a tenth of `make bench-queue`.
func TestMeasure(t *testing.T) {
	const n = 10_000
	r, err := queue.Measure(t.Context(), queue.Options{N: n, Installation: installation.Options{Init: faenatest.InitBinary(t)}, Say: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("queued in %v, drained in %v", r.Queued, r.Drained)
	for what, got := range map[string]int{"were lost": r.Lost, "ran twice": r.Twice(), "are left in the queue": r.LeftQueued,
		"have a live record": r.Live, "were given up": r.Abandoned, "more or less were settled": r.Settled - n} {
		if got != 0 {
			t.Errorf("%d %s", got, what)
		}
	}
}
