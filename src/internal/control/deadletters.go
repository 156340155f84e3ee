package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

const (
	// lettersLooked bounds how many dead letters are read for one page.
	lettersLooked = 1000
	// sameRevision is how much later than an activation its revision may seem to have been made, by the clocks of two APIs.
	sameRevision = 10 * time.Minute
)

// letterKey is where a dead letter is.
type letterKey struct{ group, user, id string }

// letter is a dead letter that was read.
type letter struct {
	faena.DeadLetter
	seq uint64
}

// letterKeys lists what there is of a user, or of everybody, newest first.
func (c *Control) letterKeys(ctx context.Context, user string) ([]letterKey, error) {
	var keys []letterKey
	for _, group := range c.groups.names() {
		byUser, err := c.o.Bus.DeadLetterIDs(ctx, group, user)
		if err != nil {
			return nil, queueError(err)
		}
		for user, ids := range byUser {
			for _, id := range ids {
				keys = append(keys, letterKey{group, user, id})
			}
		}
	}
	slices.SortFunc(keys, func(a, b letterKey) int {
		return cmp.Or(cmp.Compare(b.id, a.id), cmp.Compare(a.group, b.group), cmp.Compare(a.user, b.user))
	})
	return keys, nil
}

// readLetter reads one; KindNotFound. One that cannot be read is returned with what is known of it, and Raw.
func (c *Control) readLetter(ctx context.Context, k letterKey) (letter, error) {
	d, seq, err := c.o.Bus.DeadLetter(ctx, k.group, k.user, k.id)
	switch {
	case err == nil:
		return letter{*d, seq}, nil
	case errors.Is(err, faena.ErrUnreadable), errors.Is(err, faena.ErrSchema):
		return letter{faena.DeadLetter{ID: k.id, User: k.user, Group: k.group, Message: "The dead letter cannot be read: " + err.Error() + ".",
			Reason: faena.ReasonWorkerLost, Raw: []byte("unreadable")}, seq}, nil
	case faena.IsKind(err, faena.KindNotFound):
		return letter{}, noLetter(k.id)
	}
	return letter{}, queueError(err)
}

func noLetter(id string) error {
	e := faena.NotFound("dead_letter", id)
	e.Message = fmt.Sprintf("There is no dead letter %q.", id)
	return e
}

// letterOf finds a user's dead letter.
func (c *Control) letterOf(ctx context.Context, user, id string) (letter, error) {
	if !faena.ValidActivationID(id) {
		return letter{}, noLetter(id)
	}
	for _, group := range c.groups.names() {
		l, err := c.readLetter(ctx, letterKey{group, user, id})
		if !faena.IsKind(err, faena.KindNotFound) {
			return l, err
		}
	}
	return letter{}, noLetter(id)
}

// DeadLetter returns one of a user's, with its parameter where that is not an object; KindNotFound.
func (c *Control) DeadLetter(ctx context.Context, user, id string) (faena.DeadLetter, error) {
	l, err := c.letterOf(ctx, user, id)
	return l.DeadLetter, err
}

// DeadLetters returns a page, newest first, without the bytes of parameters, and the From of the next page: "" where there is none.
func (c *Control) DeadLetters(ctx context.Context, q faena.DeadLetterQuery) (list []faena.DeadLetter, next string, err error) {
	keys, err := c.letterKeys(ctx, q.User)
	if err != nil {
		return nil, "", err
	}
	looked, last := 0, ""
	for _, k := range keys {
		if q.From != "" && k.id >= q.From {
			continue
		}
		if len(list) == q.Limit || looked == lettersLooked {
			return list, last, nil
		}
		looked, last = looked+1, k.id
		l, err := c.readLetter(ctx, k)
		if faena.IsKind(err, faena.KindNotFound) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, "", err
		}
		if (q.Function == "" || l.Function == q.Function) && !c.stale(ctx, &l) {
			l.Parameter.Inline = nil
			list = append(list, l.DeadLetter)
		}
	}
	return list, "", nil
}

// stale reports whether the activation has succeeded all the same, and removes the dead letter then: who wrote it could not settle, and
// another worker went on.
func (c *Control) stale(ctx context.Context, l *letter) bool {
	ran, _, err := c.find(ctx, l.User, l.ID)
	if err != nil || ran.State != faena.StateSucceeded {
		return false
	}
	if err := c.dropLetter(ctx, l); err != nil {
		c.logOf(ran).Warn("the dead letter of an activation that has succeeded could not be removed", "error", err)
	}
	return true
}

// Redrive makes a new activation of a user's dead letter, of the same revision with the same parameter, as a call would, and removes
// the dead letter. It happens once, whoever asks for it and dies half-way. KindNotFound; KindConflict where the message cannot be
// read; KindGone where the function, that revision or the parameter is gone; the errors of admission. call says who calls.
func (c *Control) Redrive(ctx context.Context, user, id string, call faena.ActivationRequest) (faena.Record, error) {
	l, err := c.letterOf(ctx, user, id)
	if err != nil {
		return faena.Record{}, err
	}
	return c.redrive(ctx, &l, call)
}

// redrive is Redrive for one that was read. What has succeeded is not run again: then it is as if there were none.
func (c *Control) redrive(ctx context.Context, l *letter, call faena.ActivationRequest) (faena.Record, error) {
	if c.stale(ctx, l) {
		return faena.Record{}, noLetter(l.ID)
	}
	if len(l.Raw) > 0 {
		return faena.Record{}, &faena.Error{Kind: faena.KindConflict, Reason: "dead_letter_unreadable", Component: faena.ComponentQueue,
			Message: "The message of the activation cannot be read, so it cannot be run again. Make the call anew, and purge the dead letter."}
	}
	if r, made, err := c.redriven(ctx, l); made || err != nil {
		return r, err
	}
	if err := c.sameFunction(ctx, l); err != nil {
		return faena.Record{}, err
	}
	parameter, err := c.letterParameter(ctx, l)
	if err != nil {
		return faena.Record{}, err
	}
	o := order{c: c, hash: "redrive-" + l.ID, req: faena.ActivationRequest{User: l.User, Function: l.Function, Revision: l.Revision, Parameter: parameter,
		Async: true, Traceparent: call.Traceparent, RequestID: call.RequestID, RedrivenFrom: l.ID}}
	o.note = func(ctx context.Context, id string) error { return c.noteRedrive(ctx, l, id) }
	r, _, err := o.once(ctx)
	if err != nil {
		return faena.Record{}, err
	}
	failpoint.Hit("api/redriven")
	if r.State.Terminal() && r.Attempt == 0 { // an earlier redrive's, which was not run: the dead letter is all that is left
		return r, nil
	}
	c.dropRedriven(ctx, l, &r)
	return r, nil
}

// noteRedrive writes into the dead letter which activation is being made of it: the claim lasts for a day only.
func (c *Control) noteRedrive(ctx context.Context, l *letter, id string) error {
	if l.Redriven == id {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.admitBudget)
	defer cancel()
	for pause := newPause(); ; {
		d := l.DeadLetter
		d.Redriven = id
		seq, err := c.o.Bus.ReplaceDeadLetter(ctx, &d, l.seq)
		if err == nil {
			l.DeadLetter, l.seq = d, seq
			return nil
		}
		stale := errors.Is(err, faena.ErrStale)
		if !stale && !transient(err) {
			return queueError(err)
		}
		there, looked := c.readLetter(ctx, letterKey{l.Group, l.User, l.ID})
		switch {
		case looked == nil && there.Redriven == id: // by a try whose answer was lost
			*l = there
			return nil
		case stale && (looked == nil || faena.IsKind(looked, faena.KindNotFound)):
			return &faena.Error{Kind: faena.KindConflict, Reason: reasonInProgress, Component: faena.ComponentAPI, Activation: id, Retryable: true,
				RetryAfter: time.Second, Message: "The dead letter was removed, or run again, at the same moment. Try again."}
		case pause.wait(ctx) != nil:
			return queueError(err)
		}
	}
}

// redriven finishes a redrive that was cut short, where it had made its activation, and returns that. What it has made and was never
// started is for the claim to judge, as long as that lasts. KindGone where it would be from before what history has: nobody knows.
func (c *Control) redriven(ctx context.Context, l *letter) (r faena.Record, made bool, err error) {
	if l.Redriven == "" {
		return r, false, nil
	}
	r, err = c.Activation(ctx, l.User, l.Redriven)
	switch {
	case faena.IsKind(err, faena.KindGone):
		return r, false, gone("redrive_expired", fmt.Sprintf("It was being run again as activation %s, and history does not go back so far that "+
			"it could be said what has become of that. Make the call anew, and purge the dead letter.", l.Redriven))
	case faena.IsKind(err, faena.KindNotFound), err == nil && r.State.Terminal() && r.Attempt == 0:
		return faena.Record{}, false, nil
	case err != nil:
		return r, false, err
	}
	c.dropRedriven(ctx, l, &r)
	return r, true, nil
}

// dropRedriven removes the dead letter of what was made again.
func (c *Control) dropRedriven(ctx context.Context, l *letter, r *faena.Record) {
	if err := c.dropLetter(ctx, l); err != nil {
		c.logOf(r).Warn("the dead letter of an activation that was made again could not be removed; it is not run a second time",
			"dead_letter", l.ID, "error", err)
	}
}

// letterParameter reads the parameter. KindNotFound where the dead letter was removed meanwhile, and with it the parameter.
func (c *Control) letterParameter(ctx context.Context, l *letter) ([]byte, error) {
	if l.Parameter.Object == "" {
		return l.Parameter.Inline, nil
	}
	p, err := c.o.Bus.Object(ctx, l.Group, l.Parameter.Object)
	if err == nil {
		return p, nil
	}
	if _, there := c.readLetter(ctx, letterKey{l.Group, l.User, l.ID}); faena.IsKind(there, faena.KindNotFound) {
		return nil, there
	}
	if faena.IsKind(err, faena.KindNotFound) {
		return nil, gone("parameter_expired", "The parameter has expired and was removed. Make the call anew.")
	}
	return nil, queueError(err)
}

func gone(reason, message string) error {
	return &faena.Error{Kind: faena.KindGone, Reason: reason, Component: faena.ComponentStore, Message: message}
}

// sameFunction checks that the store still has the revision that the activation was of. One of the same number may be another
// function's, made under the name since; and a worker may name what it likes, which must not reach another group.
func (c *Control) sameFunction(ctx context.Context, l *letter) error {
	rev, err := c.o.Documents.Revision(ctx, l.User, l.Function, l.Revision)
	if err != nil && !faena.IsKind(err, faena.KindNotFound) {
		return err
	}
	ran, _, findErr := c.find(ctx, l.User, l.ID)
	if findErr == nil && !ran.State.Terminal() { // a dead letter is written before the end
		return &faena.Error{Kind: faena.KindConflict, Reason: "not_ended", Component: faena.ComponentQueue, Activation: l.ID, Retryable: true,
			RetryAfter: time.Second, Message: "The activation has not ended yet. Try again when it has."}
	}
	if findErr != nil && !faena.IsKind(findErr, faena.KindNotFound) {
		return findErr
	}
	if findErr != nil { // it may have been removed from history
		ran = &faena.Record{Digest: rev.Digest, AdmittedAt: l.At}
		if key, err := uuid.Parse(l.ID); err == nil {
			ran.AdmittedAt = admitted(key)
		}
	}
	if err != nil || rev.Spec.Group != l.Group || !revisionOf(&rev, ran) {
		return gone("revision_gone", fmt.Sprintf("Revision %d of function %q was deleted. Make the call anew, and purge the dead letter.", l.Revision, l.Function))
	}
	return nil
}

// revisionOf reports whether a revision with a record's function and number is the one that the record was admitted for, and not one
// of a function that was made under the name since.
func revisionOf(rev *faena.Revision, r *faena.Record) bool {
	return rev.Digest == r.Digest && rev.CreatedAt.Before(r.AdmittedAt.Add(sameRevision))
}

// dropLetter removes a dead letter, then the parameter that was kept for it.
func (c *Control) dropLetter(ctx context.Context, l *letter) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.releaseFor)
	defer cancel()
	if err := c.o.Bus.DeleteDeadLetter(ctx, l.Group, l.seq); err != nil {
		return queueError(err)
	}
	if l.Parameter.Object != keptParameter(l.ID) { // whatever a worker has named
		return nil
	}
	return queueError(c.deleteObject(ctx, l.Group, l.Parameter.Object))
}

// RedriveAll redrives up to q.Limit of the dead letters that q selects, oldest first. One that a user's limit does not let through
// is refused, and that user's others in the group are left; it ends where the platform lets nothing through.
func (c *Control) RedriveAll(ctx context.Context, q faena.DeadLetterQuery, call faena.ActivationRequest) (all faena.Redriven, err error) {
	keys, err := c.letterKeys(ctx, q.User)
	if err != nil {
		return all, err
	}
	slices.Reverse(keys)
	full := make(map[slotOwner]bool)
	looked, last := 0, q.From
	for _, k := range keys {
		if k.id <= q.From || full[slotOwner{k.group, k.user}] {
			continue
		}
		if len(all.Accepted)+len(all.Refused) == q.Limit || looked == lettersLooked {
			all.Next = last
			return all, nil
		}
		l, err := c.readLetter(ctx, k)
		looked++
		if err == nil && (q.Function == "" || l.Function == q.Function) {
			err = c.redriveInto(ctx, &all, &l, call)
		}
		switch e, known := asError(err); {
		case err == nil, known && e.Kind == faena.KindNotFound: // of another function, redriven, refused for good, or removed meanwhile
		case known && e.Kind == faena.KindLimit:
			full[slotOwner{k.group, k.user}] = true
		case known && e.Kind == faena.KindUnavailable:
			all.Next = last
			return all, nil
		default:
			return all, err
		}
		last = k.id
	}
	return all, nil
}

// redriveInto redrives one and notes what has come of it. The error, too, is one that the caller must look at: it holds for others.
func (c *Control) redriveInto(ctx context.Context, all *faena.Redriven, l *letter, call faena.ActivationRequest) error {
	r, err := c.redrive(ctx, l, call)
	e, known := asError(err)
	switch {
	case err == nil:
		all.Accepted = append(all.Accepted, faena.Redrive{From: l.ID, ID: r.ID})
		return nil
	case !known:
		return err
	}
	all.Refused = append(all.Refused, faena.Redrive{From: l.ID, Err: e})
	if e.Kind == faena.KindLimit || e.Kind == faena.KindUnavailable {
		return e
	}
	return nil
}

// PurgeDeadLetter removes one; KindNotFound.
func (c *Control) PurgeDeadLetter(ctx context.Context, user, id string) error {
	l, err := c.letterOf(ctx, user, id)
	if err != nil {
		return err
	}
	return c.dropLetter(ctx, &l)
}

// PurgeDeadLetters removes all that q selects but for its Limit, and returns how many.
func (c *Control) PurgeDeadLetters(ctx context.Context, q faena.DeadLetterQuery) (int, error) {
	keys, err := c.letterKeys(ctx, q.User)
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	n := 0
	err = together(keys, func(k letterKey) error {
		l, err := c.readLetter(ctx, k)
		if faena.IsKind(err, faena.KindNotFound) || err == nil && q.Function != "" && l.Function != q.Function {
			return nil
		}
		if err == nil {
			err = c.dropLetter(ctx, &l)
		}
		if err == nil {
			mu.Lock()
			n++
			mu.Unlock()
		}
		return err
	})
	return n, err
}

// atOnce is how many of a user's things are changed at the same time.
const atOnce = 16

// together calls fn with each of the items, some at the same time, and returns the first error; the calls after that are not made.
func together[T any](items []T, fn func(T) error) error {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed error
	)
	next := 0
	take := func() (item T, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if failed != nil || next == len(items) {
			return item, false
		}
		next++
		return items[next-1], true
	}
	for range min(atOnce, len(items)) {
		wg.Go(func() {
			for item, ok := take(); ok; item, ok = take() {
				if err := fn(item); err != nil {
					mu.Lock()
					if failed == nil {
						failed = err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return failed
}
