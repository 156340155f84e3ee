package telemetry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestLiveness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLiveness(time.Minute)
		check := func(want string) {
			t.Helper()
			got := ""
			if err := l.Check(t.Context()); err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("it says %q, want %q", got, want)
			}
		}
		pass := func(d time.Duration) { <-time.After(d) }
		check("")
		l.Beat("gauge")
		l.Beat("leader")
		l.Beat("recorder")
		pass(time.Minute)
		check("")
		l.Rest("recorder")
		l.Beat("gauge")
		pass(time.Second)
		check("loops stand still: leader for 1m1s")
		pass(time.Hour)
		check("loops stand still: gauge for 1h0m1s, leader for 1h1m1s")
		l.Beat("gauge")
		l.Beat("leader")
		check("")
		l.Probe(func(context.Context) error { return errors.New("nobody answers") })
		check("nobody answers")
	})
}
