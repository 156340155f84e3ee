package fairness_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/tools/bench/fairness"
	"faena.dev/faena/internal/tools/bench/installation"
	"faena.dev/faena/internal/tools/bench/report"
)

// TestMeasure is a short form of `make bench-fairness`, with the same programs, which have no race detector. What takes 1 ms is
// left out: on a machine that is busy with other tests the bound is that machine's.
func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir+"/",
		"./cmd/faena-api", "./cmd/faena-worker", "./cmd/faena-init", "./internal/tools/bench")
	build.Dir, build.Env = faenatest.SourceDir(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v: %s", err, out)
	}
	all, err := fairness.Measure(t.Context(), fairness.Options{Flood: 400, Runs: []time.Duration{300 * time.Millisecond}, Calls: 25, Within: 30 * time.Second,
		Installation: installation.Options{Programs: dir, Self: filepath.Join(dir, "bench")}, Say: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	table := &report.Table{}
	fairness.Report(table, all)
	if missed := table.Missed(); len(missed) > 0 {
		t.Errorf("missed: %q\n%s", missed, table)
	}
	if r := all[0]; r.Waiting == 0 || len(r.Waits) < 5 {
		t.Errorf("%d calls, and at the end %d of the flood wait: that says nothing", len(r.Waits), r.Waiting)
	}
}
