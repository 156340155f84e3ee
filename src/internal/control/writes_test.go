package control

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"faena.dev/faena/internal/faena"
)

// ill is a queue of which only writes are asked for, each of which ends with err until it is well.
type ill struct {
	Bus
	err  error
	away bool
	well atomic.Bool
}

func (i *ill) Connected() bool { return !i.away }

func (i *ill) TakesWrites(context.Context, string) error {
	if i.well.Load() {
		return nil
	}
	return i.err
}

// TestWrites: a queue takes no writes when several in a row had no answer, and takes them again with the first that has.
func TestWrites(t *testing.T) {
	unanswered := fmt.Errorf("no answer: %w", faena.ErrUnknown)
	for name, c := range map[string]struct {
		bus  *ill
		want bool
	}{
		"no answer":              {&ill{err: unanswered}, true},
		"refused":                {&ill{err: faena.ErrRetry}, false},
		"without any connection": {&ill{err: unanswered, away: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, end := context.WithCancel(t.Context())
				control := &Control{log: slog.New(slog.DiscardHandler)}
				control.writes.bus, control.writes.groups = c.bus, func() []string { return []string{"g"} }
				done := make(chan error)
				go func() { done <- control.probe(ctx) }()
				pass := func(d time.Duration) {
					if err := sleep(t.Context(), d); err != nil {
						t.Fatal(err)
					}
				}
				pass(writesEvery + (unwritten-2)*writesAgain + time.Second)
				if control.writes.none() {
					t.Error("it counts too soon")
				}
				pass(writesEvery)
				if got := control.writes.none(); got != c.want {
					t.Errorf("it takes none is %v, want %v", got, c.want)
				}
				c.bus.well.Store(true)
				pass(writesEvery)
				if control.writes.none() {
					t.Error("it still takes none")
				}
				end()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
