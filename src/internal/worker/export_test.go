package worker

import (
	"context"
	"time"
)

// Every is how often a worker of a test looks at things. What is 0 stays as it is.
type Every struct{ Tick, Progress, Fence, Heartbeat, Ping, Sweep, Launch, Unread, Bury, Stall, Advice time.Duration }

// Quicken shortens the periods of a worker that does not run yet.
func (w *Worker) Quicken(e Every) {
	for _, p := range []struct {
		to  *time.Duration
		new time.Duration
	}{{&w.every.progressTick, e.Tick}, {&w.every.progress, e.Progress}, {&w.every.fence, e.Fence}, {&w.every.heartbeat, e.Heartbeat},
		{&w.every.ping, e.Ping}, {&w.every.sweep, e.Sweep}, {&w.every.launch, e.Launch},
		{&w.every.unread, e.Unread}, {&w.every.bury, e.Bury}, {&w.every.stall, e.Stall}, {&w.every.advice, e.Advice}} {
		if p.new != 0 {
			*p.to = p.new
		}
	}
}

// SetDisk makes a worker that does not run yet see a disk.
func (w *Worker) SetDisk(usage func() (free, total int64, err error)) {
	w.o.Disk.Usage, w.images.o.Disk.Usage = usage, usage
}

// CollectImages removes unused images, as the worker does by itself every minute.
func (w *Worker) CollectImages(ctx context.Context) error { return w.images.collect(ctx) }

// LockFile is the file that a worker holds locked.
func (w *Worker) LockFile() string { return w.owner.path }
