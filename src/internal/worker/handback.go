package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// giveBack hands a message back, which this worker does not hold any more from then on. One whose hold is doubtful is left to the
// server, which delivers it again: an answer would take effect on whoever holds it meanwhile.
func (w *Worker) giveBack(a *activation, delay time.Duration) {
	if a.lapsed(w.every.fence) {
		w.logOf(a).Warn("an activation was not handed back: it was not confirmed for too long")
		return
	}
	a.entry.clear() // before: a successor must not hand back what somebody else has been given since
	w.held.remove(a)
	failpoint.Hit("worker/before-nak")
	err := once(context.WithoutCancel(a.ctx), func(ctx context.Context) error {
		return a.delivery.Nak(ctx, min(max(delay, 0), faena.MaxSlotDelay))
	})
	if err != nil {
		w.logOf(a).Warn("a message could not be handed back", "error", err)
	}
	failpoint.Hit("worker/nak-sent")
}

// setAside gives up an activation that this worker has not started. One whose hold is doubtful, or somebody else's, is left to the
// server, which delivers it again; any other is handed back at once.
func (w *Worker) setAside(a *activation, err error) {
	switch {
	case errors.Is(err, errTaken), errors.Is(context.Cause(a.ctx), errSuperseded):
		a.entry.clear()
		w.o.Observer.Abandoned("superseded")
		w.logOf(a).Warn("an activation was given up before it started", "error", err)
	case errors.Is(err, errFenced), errors.Is(context.Cause(a.ctx), errFenced):
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

// maxUnread bounds what is remembered of what was said.
const maxUnread = 1000

// unread remembers the messages that a worker could not read: it says so once of each. It is safe for concurrent use.
type unread struct {
	mu   sync.Mutex
	said map[uint64]struct{} // by their sequence in the stream
}

func (u *unread) first(sequence uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, known := u.said[sequence]; known {
		return false
	}
	if u.said == nil || len(u.said) >= maxUnread {
		u.said = make(map[uint64]struct{})
	}
	u.said[sequence] = struct{}{}
	return true
}
