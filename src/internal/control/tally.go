package control

import (
	"sync"
	"sync/atomic"
)

// tally counts what this instance put into the buckets and recorded, and remembers whose counters may have changed. The
// drift is what was put there and is neither live nor recorded; with one API it is 0 when quiet (invariant V4).
type tally struct {
	created  atomic.Int64 // records of activations on their way in
	removed  atomic.Int64 // of these, taken back: they were refused
	recorded atomic.Int64
	base     atomic.Int64 // records in the buckets at the first look
	based    atomic.Bool

	mu      sync.Mutex
	touched map[string]struct{}
}

func newTally() *tally { return &tally{touched: make(map[string]struct{})} }

// sum is what should be live beyond what was at the first look.
func (t *tally) sum() int64 { return t.created.Load() - t.removed.Load() - t.recorded.Load() }

// drift compares with what is live; before is the sum before that was asked for. The first look counts when nothing has
// changed meanwhile.
func (t *tally) drift(live uint64, before int64) int64 {
	sum := t.sum()
	if !t.based.Load() {
		if sum != before {
			return 0
		}
		t.base.Store(int64(live) - sum)
		t.based.Store(true)
	}
	return t.base.Load() + sum - int64(live)
}

// rebase takes what is live at the next look for what should be: records were removed that this instance did not count.
func (t *tally) rebase() { t.based.Store(false) }

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
