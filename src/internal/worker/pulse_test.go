package worker_test

import (
	"sync"
	"testing"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
)

// pulse counts beats.
type pulse struct {
	mu    sync.Mutex
	beats map[string]int
}

func (p *pulse) Beat(loop string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beats[loop]++
}

func (p *pulse) of(loop string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.beats[loop]
}

// The loops without which a worker is none beat on, also while there is no queue.
func TestWorker_Pulse(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	p := &pulse{beats: map[string]int{}}
	h := s.run("alive", func(o *wiring.WorkerOptions) { o.Pulse = p })
	for _, when := range []string{"with", "without"} {
		for _, loop := range []string{"progress", "heartbeat"} {
			before := p.of(loop)
			faenatest.Eventually(t, patience, "the loop "+loop+" goes on "+when+" a queue", func() bool { return p.of(loop) >= before+2 })
		}
		h.bus.Close()
	}
}
