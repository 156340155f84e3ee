package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
)

// Why an activation's context ended.
var (
	errCancelled  = errors.New("cancelled by its user")
	errSuperseded = errors.New("the record names another worker or attempt")
	errFenced     = errors.New("not confirmed for too long")
	errAhead      = errors.New("its record is of a later time than it is here, so that this host may have stood still")
	errTaken      = errors.New("another worker has claimed it meanwhile")
	errAborted    = errors.New("the worker was stopped")
	errDrained    = errors.New("the worker takes no more work")
	errTimeout    = errors.New("timeout")
	errTooLarge   = errors.New("result too large")
)

// activation is one delivery that this worker holds. The place's goroutine owns it; the progress loop looks at what
// is atomic or behind mu, and stops it through its context.
type activation struct {
	delivery        Delivery
	group, user, id string
	trace           string // id of the trace that the request belongs to
	rev             *faena.Revision
	received        time.Time
	ctx             context.Context // ends, with its cause, when the run must end
	stop            context.CancelCauseFunc
	log             logTail
	entry           *entry       // where it stands in the journal
	confirmedAt     atomic.Int64 // when the last confirmation left, or the delivery came: nanoseconds since the host's start
	fenced          atomic.Bool  // it was not confirmed for so long that somebody else may have it; for good
	checks          atomic.Int32 // looks at it that are under way or asked for
	mu              sync.Mutex
	phase
	record          *faena.Record
	recordRev       uint64
	pullUS, startUS int64
	warm            bool
	parameter       []byte
}

// phase is how far an activation has come here. The activation's lock guards it.
type phase struct {
	attempt     int    // 0 until claimed
	over        bool   // nothing is left to fence: the process has ended, or never will start
	lost        string // the worker that it is taken over from, with its attempt; "" where there is none
	lostAttempt int
}

// newActivation makes one of a delivery. A message that cannot be read has no revision.
func newActivation(ctx context.Context, group string, d Delivery, e *entry, now time.Time) *activation {
	a := &activation{delivery: d, group: group, user: d.User, id: d.ID, entry: e, received: now}
	if d.readable() {
		a.user, a.id, a.rev = d.Message.Revision.User, d.Message.ID, d.Message.Revision
		if r := d.Message.Record; r != nil {
			a.trace = r.TraceID()
		}
	} else if !faena.ValidActivationID(a.id) {
		a.id = "" // it has none
	}
	a.confirmedAt.Store(int64(clock.SinceBoot()))
	a.ctx, a.stop = context.WithCancelCause(ctx)
	return a
}

// logOf is the log for what concerns an activation.
func (w *Worker) logOf(a *activation) *slog.Logger {
	log := w.log.With("activation_id", a.id, "trace_id", a.trace, "user", a.user)
	if a.rev != nil {
		log = log.With("function", a.rev.Function)
	}
	return log
}

// claimed notes that the record is running and ours.
func (a *activation) claimed(r *faena.Record, rev uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.record, a.recordRev, a.attempt = r, rev, r.Attempt
}

// takesOver notes whom the activation is taken over from.
func (a *activation) takesOver(r *faena.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost, a.lostAttempt = r.Worker, r.Attempt
}

// now returns how far it has come.
func (a *activation) now() phase {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.phase
}

// ended notes that there is no process to kill any more: from here on only the compare-and-set decides.
func (a *activation) ended() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
}

// unconfirmed is how long ago the last successful confirmation left, or the delivery came, the time counted in which the host was
// suspended: AckWait goes on then.
func (a *activation) unconfirmed() time.Duration {
	return clock.SinceBoot() - time.Duration(a.confirmedAt.Load())
}

// lapsed reports whether somebody else may have been given the message meanwhile. It stays so: a confirmation from then on would
// confirm the other one's hold.
func (a *activation) lapsed(fence time.Duration) bool {
	if a.unconfirmed() >= fence {
		a.fenced.Store(true)
	}
	return a.fenced.Load()
}

// holds are the activations that a worker holds, by id. It is safe for concurrent use.
type holds struct {
	mu   sync.Mutex
	byID map[string]*activation
}

// add returns false where the activation is held already.
func (h *holds) add(a *activation) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, dup := h.byID[a.id]; dup {
		return false
	}
	h.byID[a.id] = a
	return true
}

func (h *holds) remove(a *activation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byID[a.id] == a {
		delete(h.byID, a.id)
	}
}

func (h *holds) get(id string) *activation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.byID[id]
}

// each calls fn for every one, under the lock.
func (h *holds) each(fn func(*activation)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.byID {
		fn(a)
	}
}
