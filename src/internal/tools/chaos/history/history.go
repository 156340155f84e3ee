// Package history keeps what the callers of an installation were told and what its functions did, and checks both against what
// must hold whatever fails. Nothing in it asks Faena.
package history

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

// Outcome is what a caller knows of a call once it is over.
type Outcome int

const (
	// Unknown: nobody told whether it was accepted.
	Unknown Outcome = iota
	// Accepted: it was, and has the id.
	Accepted
	// Refused: it was not, and never runs.
	Refused
)

// Call is one request for an activation, and its answer. Several with the same Idempotency-Key share a token.
type Call struct {
	Token          string // in the parameter: the function repeats it to the ledger
	User, Function string
	Retries        int
	Async          bool          // nobody waits for its end
	Key            string        // its Idempotency-Key, if any
	Longest        time.Duration // that it may take until it is answered
	Sent, Answered time.Time

	Outcome Outcome
	ID      string // "" where it was not told
	Broke   string // how the connection was refused, or broke; "" where it was answered
	Good    bool   // answered as the service promises when nothing fails: 200, or 202 where that was asked for
	Strange string // what nobody may be answered, whatever fails
}

// Sight is a record as a caller saw it. State "absent" is a 404.
type Sight struct {
	ID, State, Reason, Worker string
	Attempt                   int
	At                        time.Time
}

// Absent is the state of what is not there.
const Absent = "absent"

// Ended reports whether the state is one that is never left.
func (s Sight) Ended() bool { return s.State != "queued" && s.State != "running" && s.State != Absent }

// Step is a line of the ledger: a function has begun, or is about to end.
type Step struct {
	ID, Token string
	Attempt   int
	End       bool
	At        time.Time
}

// output is a result that was read, and what the function has written.
type output struct {
	id        string
	got, want [sha256.Size]byte
	at        time.Time
}

// History is all of it. It is safe for concurrent use.
type History struct {
	mu      sync.Mutex
	calls   []Call
	sights  map[string][]Sight
	steps   []Step
	outputs []output
	logs    []logged
	lists   map[string][]Sight
	stops   []Stop
	good    []time.Time
	letters []letters
}

// letters are the dead letters of a user.
type letters struct {
	user           string
	before         time.Time // what had ended then has its dead letter
	listed, stored []string  // ids: as the user sees them, and as they stand in the stream
}

// logged is the attempt that a log says it is of.
type logged struct {
	id      string
	attempt int
	at      time.Time
}

// Stop is a daemon that was told to end, or was killed, and what is promised then.
type Stop struct {
	Worker string // whose activations are concerned; "" for an API
	At     time.Time
	// Within is how soon what it ran has ended, or runs again; 0 where nothing is promised.
	Within time.Duration
	// Gently is a worker that may finish what it runs, of which nothing may be lost, or an API: no call may break then.
	Gently bool
	Until  time.Time // when an API was back
}

// New is an empty history.
func New() *History {
	return &History{sights: make(map[string][]Sight), lists: make(map[string][]Sight)}
}

// Called notes a call that is over.
func (h *History) Called(c Call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, c)
	if c.Good {
		h.good = append(h.good, c.Answered)
	}
}

// Saw notes a record that was read.
func (h *History) Saw(s Sight) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sights[s.ID] = append(h.sights[s.ID], s)
}

// Did notes a line of the ledger.
func (h *History) Did(s Step) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.steps = append(h.steps, s)
}

// Read notes a result that was read.
func (h *History) Read(id string, got, want []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outputs = append(h.outputs, output{id, sha256.Sum256(got), sha256.Sum256(want), time.Now()})
}

// ReadLog notes of which attempt the log of a settled activation says it is.
func (h *History) ReadLog(id string, attempt int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.logs = append(h.logs, logged{id, attempt, time.Now()})
}

// Listed notes all that a user has, when nothing runs any more.
func (h *History) Listed(user string, all []Sight) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lists[user] = all
}

// Lettered notes a user's dead letters, as he sees them and as they stand in the stream, that were listed after a moment.
func (h *History) Lettered(user string, after time.Time, listed, stored []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.letters = append(h.letters, letters{user, after, listed, stored})
}

// Stopped notes that a daemon was stopped.
func (h *History) Stopped(s Stop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stops = append(h.stops, s)
}

// Unsettled are the activations that were accepted before a moment, and which nobody has seen ended.
func (h *History) Unsettled(before time.Time) (ids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.calls {
		if c.Outcome == Accepted && c.Answered.Before(before) && !h.ended(c.ID) && !slices.Contains(ids, c.ID) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func (h *History) ended(id string) bool { return slices.ContainsFunc(h.sights[id], Sight.Ended) }

// Calls are all calls that are over.
func (h *History) Calls() []Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.calls)
}

// GoodSince is how many calls were answered as they should be after a moment.
func (h *History) GoodSince(at time.Time) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.good {
		if g.After(at) {
			n++
		}
	}
	return n
}

// Gap is the longest time between two good answers from one moment to another, and when it began.
func (h *History) Gap(from, to time.Time) (longest time.Duration, began time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	good := slices.SortedFunc(slices.Values(h.good), time.Time.Compare)
	last := from
	for _, g := range append(good, to) {
		if g.After(last) && !g.After(to) {
			if g.Sub(last) > longest {
				longest, began = g.Sub(last), last
			}
			last = g
		}
	}
	return longest, began
}

// Numbers are what a report says of a history.
type Numbers struct {
	Calls      int `json:"calls"`
	Accepted   int `json:"accepted"`
	Refused    int `json:"refused"`
	Unknown    int `json:"outcome_unknown"`
	Settled    int `json:"settled"`
	Succeeded  int `json:"succeeded"`
	RanTwice   int `json:"run_more_than_once"`
	WorkerLost int `json:"ended_as_worker_lost"`
	Open       int `json:"not_ended"` // accepted, and nobody has seen its end: lost, when nothing runs any more
}

// Numbers counts.
func (h *History) Numbers() (n Numbers) {
	h.mu.Lock()
	defer h.mu.Unlock()
	accepted := make(map[string]bool)
	for _, c := range h.calls {
		n.Calls++
		switch c.Outcome {
		case Accepted:
			accepted[c.ID] = true
		case Refused:
			n.Refused++
		case Unknown:
			n.Unknown++
		}
	}
	n.Accepted = len(accepted)
	for id := range accepted {
		at := slices.IndexFunc(h.sights[id], Sight.Ended)
		if at < 0 {
			n.Open++
			continue
		}
		n.Settled++
		switch s := h.sights[id][at]; {
		case s.State == "succeeded":
			n.Succeeded++
		case s.State == "lost":
			n.WorkerLost++
		}
	}
	starts := make(map[string]int)
	for _, s := range h.steps {
		if !s.End {
			starts[s.ID]++
		}
	}
	for _, times := range starts {
		if times > 1 {
			n.RanTwice++
		}
	}
	return n
}
