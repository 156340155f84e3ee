package control

import (
	"bytes"
	"context"
	"fmt"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// Activate admits an activation and, unless it is asynchronous, waits for its end. It returns the terminal record,
// or the record as it is for an asynchronous call, after faena.SyncWait, or when this instance stops. The errors
// are those of admission (nothing runs then, unless one says OutcomeUnknown), no_worker, and ctx's own where the
// caller went away: the activation goes on.
func (c *Control) Activate(ctx context.Context, req faena.ActivationRequest) (faena.Record, error) {
	fn, err := c.toRun(ctx, &req)
	if err != nil {
		return faena.Record{}, err
	}
	if err := c.checkParameter(&fn.revision.Spec, req.Parameter); err != nil {
		return faena.Record{}, err
	}
	a, err := c.admission(ctx, fn, req)
	if err != nil {
		c.refused(err)
		return faena.Record{}, err
	}
	var w *waiter
	if !req.Async {
		w = c.waits.add(a.record)
		defer c.waits.remove(a.record.ID)
	}
	if err := c.admit(ctx, a); err != nil {
		c.refused(err)
		return faena.Record{}, err
	}
	c.tally.touch(req.User)
	c.o.Observer.Admitted(a.record.Group, req.Async)
	if req.Async {
		return *a.record, nil
	}
	r, err := c.await(ctx, w, a.record)
	if err != nil {
		return faena.Record{}, err
	}
	failpoint.Hit("api/before-answer")
	return *r, nil
}

// admit admits, unless a backup keeps everything out for too long.
func (c *Control) admit(ctx context.Context, a *admission) error {
	if err := c.cut.enter(ctx, cutWait); err != nil {
		return err
	}
	defer c.cut.leave()
	return a.admit(ctx)
}

func (c *Control) refused(err error) {
	reason := "internal"
	if e, ok := asError(err); ok {
		reason = e.Reason
	}
	c.o.Observer.Refused(reason)
}

// admission makes the record and the message of an activation.
func (c *Control) admission(ctx context.Context, fn *deployed, req faena.ActivationRequest) (*admission, error) {
	spec := &fn.revision.Spec
	user, err := c.users.get(ctx, "", req.User)
	if err != nil {
		return nil, err
	}
	limit, ok := user.Limit(spec.Group)
	if !ok {
		return nil, &faena.Error{Kind: faena.KindForbidden, Reason: "group_not_granted", Component: faena.ComponentCaller,
			Message: fmt.Sprintf("Function %q runs in group %q, which is not granted to user %q any more.", req.Function, spec.Group, req.User)}
	}
	if err := c.gauge.admits(spec.Group); err != nil {
		return nil, err
	}
	id := req.ID
	if id == "" {
		if id, err = c.o.NewID(req.User, spec.Group); err != nil {
			return nil, fmt.Errorf("make an activation id: %w", err)
		}
	}
	below, instance, startWithin := limit, c.o.Instance, faena.SyncWait
	if req.Async {
		below, instance, startWithin = asyncShare(limit), "", c.o.AsyncStartWithin
	}
	if req.Expires > 0 {
		startWithin = req.Expires
	}
	r := &faena.Record{
		Schema: faena.SchemaVersion, ID: id, User: req.User, Group: spec.Group,
		Function: req.Function, Revision: fn.revision.Number, Digest: fn.revision.Digest,
		Traceparent: req.Traceparent, RequestID: req.RequestID, Instance: instance,
		RedrivenFrom: req.RedrivenFrom, Publication: 1, StartWithinMS: startWithin.Milliseconds(),
		State: faena.StateQueued, AdmittedAt: clock.Now(),
	}
	m := &faena.Message{Schema: faena.SchemaVersion, ID: r.ID, Revision: fn.revision,
		Parameter: faena.Blob{Size: int64(len(req.Parameter)), Inline: req.Parameter}}
	return &admission{c: c, slots: c.slots.of(spec.Group, req.User), backlog: c.backlogs.of(spec.Group, req.User), limit: limit, below: below,
		record: r, message: m, claimed: req.ID != ""}, nil
}

// checkParameter refuses what cannot be handed to the function's process.
func (c *Control) checkParameter(spec *faena.Spec, p []byte) error {
	if spec.Input != faena.InputStdin {
		if len(p) > faena.MaxArgBytes {
			return &faena.Error{Kind: faena.KindTooLarge, Reason: "parameter_too_large", Component: faena.ComponentCaller,
				Message: fmt.Sprintf("The parameter is %d bytes; as an argument it can be at most %d (a limit of Linux). "+
					"Deploy the function with input: stdin for larger ones.", len(p), faena.MaxArgBytes)}
		}
		if i := bytes.IndexByte(p, 0); i >= 0 {
			return faena.Invalid(faena.FieldError{Field: "parameter",
				Message: fmt.Sprintf("has a NUL byte at position %d, which no argument can carry; deploy the function with input: stdin", i)})
		}
	}
	if int64(len(p)) > c.o.MaxParameterBytes {
		return &faena.Error{Kind: faena.KindTooLarge, Reason: "parameter_too_large", Component: faena.ComponentCaller,
			Message: fmt.Sprintf("The parameter is %d bytes; this installation takes at most %d.", len(p), c.o.MaxParameterBytes)}
	}
	return nil
}
