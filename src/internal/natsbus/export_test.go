package natsbus

import (
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/clock"
)

// Suspendable makes a bus for which suspend lets time pass as for a host that is suspended. It is called before anything is delivered.
func (b *Bus) Suspendable() (suspend func(time.Duration)) {
	var slept atomic.Int64
	b.boot = func() time.Duration { return clock.SinceBoot() + time.Duration(slept.Load()) }
	return func(d time.Duration) { slept.Add(int64(d)) }
}

// Overdue makes every pull that is with the server one whose answer is late, as for a process that has stood still.
func (d *Deliveries) Overdue() (pulls int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.pulls {
		d.pulls[i] = time.Now().Add(-time.Second)
	}
	return len(d.pulls)
}

// Forget gives up what is overdue, as happens by itself in the end.
func (d *Deliveries) Forget() { d.expired() }
