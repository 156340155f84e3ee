package control

import (
	"context"
	"fmt"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// file puts into the backlog what a worker has put back for a later retry: only APIs publish. It may be called again for the same
// record, by several instances.
func (c *Control) file(ctx context.Context, r *faena.Record) error {
	rev, err := c.o.Documents.Revision(ctx, r.User, r.Function, r.Revision)
	if err != nil {
		return err
	}
	m := &faena.Message{Schema: faena.SchemaVersion, ID: r.ID, Revision: &rev, Parameter: *r.Parameter}
	if err := c.o.Bus.PublishBacklog(ctx, r.User, r.Group, r.Publication, m); err != nil {
		return fmt.Errorf("file activation %s: %w", r.ID, err)
	}
	failpoint.Hit("recorder/filed")
	return nil
}
