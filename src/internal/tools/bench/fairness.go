package main

import (
	"context"
	"time"

	"faena.dev/faena/internal/tools/bench/fairness"
	"faena.dev/faena/internal/tools/bench/installation"
	"faena.dev/faena/internal/tools/bench/report"
)

// measureFairness is `make bench-fairness`.
func measureFairness(ctx context.Context, o options) (*report.Table, error) {
	all, err := fairness.Measure(ctx, fairness.Options{Flood: o.flood, Runs: []time.Duration{time.Millisecond, 100 * time.Millisecond, 2 * time.Second},
		Calls: 200, Within: 3 * time.Minute, Installation: installation.Options{Programs: o.programs}, Say: say})
	if err != nil {
		return nil, err
	}
	t := &report.Table{}
	fairness.Report(t, all)
	return t, nil
}
