package worker

import (
	"context"
	"errors"
	"time"
)

const (
	firstPause  = 20 * time.Millisecond
	longPause   = 2 * time.Second
	callTimeout = 5 * time.Second // of one call on the bus
	// objectTimeout is that of one object, which is up to hundreds of requests; the bus gives up before.
	objectTimeout = 20 * time.Second
)

// next doubles a pause up to longPause.
func next(pause time.Duration) time.Duration { return min(2*pause, longPause) }

// sleep waits and reports true, or reports false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// permanent marks an error that trying again cannot change.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// retry calls fn, each time with callTimeout, until it succeeds, fails with a permanent error, or ctx ends; then it
// returns fn's last error.
func retry(ctx context.Context, fn func(context.Context) error) error {
	return retryEach(ctx, callTimeout, fn)
}

// retryObject is retry for what reads or writes an object.
func retryObject(ctx context.Context, fn func(context.Context) error) error {
	return retryEach(ctx, objectTimeout, fn)
}

func retryEach(ctx context.Context, timeout time.Duration, fn func(context.Context) error) error {
	for pause := firstPause; ; pause = next(pause) {
		err := within(ctx, timeout, fn)
		if err == nil {
			return nil
		}
		if p, ok := errors.AsType[permanent](err); ok {
			return p.error
		}
		if !sleep(ctx, pause) {
			return err
		}
	}
}

func once(ctx context.Context, fn func(context.Context) error) error {
	return within(ctx, callTimeout, fn)
}
