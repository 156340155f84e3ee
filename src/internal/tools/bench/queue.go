package main

import (
	"context"
	"time"

	"faena.dev/faena/internal/tools/bench/installation"
	"faena.dev/faena/internal/tools/bench/queue"
	"faena.dev/faena/internal/tools/bench/report"
)

// measureQueue is `make bench-queue`.
func measureQueue(ctx context.Context, o options) (*report.Table, error) {
	result, err := queue.Measure(ctx, queue.Options{N: o.queued, Hold: time.Minute, Installation: installation.Options{Programs: o.programs}, Say: say})
	if err != nil {
		return nil, err
	}
	t := &report.Table{}
	result.Report(t)
	return t, nil
}
