package control

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// pruneBatch is how many records are removed at once.
const pruneBatch = 500

// prune removes history that is older than the retention, and the oldest while there is more than its bytes, and what users have of
// dead letters beyond their number, until ctx ends.
func (c *Control) prune(ctx context.Context) {
	failing := false
	for {
		err := errors.Join(c.trimLetters(ctx), c.pruneNow(ctx, c.o.Bus.ServerNow()))
		if err != nil && !failing && ctx.Err() == nil {
			c.log.Warn("old history, or dead letters, could not be removed; it is tried again", "error", err)
		}
		failing = err != nil
		if sleep(ctx, c.pruneEvery) != nil {
			return
		}
	}
}

// trimLetters removes the oldest dead letters of users who have more than lettersMost in a group: one user's must not push out all
// others'. A group that does not answer hides no other.
func (c *Control) trimLetters(ctx context.Context) (failed error) {
	for _, group := range c.groups.names() {
		byUser, err := c.o.Bus.DeadLetterIDs(ctx, group, "")
		if err != nil {
			failed = err
		}
		for user, ids := range byUser {
			if len(ids) <= c.lettersMost {
				continue
			}
			n, err := c.o.Bus.TrimDeadLetters(ctx, group, user, c.lettersMost)
			if err != nil {
				failed = err
				continue
			}
			c.o.Observer.Trimmed(n)
			c.log.Warn("a user's oldest dead letters were removed: there were too many", "group", group, "user", user, "removed", n, "left", c.lettersMost)
		}
	}
	return failed
}

func (c *Control) pruneNow(ctx context.Context, now time.Time) error {
	if c.o.Retention > 0 {
		if _, err := c.pruneBefore(ctx, now.Add(-c.o.Retention)); err != nil {
			return err
		}
	}
	if c.o.RetentionBytes == 0 {
		return nil
	}
	for {
		stats, err := c.o.Documents.HistoryStats(ctx)
		if err != nil || stats.Bytes <= c.o.RetentionBytes || stats.Oldest.IsZero() {
			return err
		}
		before := stats.Oldest.Truncate(time.Hour).Add(time.Hour)
		if before.After(now) { // what is left is of this hour
			return nil
		}
		if n, err := c.pruneBefore(ctx, before); err != nil || n == 0 { // none: another leader was here
			return err
		}
	}
}

// pruneBefore removes what was admitted before an hour, and the objects that belong to it. What is cut off between the two is
// removed by its age. It returns how many records were removed.
func (c *Control) pruneBefore(ctx context.Context, before time.Time) (total int, err error) {
	defer c.horizon.forget()
	for more := true; more; {
		removed, err := c.o.Documents.Prune(ctx, before, pruneBatch)
		failpoint.Hit("leader/history-removed")
		c.dropResults(ctx, removed) // also of what was removed before it failed
		if err != nil {
			return total, err
		}
		c.o.Observer.Pruned(len(removed))
		total += len(removed)
		more = len(removed) == pruneBatch
	}
	if total > 0 {
		c.log.Info("old history was removed", "records", total, "admitted_before", before.UTC().Truncate(time.Hour))
	}
	return total, nil
}

// dropResults deletes the objects of records that were removed, whatever ends meanwhile: nobody else knows of them.
func (c *Control) dropResults(ctx context.Context, removed []faena.Record) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropFor)
	defer cancel()
	for i := range removed {
		r := &removed[i]
		if _, known := c.groups.get(r.Group); !known {
			continue // they went with the group
		}
		for _, object := range []string{r.Result.Object, r.Log.Object} {
			if object == "" {
				continue
			}
			if err := c.deleteObject(ctx, r.Group, object); err != nil {
				c.logOf(r).Warn("a result or log stays until it is too old", "object", object, "error", err)
			}
		}
	}
}

// absent is the error for an activation that is nowhere: KindGone where it is from before what is kept.
func (c *Control) absent(ctx context.Context, id string, notFound error) error {
	key, err := uuid.Parse(id)
	if err != nil {
		return notFound
	}
	since, err := c.horizon.get(ctx, c.o.Documents)
	if err != nil || !admitted(key).Before(since) {
		return notFound
	}
	return &faena.Error{Kind: faena.KindGone, Reason: "activation_expired", Component: faena.ComponentStore, Activation: id,
		Message: "Activations from before " + since.UTC().Format(time.RFC3339) + " were removed, with their results and logs."}
}

// horizon remembers for horizonFor from when on the history is kept: anybody may ask for ids that are nowhere.
type horizon struct {
	mu    sync.Mutex
	since time.Time
	read  time.Time // zero: it is not known
}

// horizonFor is how long another instance's pruning may go unnoticed here.
const horizonFor = 30 * time.Second

func (h *horizon) get(ctx context.Context, documents faena.Documents) (time.Time, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.read) < horizonFor {
		return h.since, nil
	}
	stats, err := documents.HistoryStats(ctx)
	if err != nil {
		return time.Time{}, err
	}
	h.since, h.read = stats.Horizon, time.Now()
	return h.since, nil
}

func (h *horizon) forget() {
	h.mu.Lock()
	h.read = time.Time{}
	h.mu.Unlock()
}
