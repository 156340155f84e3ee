package control

import (
	"context"
	"strconv"
	"time"
)

// plural writes a count with its noun: "1 worker", "4 workers".
func plural(n int, noun string) string {
	s := strconv.Itoa(n) + " " + noun
	if n != 1 {
		s += "s"
	}
	return s
}

// sleep waits for d, or until ctx ends; it returns ctx's error then.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
