package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"faena.dev/faena/internal/faena"
)

// reconcileAgain is how long a reconciliation that failed waits for the next try.
const reconcileAgain = 5 * time.Second

// reconciles reconciles every group now and after each lost connection, until ctx ends.
func (c *Control) reconciles(ctx context.Context) error {
	again := make(chan struct{}, 1)
	again <- struct{}{}
	ask := func() {
		select {
		case again <- struct{}{}:
		default:
		}
	}
	defer c.o.Bus.OnReconnect(ask)()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		}
		for _, group := range c.groups.names() {
			if err := c.reconcile(ctx, group); err != nil && ctx.Err() == nil {
				c.log.Warn("the bucket of live records could not be compared with the document store; it is tried again", "group", group, "error", err)
				time.AfterFunc(reconcileAgain, ask)
			}
		}
	}
}

// reconcile removes from a group's bucket what the document store has as ended. A server that was killed may bring back
// an earlier version of a record that was purged (ADR 7); nothing else would ever end it.
func (c *Control) reconcile(ctx context.Context, group string) error {
	live, err := c.o.Bus.LiveIDs(ctx, group)
	if err != nil {
		return err
	}
	removed := 0
	for user, ids := range live {
		for some := range slices.Chunk(ids, recordBatch) {
			ended, err := c.o.Documents.Recorded(ctx, user, some)
			if err != nil {
				return err
			}
			if err := c.removeRecorded(ctx, group, user, ended); err != nil {
				return err
			}
			removed += len(ended)
		}
	}
	if removed > 0 {
		c.log.Info("records of activations that had ended were removed from the bucket of live ones", "group", group, "records", removed)
	}
	return nil
}

// removeRecorded removes records that the document store has, and before each what belongs to it: the API that recorded them
// may have been killed before it came to that, and with the record gone nobody would.
func (c *Control) removeRecorded(ctx context.Context, group, user string, ids []string) error {
	var batch []faena.Record
	for _, id := range ids {
		r, _, err := c.o.Bus.Record(ctx, group, user, id)
		if err == nil {
			batch = append(batch, *r)
		} else if !faena.IsKind(err, faena.KindNotFound) && !errors.Is(err, faena.ErrSchema) {
			return err
		}
	}
	c.dropMessages(ctx, group, batch)
	c.dropParameters(ctx, group, batch)
	for _, id := range ids {
		if err := c.o.Bus.PurgeRecord(ctx, group, user, id); err != nil {
			return err
		}
	}
	return nil
}
