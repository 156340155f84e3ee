package control

import (
	"context"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// followBuffer is how many live frames may wait for a slow reader; what is dropped beyond is read again from
	// the worker or the record.
	followBuffer = 256
	// followEvery is how often the record is read while its log is followed.
	followEvery = 500 * time.Millisecond
)

type logFrame struct {
	offset int64
	data   []byte
}

// FollowLogs gives fn the activation's log from its beginning (from the oldest byte that is kept) and as it grows,
// in order and without gaps but for what was dropped, with the offset of each piece. It returns the terminal record
// when all has been given, fn's error, or ctx's. An activation that has ended gives its stored log.
func (c *Control) FollowLogs(ctx context.Context, user, id string, fn func(offset int64, p []byte) error) (faena.Record, error) {
	r, err := c.Activation(ctx, user, id)
	if err != nil {
		return r, err
	}
	f := follower{c: c, fn: fn, frames: make(chan logFrame, followBuffer)}
	stop, err := c.o.Bus.FollowLog(r.Group, user, id, func(offset int64, p []byte) {
		select {
		case f.frames <- logFrame{offset, append([]byte(nil), p...)}:
		default: // the gap is filled at the next look
		}
	})
	if err != nil {
		return r, queueError(err)
	}
	defer stop()
	return f.follow(ctx, user, id)
}

// follower gives a log on. Owned by one goroutine.
type follower struct {
	c      *Control
	fn     func(offset int64, p []byte) error
	frames chan logFrame
	next   int64 // offset of the first byte that was not given yet
}

func (f *follower) follow(ctx context.Context, user, id string) (faena.Record, error) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		r, err := f.c.Activation(ctx, user, id)
		if err != nil {
			return r, err
		}
		if r.State.Terminal() {
			_, p, err := f.c.Logs(ctx, user, id)
			if err != nil {
				return r, err
			}
			return r, f.give(r.Log.Dropped, p)
		}
		if r.State == faena.StateRunning {
			if err := f.catchUp(ctx, &r); err != nil {
				return r, err
			}
		}
		if err := f.live(ctx, tick.C); err != nil {
			return r, err
		}
	}
}

// catchUp gives what the worker holds of the log beyond what was given.
func (f *follower) catchUp(ctx context.Context, r *faena.Record) error {
	offset, p, err := f.c.o.Bus.LogSoFar(ctx, r.Group, r.ID)
	if err != nil {
		return nil // it has just ended, or its worker is away: the record will tell
	}
	return f.give(offset, p)
}

// live gives frames as they come until the next tick. A frame beyond a gap is left out: the next look fills it.
func (f *follower) live(ctx context.Context, tick <-chan time.Time) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick:
			return nil
		case frame := <-f.frames:
			if frame.offset <= f.next {
				if err := f.give(frame.offset, frame.data); err != nil {
					return err
				}
			}
		}
	}
}

// give hands on the part of p, which begins at offset, that was not given yet.
func (f *follower) give(offset int64, p []byte) error {
	if skip := f.next - offset; skip > 0 {
		p = p[min(skip, int64(len(p))):]
		offset = f.next
	}
	if len(p) == 0 {
		return nil
	}
	f.next = offset + int64(len(p))
	return f.fn(offset, p)
}
