package control

import "sync"

// tally remembers whose counters may have changed by what this instance did.
type tally struct {
	mu      sync.Mutex
	touched map[string]struct{}
}

func newTally() *tally { return &tally{touched: make(map[string]struct{})} }

// touch notes that a user's counters may have changed.
func (t *tally) touch(user string) {
	t.mu.Lock()
	t.touched[user] = struct{}{}
	t.mu.Unlock()
}

// take returns the users touched since the last call.
func (t *tally) take() map[string]struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	users := t.touched
	t.touched = make(map[string]struct{})
	return users
}
