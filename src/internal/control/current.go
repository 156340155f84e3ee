package control

import (
	"context"

	"faena.dev/faena/internal/faena"
)

// toRun is the function of a call, with the revision that it is to run. A change that another instance has answered for counts from
// when its announcement has come here, which takes the way of a message; one that was lost with a connection, from when the
// connection is back.
func (c *Control) toRun(ctx context.Context, req *faena.ActivationRequest) (*deployed, error) {
	if req.Revision == 0 {
		return c.functions.get(ctx, req.User, req.Function)
	}
	rev, err := c.o.Documents.Revision(ctx, req.User, req.Function, req.Revision)
	if err != nil {
		return nil, err
	}
	return &deployed{revision: &rev}, nil
}
