package wiring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStarter_step(t *testing.T) {
	t.Run("says each text once, and once a minute while it lasts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			s := newStarter(slog.New(slog.NewTextHandler(&log, nil)))
			began := time.Now()
			var pauses []time.Duration
			last := began
			err := s.step(t.Context(), "queue", func(ctx context.Context) error {
				if len(pauses) > 0 || last != time.Now() {
					pauses = append(pauses, time.Since(last))
				}
				last = time.Now()
				switch {
				case time.Since(began) > 150*time.Second:
					return nil
				case len(pauses)%2 == 1: // the port is another one each time
					return fmt.Errorf("read tcp 10.0.0.1:%d->10.0.0.2:4222:\n reset", 40000+len(pauses))
				}
				return errors.New("nobody there")
			})
			if err != nil {
				t.Fatal(err)
			}
			if want := []time.Duration{1e9, 2e9, 4e9, 5e9, 5e9}; !slices.Equal(pauses[:5], want) || slices.Max(pauses) != 5e9 {
				t.Errorf("the pauses are %v", pauses)
			}
			for _, words := range []string{`missing="queue: nobody there"`, `missing="queue: read tcp 10.0.0.2:4222: reset"`} {
				if n := strings.Count(log.String(), words); n != 3 {
					t.Errorf("in two and a half minutes the log has %d times %s: %s", n, words, &log)
				}
			}
			if !strings.Contains(log.String(), `msg="what was missing is there now" step=queue`) {
				t.Errorf("the end is not said: %s", &log)
			}
		})
	})
	t.Run("what is there at once is not worth a line", func(t *testing.T) {
		var log bytes.Buffer
		s := newStarter(slog.New(slog.NewTextHandler(&log, nil)))
		if err := s.step(t.Context(), "queue", func(context.Context) error { return nil }); err != nil || log.Len() > 0 {
			t.Errorf("it is %v: %s", err, &log)
		}
	})
	t.Run("settings are not waited for", func(t *testing.T) {
		s := newStarter(slog.New(slog.DiscardHandler))
		wrong := settingError{errors.New("FAENA_X is wrong")}
		if err := s.step(t.Context(), "queue", func(context.Context) error { return fmt.Errorf("connect: %w", wrong) }); !errors.Is(err, wrong) {
			t.Errorf("it is %v", err)
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStarter(slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			began := time.Now()
			err := s.step(ctx, "queue", func(context.Context) error { return errors.New("nobody there") })
			if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != 1500*time.Millisecond {
				t.Errorf("it is %v after %v", err, took)
			}
		})
	})
}

// What several steps lack is named together, in one order.
func TestStarter_Ready(t *testing.T) {
	s := newStarter(slog.New(slog.DiscardHandler))
	is := func(ready bool, want ...string) {
		t.Helper()
		if missing, ok := s.Ready(t.Context()); ok != ready || !slices.Equal(missing, want) {
			t.Errorf("it is %v, %q; want %v, %q", ok, missing, ready, want)
		}
	}
	is(false, "it is starting")
	s.lacks("queue", errors.New("no server"))
	s.lacks("documents", errors.New("no store"))
	is(false, "documents: no store", "queue: no server")
	s.has("documents")
	is(false, "queue: no server")
	s.has("queue")
	is(false, "it is starting")
	s.done(func(context.Context) ([]string, bool) { return []string{"workers: none"}, true })
	is(true, "workers: none")
}
