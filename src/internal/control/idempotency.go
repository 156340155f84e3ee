package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

const (
	// attendAtMost is the longest pause between two looks at the activation that another call has made: no Completed comes of it.
	attendAtMost = time.Second
)

// ActivateOnce is Activate for calls of which all with the same key, whichever instances they reach, get one activation: the first
// one's, for faena.IdempotencyTTL. replayed reports that this is not the call that made it. Of an asynchronous call that activation
// may have ended. Errors besides Activate's: KindInvalid with reason idempotency_mismatch where the key stands for another function or
// parameter; KindConflict, retryable, with idempotency_in_progress where it stands for an activation that is nowhere yet; KindGone
// where that was removed from history. A call that is refused frees the key, and an activation that has ended without ever being
// started, for want of a worker, of time or of its message, does so at the next call.
func (c *Control) ActivateOnce(ctx context.Context, key string, req faena.ActivationRequest) (r faena.Record, replayed bool, err error) {
	r, replayed, err = (&order{c: c, hash: keyHash(req.User, key), req: req}).once(ctx)
	if e, ok := asError(err); ok && (e.Reason == reasonMismatch || e.Reason == reasonInProgress) {
		c.refused(err)
	}
	return r, replayed, err
}

// keyHash is by what a user's Idempotency-Key is known.
func keyHash(user, key string) string {
	sum := sha256.Sum256([]byte(user + "\x00" + key))
	return hex.EncodeToString(sum[:])
}

const (
	reasonMismatch   = "idempotency_mismatch"
	reasonInProgress = "idempotency_in_progress"
	// reasonTaken is that of an id that another activation has; the same one where an id is admitted twice.
	reasonTaken = "id_taken"
)

// once makes an activation under a claim that the user's calls with the same hash have in common:
//
//	claim ──mine──► admit under the claim's id ──refused──► free the claim
//	  │
//	  └─another's─► the activation was accepted ─────────► that is the answer, or, where it was never started, claim anew
//	               it was not, and the claim is young ───► look again, then idempotency_in_progress
//	               it is nowhere, its API must be dead ──► renew the claim, admit under its id: a record is created once
//	               its record has no message, likewise ──► settle it as lost, claim anew
func (o *order) once(ctx context.Context) (faena.Record, bool, error) {
	if err := o.prepare(ctx); err != nil {
		return faena.Record{}, false, err
	}
	deadline := time.Now().Add(o.c.appearWithin)
	tried := false // to admit it ourselves
	for pause := newPause(); ; {
		k, err := o.hold(ctx)
		if err != nil {
			return faena.Record{}, false, err
		}
		if k.mine && !tried {
			tried = true
			if r, err := o.admit(ctx, k); !isReason(err, reasonTaken) {
				return r, false, err
			}
		}
		r, err := o.find(ctx, k)
		switch {
		case err == nil && neverStarted(&r):
			if err := o.c.o.Bus.DropKey(ctx, o.req.User, o.hash, k.rev); err != nil {
				return faena.Record{}, false, queueError(err)
			}
			tried = false
			if err := o.prepare(ctx); err != nil { // its id is used up
				return faena.Record{}, false, err
			}
			continue
		case err == nil:
			r, err = o.replay(ctx, r)
			return r, true, err
		case unanswered(err) && time.Now().Before(deadline): // as admission does, it asks again
		case !faena.IsKind(err, faena.KindNotFound):
			return faena.Record{}, false, err
		case k.age >= o.c.claimWithin:
			taken, err := o.takeOver(ctx, &k)
			if err != nil {
				return faena.Record{}, false, err
			}
			if taken {
				if r, err := o.admit(ctx, k); !isReason(err, reasonTaken) {
					return r, false, err
				}
			}
		}
		if time.Now().After(deadline) { // also where its id is taken by what cannot be read
			return faena.Record{}, false, inProgress(k)
		}
		if err := pause.wait(ctx); err != nil {
			return faena.Record{}, false, err
		}
	}
}

// order is a call under a claim. Owned by one goroutine.
type order struct {
	c     *Control
	hash  string
	req   faena.ActivationRequest
	note  func(ctx context.Context, id string) error // optional: is told which activation is about to be admitted
	group string                                     // of its function
	claim faena.IdempotencyClaim
}

// claimed is what the key stands for.
type claimed struct {
	faena.IdempotencyClaim
	mine bool
	rev  uint64
	age  time.Duration
}

// prepare makes the claim, with the id that the activation is to have. Of a function that does not exist the group does not matter:
// it is refused at admission, where the key does not stand for an earlier activation of it.
func (o *order) prepare(ctx context.Context) error {
	fn, err := o.c.toRun(ctx, &o.req)
	switch {
	case err == nil:
		o.group = fn.revision.Spec.Group
	case faena.IsKind(err, faena.KindNotFound):
		o.group = faena.DefaultGroup
	default:
		return err
	}
	id, err := o.c.o.NewID(o.req.User, o.group)
	if err != nil {
		return fmt.Errorf("make an activation id: %w", err)
	}
	sum := sha256.Sum256(o.req.Parameter)
	o.claim = faena.IdempotencyClaim{Schema: faena.SchemaVersion, ID: id, Group: o.group, Function: o.req.Function,
		ParameterSHA256: hex.EncodeToString(sum[:]), ClaimedAt: clock.Now()}
	return nil
}

// hold claims the key, or reads who has. It may be tried again: the claim has an id of its own.
func (o *order) hold(ctx context.Context) (k claimed, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.c.admitBudget)
	defer cancel()
	for pause := newPause(); ; {
		k.IdempotencyClaim, k.mine, k.rev, k.age, err = o.c.o.Bus.ClaimKey(ctx, o.req.User, o.hash, &o.claim)
		switch {
		case err == nil:
			return k, o.check(k)
		case errors.Is(err, faena.ErrFull):
			return k, full(err)
		case !transient(err), pause.wait(ctx) != nil:
			return k, queueError(err)
		}
	}
}

// check holds the call against what the key stands for.
func (o *order) check(k claimed) error {
	what := ""
	switch {
	case k.Function != o.claim.Function:
		what = fmt.Sprintf("a call of function %q", k.Function)
	case k.ParameterSHA256 != o.claim.ParameterSHA256:
		what = "a call with another parameter"
	default:
		return nil
	}
	e := faena.Invalid(faena.FieldError{Field: "Idempotency-Key", Message: "was used for " + what + "; take another key for this one"})
	e.Reason, e.Activation = reasonMismatch, k.ID
	return e
}

// admit admits the activation under the claim's id, and frees the key where it is refused. An error with reasonTaken means that
// somebody else has admitted it.
func (o *order) admit(ctx context.Context, k claimed) (faena.Record, error) {
	if k.Group != o.group { // the function runs elsewhere since: the id is for workers of the other group
		o.release(ctx, k)
		return faena.Record{}, inProgress(k)
	}
	failpoint.Hit("api/key-claimed")
	req := o.req
	req.ID = k.ID
	var r faena.Record
	var err error
	if o.note != nil {
		err = o.note(ctx, k.ID)
	}
	if err == nil {
		r, err = o.c.Activate(ctx, req)
	}
	if err != nil && o.nothingStored(ctx, k, err) {
		o.release(ctx, k)
	}
	return r, err
}

// nothingStored reports whether an error of Activate means that there is no activation. That is looked for: another instance may have
// admitted it meanwhile, where this one, or all of its host with its clock, has slept for long.
func (o *order) nothingStored(ctx context.Context, k claimed, err error) bool {
	if e, ok := asError(err); ok {
		ended := e.Reason == string(faena.ReasonNoWorker) && e.Activation != ""
		if e.OutcomeUnknown || ended || e.Reason == reasonTaken {
			return false
		}
		if e.Activation != "" { // its record says that it will not run
			return true
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.c.releaseFor)
	defer cancel()
	_, _, err = o.c.find(ctx, o.req.User, k.ID) // the caller may have gone away before admission, or after it
	return faena.IsKind(err, faena.KindNotFound)
}

// release frees the key. Where that cannot be, a call admits the activation faena.ClaimWithin later.
func (o *order) release(ctx context.Context, k claimed) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.c.releaseFor)
	defer cancel()
	for pause := newPause(); ; {
		err := o.c.o.Bus.DropKey(ctx, o.req.User, o.hash, k.rev)
		if err == nil {
			return
		}
		if pause.wait(ctx) != nil {
			o.c.log.Warn("the Idempotency-Key of a call that was refused could not be freed", "activation_id", k.ID, "error", err)
			return
		}
	}
}

// takeOver makes the claim of an API that must be dead this call's, so that one that only slept cannot free the key. An id that is too
// old for an activation is given up.
func (o *order) takeOver(ctx context.Context, k *claimed) (taken bool, err error) {
	if id, err := uuid.Parse(k.ID); err != nil || o.c.o.Bus.ServerNow().Sub(admitted(id)) > faena.IdempotencyTTL/2 {
		return false, queueError(o.c.o.Bus.DropKey(ctx, o.req.User, o.hash, k.rev))
	}
	rev, err := o.c.o.Bus.RenewKey(ctx, o.req.User, o.hash, &k.IdempotencyClaim, k.rev)
	if errors.Is(err, faena.ErrStale) || transient(err) {
		return false, nil // somebody else was first, or it is seen at the next look
	}
	if err != nil {
		return false, queueError(err)
	}
	k.rev = rev
	return true, nil
}

// find looks for the activation that the key stands for; KindNotFound where there is none, or it is not accepted yet: its record comes
// before its message. KindGone where it was removed.
func (o *order) find(ctx context.Context, k claimed) (faena.Record, error) {
	r, rev, err := o.c.find(ctx, o.req.User, k.ID)
	if faena.IsKind(err, faena.KindNotFound) && k.age > o.c.claimWithin {
		err = o.c.absent(ctx, k.ID, err)
	}
	if err != nil {
		return faena.Record{}, err
	}
	if r.State != faena.StateQueued || r.Attempt > 0 {
		return *r, nil
	}
	there, err := o.c.inPlace(ctx, r)
	if err == nil && !there {
		err = faena.NotFound("activation", k.ID)
		if k.age >= o.c.claimWithin { // nobody will publish it
			if lost := o.c.lose(ctx, r, rev); !errors.Is(lost, faena.ErrStale) {
				err = lost
			}
		}
	}
	return *r, queueError(err)
}

// replay answers with an activation that an earlier call has made.
func (o *order) replay(ctx context.Context, r faena.Record) (faena.Record, error) {
	if o.req.Async {
		return r, nil
	}
	end, err := o.c.attend(ctx, &r)
	if err != nil {
		return faena.Record{}, err
	}
	return *end, nil
}

// attend waits for the end of an activation that this call has not made, as await does, but decides nothing about it.
func (c *Control) attend(ctx context.Context, r *faena.Record) (*faena.Record, error) {
	place := *r
	place.ID += " by " + uuid.NewString() // no Completed is for it; it counts among those that wait when the instance stops
	w := c.waits.add(&place)
	defer c.waits.remove(place.ID)
	wait := time.NewTimer(c.syncWait)
	defer wait.Stop()
	for pause := 10 * time.Millisecond; !r.State.Terminal(); pause = min(2*pause, attendAtMost) {
		again := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			again.Stop()
			return nil, ctx.Err()
		case <-wait.C:
			again.Stop()
			return r, nil
		case <-c.waits.drained:
			again.Stop()
			return r, nil
		case <-w.again:
			again.Stop()
		case <-again.C:
		}
		now, _, err := c.find(ctx, r.User, r.ID)
		if faena.IsKind(err, faena.KindNotFound) { // its user was deleted
			return nil, err
		}
		if err == nil {
			r = now
		}
	}
	return ran(r)
}

// neverStarted reports whether an activation has ended before any worker started it, and not by its user's doing: the call may be
// made again with its key.
func neverStarted(r *faena.Record) bool {
	return r.State.Terminal() && r.Attempt == 0 && (r.Reason == faena.ReasonCancelled && r.Message == notConfirmed ||
		slices.Contains([]faena.Reason{faena.ReasonNoWorker, faena.ReasonExpired, faena.ReasonWorkerLost}, r.Reason))
}

// unanswered reports whether an error says that the queue did not answer.
func unanswered(err error) bool {
	return faena.IsKind(err, faena.KindUnavailable) && isReason(err, "queue_unavailable")
}

func isReason(err error, reason string) bool {
	e, ok := asError(err)
	return ok && e.Reason == reason
}

func inProgress(k claimed) error {
	return &faena.Error{Kind: faena.KindConflict, Reason: reasonInProgress, Component: faena.ComponentAPI, Activation: k.ID, Retryable: true,
		RetryAfter: time.Second, Message: "An earlier call with this key is being admitted, or its API has died: it may run or not. Try again with the same key."}
}
