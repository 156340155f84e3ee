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
