package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// giveBack hands a message back when delay is over, and does not work on it any more. It takes no place meanwhile.
func (w *Worker) giveBack(a *activation, delay time.Duration) {
	w.held.remove(a)
	if delay <= 0 || !w.postpone(a, min(delay, faena.MaxSlotDelay)) {
		w.handOver(a)
	}
}

// handOver hands a message back at once. One whose hold is doubtful is left to the server, which delivers it again: an answer would
// take effect on whoever holds it meanwhile.
func (w *Worker) handOver(a *activation) {
	if w.runs(a) {
		a.entry.clear()
		return
	}
	if a.lapsed(w.every.fence) {
		a.entry.clear()
		w.logOf(a).Warn("an activation was not handed back: it was not confirmed for too long")
		return
	}
	failpoint.Hit("worker/before-nak")
	a.entry.clear() // before: a successor must not hand back what somebody else has been given since
	failpoint.Hit("worker/nak-noted")
	if err := once(context.WithoutCancel(a.ctx), func(ctx context.Context) error { return a.delivery.Nak(ctx) }); err != nil {
		w.logOf(a).Warn("a message could not be handed back", "error", err)
	}
	failpoint.Hit("worker/nak-sent")
}

// runs reports of a copy of what is held here whether its holder runs it, and confirms it: the server has forgotten that it had delivered
// it, and takes these confirmations for the copy too. Handed back it would come to somebody who takes the holder for lost.
func (w *Worker) runs(a *activation) bool {
	h := w.held.get(a.id)
	return h != nil && h != a && h.delivery.Sequence == a.delivery.Sequence && h.now().attempt != 0 && !h.lapsed(w.every.fence)
}

// setAside gives up an activation that this worker has not started. One whose hold is doubtful, or somebody else's, is left to the
// server, which delivers it again; any other is handed back at once.
func (w *Worker) setAside(a *activation, err error) {
	switch {
	case errors.Is(err, errTaken), errors.Is(context.Cause(a.ctx), errSuperseded):
		a.entry.clear()
		w.o.Observer.Abandoned("superseded")
		w.logOf(a).Warn("an activation was given up before it started", "error", err)
	case errors.Is(err, errFenced), errors.Is(err, errAhead), errors.Is(context.Cause(a.ctx), errFenced):
		a.entry.clear()
		w.o.Observer.Abandoned("fenced")
		w.logOf(a).Warn("an activation was given up before it started", "error", err)
	case errors.Is(err, errDrained), errors.Is(err, errAborted), errors.Is(context.Cause(a.ctx), errAborted):
		w.giveBack(a, 0)
	case errors.Is(err, faena.ErrSchema):
		w.putBack(a, "records", err)
	default:
		w.logOf(a).Warn("an activation was handed back", "error", err)
		w.giveBack(a, handBack)
	}
}

// putBack hands back what a worker of another version must read: it keeps its slot, and is neither run nor lost. where says
// what could not be read, the message ("queue") or its record ("records").
func (w *Worker) putBack(a *activation, where string, err error) {
	w.o.Observer.Unreadable(where)
	if w.unread.first(a.delivery.Sequence) {
		w.logOf(a).Warn("an activation of another version is handed back until a worker reads it", "unreadable", where, "error", err)
	}
	w.giveBack(a, w.every.unread)
}

// maxMet bounds what is remembered of messages.
const maxMet = 1000

// met remembers messages of which something is said, or done, once. It is safe for concurrent use.
type met struct {
	mu sync.Mutex
	by map[uint64]struct{} // their sequence in the stream
}

func (m *met) first(sequence uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.by[sequence]; known {
		return false
	}
	if m.by == nil || len(m.by) >= maxMet {
		m.by = make(map[uint64]struct{})
	}
	m.by[sequence] = struct{}{}
	return true
}
