package control

import (
	"context"
	"time"

	"faena.dev/faena/internal/faena"
)

// askFor bounds how long a call waits to hear whether its function was changed, while one is known that it could run.
const askFor = time.Second

// toRun is the function of a call, with the revision that it is to run.
func (c *Control) toRun(ctx context.Context, req *faena.ActivationRequest) (*deployed, error) {
	if req.Revision == 0 {
		return c.current(ctx, req.User, req.Function)
	}
	rev, err := c.o.Documents.Revision(ctx, req.User, req.Function, req.Revision)
	if err != nil {
		return nil, err
	}
	return &deployed{revision: &rev}, nil
}

// current is a function as it is when it is called: a change that another instance has answered for counts, also where its
// announcement has not come here. So the head is read, but where this is the only instance, whose own changes are known at once.
// While the store is away what is known is run: nothing can be changed then.
func (c *Control) current(ctx context.Context, user, name string) (*deployed, error) {
	known, err := c.functions.get(ctx, user, name)
	if err != nil || c.o.SingleHost || time.Now().UnixNano() < c.askAgain.Load() {
		return known, err
	}
	asking, cancel := context.WithTimeout(ctx, askFor)
	head, err := c.o.Documents.Function(asking, user, name)
	cancel()
	switch {
	case err == nil && head.Version == known.function.Version && head.CreatedAt.Equal(known.function.CreatedAt):
		return known, nil
	case err == nil:
		c.functions.forget(user, name)
		return c.functions.get(ctx, user, name)
	case faena.IsKind(err, faena.KindNotFound):
		c.functions.forget(user, name)
		return nil, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	c.askAgain.Store(time.Now().Add(awayPause).UnixNano())
	return known, nil
}
