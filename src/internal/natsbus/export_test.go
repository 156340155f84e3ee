package natsbus

import "time"

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
