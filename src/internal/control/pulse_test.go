package control

import (
	"sync"
	"testing"

	"faena.dev/faena/internal/faenatest"
)

// pulse counts beats, and knows who has begun something and has not come back.
type pulse struct {
	mu    sync.Mutex
	beats map[string]int
	busy  map[string]bool
}

func (p *pulse) Beat(loop string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beats[loop]++
	p.busy[loop] = true
}

func (p *pulse) Rest(loop string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy[loop] = false
}

func (p *pulse) of(loop string) (beats int, busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.beats[loop], p.busy[loop]
}

// A recorder that hangs in the store is seen, and the other loops beat on. It rests when nothing is to be recorded.
func TestControl_Pulse(t *testing.T) {
	t.Parallel()
	p := &pulse{beats: map[string]int{}, busy: map[string]bool{}}
	r := start(t, several, func(_ *rig, o *Options, _ *times) { o.Pulse = p })
	r.user("ann", 20)
	r.deploy("ann", "f")
	g := newGate()
	close(g.open)
	r.worker(1, g.run)
	const recorder = "recorder of default"
	if beats, busy := p.of(recorder); beats != 0 || busy {
		t.Error("the recorder is busy with nothing")
	}
	back := make(chan struct{})
	r.documents.on("Insert", func() error { <-back; return nil })
	r.accepted("x")
	faenatest.Eventually(t, patience, "the recorder hangs", func() bool { _, busy := p.of(recorder); return busy })
	before, _ := p.of("gauge")
	faenatest.Eventually(t, patience, "the others go on", func() bool { now, _ := p.of("gauge"); return now >= before+2 })
	for _, loop := range []string{"leader", "groups"} {
		if n, _ := p.of(loop); n == 0 {
			t.Errorf("the loop %s does not beat", loop)
		}
	}
	close(back)
	faenatest.Eventually(t, patience, "the recorder rests", func() bool { _, busy := p.of(recorder); return !busy })
	r.stored(1)
}
