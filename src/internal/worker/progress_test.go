package worker

import (
	"testing"
	"time"
)

// TestGate_doubt: nothing is taken while it would be set aside, and it is taken again when that is over.
func TestGate_doubt(t *testing.T) {
	g := newGate(false)
	g.begin(t.Context())
	g.set("")
	open, duty, _ := g.pass(t.Context())
	g.doubt(true)
	if open.Err() == nil || duty.Err() != nil {
		t.Errorf("who waits for a message goes on: %v; who runs one: %v", open.Err(), duty.Err())
	}
	passed := make(chan bool, 1)
	go func() {
		_, _, ok := g.pass(t.Context())
		passed <- ok
	}()
	g.set("The engine is away.")
	g.set("")
	select {
	case <-passed:
		t.Error("it is open")
	case <-time.After(50 * time.Millisecond):
	}
	g.doubt(false)
	if !<-passed || g.notReady() != "" {
		t.Error("it is closed")
	}
}

// TestVigil: who has stood still doubts what arrives from then on, until all has come that had been waiting.
func TestVigil(t *testing.T) {
	const stall, from = 3 * time.Second, 100 * time.Second
	var v vigil
	v.last.Store(int64(from))
	doubts := func(when string, at time.Duration, want bool) {
		t.Helper()
		if got := v.doubtful(from+at, stall); got != want {
			t.Errorf("%s: got %v", when, got)
		}
	}
	doubts("soon", stall-1, false)
	doubts("not looked at", stall, true)
	v.look(from+stall-1, stall)
	doubts("looked at in time", stall, false)
	woke := 10 * stall
	doubts("stood still, before the look", woke, true)
	v.look(from+woke, stall)
	doubts("stood still, after the look", woke, true)
	for at := woke; at < woke+doubtFor; at += time.Second {
		v.look(from+at, stall)
	}
	doubts("a moment before all has come", woke+doubtFor-1, true)
	doubts("all has come", woke+doubtFor, false)
}
