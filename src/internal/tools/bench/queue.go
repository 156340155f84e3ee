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
	return measureLong(ctx, o, 0)
}

// measureBacklog is `make bench-backlog`.
func measureBacklog(ctx context.Context, o options) (*report.Table, error) {
	return measureLong(ctx, o, 20)
}

func measureLong(ctx context.Context, o options, users int) (*report.Table, error) {
	result, err := queue.Measure(ctx, queue.Options{N: o.queued, Users: users, Hold: time.Minute, Installation: installation.Options{Programs: o.programs}, Say: say})
	if err != nil {
		return nil, err
	}
	t := &report.Table{}
	result.Report(t)
	return t, nil
}
