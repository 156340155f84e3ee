package control

import (
	"context"
	"errors"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// admission is one activation on its way in: a record, then a message in a slot (design section 3, steps 1 and 2). An asynchronous
// one without a slot waits in the backlog, and so does one that comes after those that wait there.
type admission struct {
	c       *Control
	slots   *userSlots
	backlog *userBacklog
	limit   int // of the user in the group
	below   int // only slots below it: less than limit for an asynchronous call
	record  *faena.Record
	rev     uint64 // of the record in the bucket; 0 before it is there
	held    bool   // the record's slot is reserved for it
	claimed bool   // others may admit it under the same id
	message *faena.Message
}

// admit takes the activation in. When it returns nil, record and message are both acknowledged by the server. An
// error means that the activation will not run, unless it says OutcomeUnknown. One budget covers all of it, whether or
// not the caller still waits.
func (a *admission) admit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.c.admitBudget)
	defer cancel()
	if err := a.place(ctx); err != nil {
		return a.unavailable(err)
	}
	err := a.store(ctx)
	if err == nil {
		err = a.publish(ctx)
	}
	if err != nil && a.held { // one that the stream has refused is somebody else's, and stays so
		a.slots.free(a.record.Slot)
	}
	if err != nil && a.record.Backlogged {
		a.backlog.drop()
	}
	return err
}

// place finds out where it is to wait, and reserves that.
func (a *admission) place(ctx context.Context) error {
	waits := a.record.Instance == "" && a.c.o.BacklogLimit > 0
	if waits && a.backlog.any(ctx) {
		return a.postpone(ctx)
	}
	slot, err := a.slots.take(ctx, a.limit, a.below)
	if waits && faena.IsKind(err, faena.KindLimit) {
		return a.postpone(ctx)
	}
	if err != nil {
		return err
	}
	a.record.Slot, a.held = slot, true
	return nil
}

// postpone makes the backlog its place.
func (a *admission) postpone(ctx context.Context) error {
	if err := a.c.gauge.admitsWaiting(a.record.Group); err != nil {
		return err
	}
	if err := a.backlog.add(ctx, a.c.o.BacklogLimit); err != nil {
		return err
	}
	a.record.Slot, a.record.Backlogged = 0, true
	return nil
}

// store writes a large parameter, then the record.
func (a *admission) store(ctx context.Context) error {
	p := &a.message.Parameter
	if p.Size > faena.MaxInlineBytes {
		data := p.Inline
		p.Inline, p.Object = nil, "in."+a.record.ID
		a.record.ParameterObject = p.Object
		if err := a.c.o.Bus.PutObject(ctx, a.record.Group, p.Object, data); err != nil {
			if errors.Is(err, faena.ErrFull) {
				return full(err)
			}
			a.forget(ctx) // part of it may be there
			return a.unavailable(err)
		}
		failpoint.Hit("api/parameter-stored")
	}
	for pause := newPause(); ; {
		rev, err := a.c.o.Bus.CreateRecord(ctx, a.record)
		if faena.IsKind(err, faena.KindConflict) { // not one of our own tries: the bus knows those
			return faena.Unavailable(faena.ComponentQueue, reasonTaken, "Another activation has the same id. Try again.", err)
		}
		if err == nil {
			failpoint.Hit("api/record-created")
			a.rev = rev
			return nil
		}
		if !transient(err) || pause.wait(ctx) != nil {
			a.forget(ctx)
			return a.unavailable(err) // nothing was published, so it cannot run
		}
	}
}

// publish puts the message where the record says. Only a definite "slot taken" moves it to another slot, or into the backlog; after
// an unknown outcome its place never changes, since the message may stand there.
func (a *admission) publish(ctx context.Context) error {
	moved, sent := 0, false // sent: a try of unknown outcome may have been stored
	for pause := newPause(); ; {
		err := a.try(ctx)
		switch {
		case err == nil, errors.Is(err, faena.ErrSlotTaken) && sent && a.stored(ctx):
			failpoint.Hit("api/published")
			a.published()
			return nil
		case errors.Is(err, faena.ErrSlotTaken) && !sent:
			if err := a.move(ctx, &moved); err != nil {
				return a.refuse(ctx, err)
			}
			continue
		case errors.Is(err, faena.ErrFull) && !sent:
			return a.refuse(ctx, full(err))
		case errors.Is(err, faena.ErrUnknown):
			sent = true
		case !transient(err) && !sent && ctx.Err() == nil:
			return a.refuse(ctx, err)
		}
		if pause.wait(ctx) == nil {
			continue
		}
		if sent {
			return a.abandon(ctx, err)
		}
		return a.refuse(ctx, err)
	}
}

// try makes one try. What waits in the backlog goes without its record, which is read when it is released.
func (a *admission) try(ctx context.Context) error {
	r := a.record
	if r.Backlogged {
		a.message.Record, a.message.RecordRevision = nil, 0
		return a.c.o.Bus.PublishBacklog(ctx, r.User, r.Group, r.Publication, a.message)
	}
	a.message.Record, a.message.RecordRevision = r, a.rev
	_, _, err := a.c.o.Bus.Publish(ctx, r.User, r.Group, r.Slot, r.Publication, a.message)
	return err
}

// published notes that the message is where it belongs.
func (a *admission) published() {
	if !a.record.Backlogged {
		a.slots.occupied(a.record.Slot)
		return
	}
	a.backlog.stored()
	a.c.hint(a.record)
}

// stored reports whether the message in our slot is ours.
func (a *admission) stored(ctx context.Context) bool {
	there, err := a.c.inSlot(ctx, a.record)
	return there && err == nil
}

// move takes another slot, or where there is none the backlog, and writes that into the record before the next publish.
func (a *admission) move(ctx context.Context, moved *int) error {
	a.slots.occupied(a.record.Slot)
	a.held = false
	if *moved++; *moved > 1 { // believed free, then one more; then the stream is asked
		if err := a.slots.refresh(ctx, slotMemory); err != nil {
			return a.unavailable(err)
		}
	}
	if err := a.place(ctx); err != nil {
		return err
	}
	rev, err := a.c.o.Bus.UpdateRecord(ctx, a.record, a.rev)
	if err != nil {
		return a.unavailable(err)
	}
	failpoint.Hit("api/slot-changed")
	a.rev = rev
	return nil
}

// refuse takes back a record whose message is definitely not stored.
func (a *admission) refuse(ctx context.Context, cause error) error {
	a.forget(ctx)
	return a.unavailable(cause)
}

// forget removes the record and a large parameter. What cannot be removed now is settled as lost by the sweeper.
func (a *admission) forget(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	r := a.record
	if a.others(ctx) {
		return
	}
	if err := a.c.o.Bus.PurgeRecord(ctx, r.Group, r.User, r.ID); err != nil {
		a.c.logOf(r).Warn("the record of a refused activation could not be removed", "error", err)
	}
	failpoint.Hit("api/record-forgotten")
	if a.message.Parameter.Object != "" {
		if err := a.c.o.Bus.DeleteObject(ctx, r.Group, a.message.Parameter.Object); err != nil {
			a.c.logOf(r).Warn("the parameter of a refused activation could not be removed", "error", err)
		}
	}
}

// others reports whether the record of our id is somebody else's: an id that a key stands for is admitted again by another API, where
// this one slept for too long.
func (a *admission) others(ctx context.Context) bool {
	if !a.claimed {
		return false
	}
	there, _, err := a.c.o.Bus.Record(ctx, a.record.Group, a.record.User, a.record.ID)
	return err == nil && !there.AdmittedAt.Equal(a.record.AdmittedAt)
}

// notConfirmed is what is said of an activation whose admission was abandoned.
const notConfirmed = "The queue did not confirm its publication."

// abandon ends an admission of which nobody knows whether the message is stored. Where the record can be settled
// as cancelled, no worker will run it; otherwise the caller is told that the outcome is unknown.
func (a *admission) abandon(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	out := faena.Unavailable(faena.ComponentQueue, "queue_unavailable",
		"The queue did not confirm the activation in time. It will not run; try again.", cause)
	out.Activation = a.record.ID
	r := *a.record
	err := r.Fail(faena.ReasonCancelled, notConfirmed, clock.Now())
	if err == nil {
		_, err = a.c.o.Bus.UpdateRecord(ctx, &r, a.rev)
	}
	failpoint.Hit("api/abandoned")
	if err != nil {
		out.OutcomeUnknown, out.Reason = true, "outcome_unknown"
		out.Message = "The queue did not confirm the activation in time: it may run or not. Ask for it by its id before trying again."
	}
	return out
}

// unavailable gives an error that came from the bus its meaning for a caller; one that has a meaning is kept.
func (a *admission) unavailable(err error) error {
	if e, ok := errors.AsType[*faena.Error](err); ok {
		return e
	}
	return faena.Unavailable(faena.ComponentQueue, "queue_unavailable",
		"The queue does not answer, so the activation was not accepted. Try again.", err)
}

func full(err error) error {
	return faena.Unavailable(faena.ComponentQueue, "storage_full",
		"The queue's storage is full, so the activation was not accepted. An operator must give it more room.", err)
}

// transient reports whether repeating the same step may help.
func transient(err error) bool {
	return errors.Is(err, faena.ErrRetry) || errors.Is(err, faena.ErrUnknown)
}

// pause is the wait between tries: 10 ms, doubling up to 320 ms.
type pause struct{ next time.Duration }

func newPause() *pause { return &pause{10 * time.Millisecond} }

func (p *pause) wait(ctx context.Context) error {
	d := p.next
	p.next = min(2*p.next, 320*time.Millisecond)
	return sleep(ctx, d)
}
