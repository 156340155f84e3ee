package control

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"faena.dev/faena/internal/faena"
)

func asError(err error) (*faena.Error, bool) { return errors.AsType[*faena.Error](err) }

// find looks for an activation in the buckets, then in the store, then once more in the buckets: a record that is
// recorded between the first two looks is in neither's answer otherwise. An end that is in the store counts, whatever a
// bucket says (see reconcile), or does not say. rev is 0 for one from the store.
func (c *Control) find(ctx context.Context, user, id string) (r *faena.Record, rev uint64, err error) {
	r, rev, err = c.findLive(ctx, user, id)
	stored, storeErr := c.o.Documents.Activation(ctx, user, id)
	switch {
	case storeErr == nil:
		return &stored, 0, nil
	case err == nil: // live, or not recorded yet, as far as anybody knows while the store is away
		return r, rev, nil
	case !faena.IsKind(err, faena.KindNotFound):
		return nil, 0, err
	case !faena.IsKind(storeErr, faena.KindNotFound):
		return nil, 0, storeErr
	}
	return c.findLive(ctx, user, id)
}

// findLive looks into the buckets, those of the user's own groups first.
func (c *Control) findLive(ctx context.Context, user, id string) (*faena.Record, uint64, error) {
	profile, _ := c.users.get(ctx, "", user) // without one the order is another, no more
	groups := slices.Clone(c.groups.names())
	slices.SortStableFunc(groups, func(a, b string) int {
		return cmp.Compare(profile.Groups[b], profile.Groups[a])
	})
	var silent error // of a bucket that does not answer; where two do not the others are not asked
	for _, group := range groups {
		r, rev, err := c.o.Bus.Record(ctx, group, user, id)
		switch {
		case err == nil:
			return r, rev, nil
		case faena.IsKind(err, faena.KindNotFound), errors.Is(err, faena.ErrUnreadable): // what a worker makes up counts for nothing
		case silent != nil || ctx.Err() != nil:
			return nil, 0, queueError(err)
		default:
			silent = queueError(err)
		}
	}
	if silent != nil {
		return nil, 0, silent
	}
	return nil, 0, faena.NotFound("activation", id)
}

// queueError gives a bus error without a meaning that of a queue that is away.
func queueError(err error) error {
	if _, ok := asError(err); ok || err == nil {
		return err
	}
	return faena.Unavailable(faena.ComponentQueue, "queue_unavailable", "The queue does not answer. Try again.", err)
}

// Activation returns the record of one of the user's activations, live or ended; KindNotFound where there is none, KindGone
// where it would be from before what is kept.
func (c *Control) Activation(ctx context.Context, user, id string) (faena.Record, error) {
	if !faena.ValidActivationID(id) {
		return faena.Record{}, faena.NotFound("activation", id)
	}
	r, _, err := c.find(ctx, user, id)
	if faena.IsKind(err, faena.KindNotFound) {
		return faena.Record{}, c.absent(ctx, id, err)
	}
	if err != nil {
		return faena.Record{}, err
	}
	return *r, nil
}

// Activations returns a page of the user's activations, newest first, live ones included, without the bytes of results
// and logs.
func (c *Control) Activations(ctx context.Context, q faena.HistoryQuery) ([]faena.Record, error) {
	// Live ones first: one that is recorded in between is then in both lists, not in neither.
	byID := make(map[string]faena.Record)
	for _, group := range c.groups.names() {
		live, err := c.o.Bus.LiveRecords(ctx, group, q.User)
		if err != nil {
			return nil, queueError(err)
		}
		for _, r := range live {
			if (q.Before == "" || r.ID < q.Before) && (q.Function == "" || r.Function == q.Function) && (q.State == "" || r.State == q.State) {
				r.Result.Inline, r.Log.Inline = nil, nil
				byID[r.ID] = *r
			}
		}
	}
	stored, err := c.o.Documents.Activations(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, r := range stored {
		byID[r.ID] = r
	}
	out := make([]faena.Record, 0, len(byID))
	for _, r := range byID {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b faena.Record) int { return cmp.Compare(b.ID, a.ID) })
	return out[:min(len(out), q.Limit)], nil
}

// Result returns an ended activation and the bytes of its result. KindConflict with reason not_ended where it has
// not ended, KindGone where the result has expired.
func (c *Control) Result(ctx context.Context, user, id string) (faena.Record, []byte, error) {
	r, err := c.Activation(ctx, user, id)
	if err != nil {
		return r, nil, err
	}
	if !r.State.Terminal() {
		return r, nil, &faena.Error{Kind: faena.KindConflict, Reason: "not_ended", Component: faena.ComponentCaller,
			Message: "The activation is " + string(r.State) + ": it has no result yet.", Retryable: true, RetryAfter: time.Second, Activation: id}
	}
	p, err := c.ResultOf(ctx, &r)
	return r, p, err
}

// ResultOf returns the bytes of a terminal record's result; KindGone where it was an object that has expired.
func (c *Control) ResultOf(ctx context.Context, r *faena.Record) ([]byte, error) {
	return c.bytes(ctx, r, r.Result, "result")
}

// Logs returns an activation with the log kept of it: all of it, or its tail. Of one that runs it is the log so far.
func (c *Control) Logs(ctx context.Context, user, id string) (faena.Record, []byte, error) {
	r, err := c.Activation(ctx, user, id)
	if err != nil {
		return r, nil, err
	}
	if r.State == faena.StateRunning {
		if _, p, err := c.o.Bus.LogSoFar(ctx, r.Group, id); err == nil {
			return r, p, nil
		}
		if r, err = c.Activation(ctx, user, id); err != nil { // it may have ended meanwhile
			return r, nil, err
		}
	}
	p, err := c.bytes(ctx, &r, r.Log, "log")
	return r, p, err
}

func (c *Control) bytes(ctx context.Context, r *faena.Record, b faena.Blob, what string) ([]byte, error) {
	if b.Object == "" {
		return b.Inline, nil
	}
	p, err := c.o.Bus.Object(ctx, r.Group, b.Object)
	if _, known := c.groups.get(r.Group); faena.IsKind(err, faena.KindNotFound) || err != nil && !known {
		return nil, &faena.Error{Kind: faena.KindGone, Reason: what + "_expired", Component: faena.ComponentStore,
			Message: "The " + what + " of the activation has expired and was removed.", Activation: r.ID}
	}
	return p, queueError(err)
}
