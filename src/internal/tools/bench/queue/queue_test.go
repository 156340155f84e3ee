package queue_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/tools/bench/installation"
	"faena.dev/faena/internal/tools/bench/queue"
	"faena.dev/faena/internal/tools/bench/report"
)

// TestMeasure is a tenth of `make bench-queue`, with the same programs, which have no race detector: memory is measured. It
// leaves out what has to be waited for, the memory of a NATS server that holds them.
func TestMeasure(t *testing.T) {
	dir := programs(t)
	o := queue.Options{N: 10_000, Installation: installation.Options{Programs: dir, Self: filepath.Join(dir, "bench")}, Say: t.Logf}
	r, err := queue.Measure(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	table := &report.Table{}
	r.Report(table)
	if missed := table.Missed(); len(missed) > 0 || r.Settled != o.N {
		t.Errorf("the worker has settled %d of %d, and these budgets were missed: %q\n%s", r.Settled, o.N, missed, table)
	}
	t.Logf("queued in %v, drained in %v", r.Queued, r.Drained)
}

// programs builds what is measured and the benchmark, as others do, so that the go command has most of it.
func programs(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir+"/",
		"./cmd/faena-api", "./cmd/faena-worker", "./cmd/faena-init", "./internal/tools/bench")
	build.Dir, build.Env = faenatest.SourceDir(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v: %s", err, out)
	}
	return dir
}
