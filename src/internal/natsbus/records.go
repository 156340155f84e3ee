package natsbus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
)

// parallel is how many requests a list or a purge has in flight.
const parallel = 8

// CreateRecord stores a record that must not exist and returns its revision; KindConflict where another does.
// faena.ErrRetry and faena.ErrUnknown are outcomes of one try; a second try of the same record finds the first.
func (b *Bus) CreateRecord(ctx context.Context, r *faena.Record) (uint64, error) {
	rev, err := b.putRecord(ctx, r, 0)
	if errors.Is(err, faena.ErrStale) {
		return 0, &faena.Error{Kind: faena.KindConflict, Reason: "record_exists", Component: faena.ComponentQueue,
			Message: "There is a record " + r.ID + " already.", Err: err}
	}
	if err != nil {
		return 0, fmt.Errorf("create record %s: %w", r.ID, err)
	}
	return rev, nil
}

// UpdateRecord replaces the record at revision rev. faena.ErrStale is a definite mismatch: the leader was asked, and
// what stands there is not what was to be written. After faena.ErrUnknown it may have been stored.
func (b *Bus) UpdateRecord(ctx context.Context, r *faena.Record, rev uint64) (uint64, error) {
	next, err := b.putRecord(ctx, r, rev)
	if err != nil {
		return 0, fmt.Errorf("update record %s: %w", r.ID, err)
	}
	return next, nil
}

// putRecord stores a record where the bucket holds revision rev of it, 0 for none.
func (b *Bus) putRecord(ctx context.Context, r *faena.Record, rev uint64) (uint64, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return 0, fmt.Errorf("encode: %w", err)
	}
	b.anchors.recorded(r.Group, len(data))
	return b.swap(ctx, recordsStream(r.Group), recordSubject(r.Group, r.User, r.ID), data, rev)
}

// swap is a compare-and-set: data is stored where the subject's last message is rev, or, with 0, where there is none. No two
// writers may write the same data at the same revision.
func (b *Bus) swap(ctx context.Context, stream, subject string, data []byte, rev uint64) (uint64, error) {
	next, err := b.storeIf(ctx, subject, data, rev)
	if !errors.Is(err, faena.ErrStale) {
		return next, err
	}
	// After a change of leader the server may say so of a write that is our own: the leader decides.
	m, ok, readErr := b.last(ctx, stream, subject)
	switch {
	case readErr != nil:
		return 0, fmt.Errorf("%w: %w", faena.ErrUnknown, readErr)
	case ok && m.Sequence > rev && bytes.Equal(m.Data, data):
		return m.Sequence, nil
	case m.Sequence == rev: // nothing, where nothing was expected, too
		return 0, fmt.Errorf("%w: refused although nothing has changed: %s", faena.ErrRetry, err.Error())
	}
	return 0, err
}

// Record reads a record from the leader, with its revision; KindNotFound where it is absent, faena.ErrSchema in an error of
// KindUnavailable where another version has written it.
func (b *Bus) Record(ctx context.Context, group, user, id string) (*faena.Record, uint64, error) {
	r, m, err := b.record(ctx, group, user, id)
	return r, m.Sequence, err
}

// RecordAge reads like Record, and tells how long ago the record was last changed, by the server's clock.
func (b *Bus) RecordAge(ctx context.Context, group, user, id string) (*faena.Record, uint64, time.Duration, error) {
	r, m, err := b.record(ctx, group, user, id)
	return r, m.Sequence, max(0, b.ServerNow().Sub(m.Time)), err
}

func (b *Bus) record(ctx context.Context, group, user, id string) (*faena.Record, stored, error) {
	m, ok, err := b.last(ctx, recordsStream(group), recordSubject(group, user, id))
	if err != nil {
		return nil, stored{}, fmt.Errorf("read record %s: %w", id, err)
	}
	if !ok {
		return nil, stored{}, faena.NotFound("activation", id)
	}
	r, err := b.recordAt(m.Subject, m.Data)
	if err != nil {
		return nil, stored{}, fmt.Errorf("read record %s: %w", id, unknownSchema(id, err))
	}
	return r, m, nil
}

// PurgeRecord removes the key without a marker; one that is absent is no error.
func (b *Bus) PurgeRecord(ctx context.Context, group, user, id string) error {
	return b.purge(ctx, recordsStream(group), recordSubject(group, user, id))
}

// purgeRequest is what of a stream is to be removed.
type purgeRequest struct {
	Filter string `json:"filter"`
	Before uint64 `json:"seq,omitempty"` // a sequence; 0 is all
}

func (b *Bus) purge(ctx context.Context, stream, subject string) error {
	return b.purgeWhat(ctx, stream, purgeRequest{Filter: subject})
}

// purgeAt removes what stands under a subject of a bucket, where it still stands at revision rev.
func (b *Bus) purgeAt(ctx context.Context, stream, subject string, rev uint64) error {
	if rev == 0 {
		return nil
	}
	return b.purgeWhat(ctx, stream, purgeRequest{Filter: subject, Before: rev + 1})
}

func (b *Bus) purgeWhat(ctx context.Context, stream string, what purgeRequest) error {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	if err := b.ask(ctx, api("STREAM.PURGE", stream), what, nil); err != nil {
		return fmt.Errorf("purge %s: %w", what.Filter, outcome(err))
	}
	return nil
}

// LiveIDs lists what a group's bucket holds: ids of activations by user. Those that no API has made are left out.
func (b *Bus) LiveIDs(ctx context.Context, group string) (map[string][]string, error) {
	subjects, err := b.subjects(ctx, recordsStream(group), recordSubjects(group))
	if err != nil {
		return nil, err
	}
	live := make(map[string][]string)
	for s := range subjects {
		if user, id, ok := recordOf(s); ok && b.made(user, group, id) {
			live[user] = append(live[user], id)
		}
	}
	return live, nil
}

// LiveRecords lists what the bucket holds of a user: live records, and ended ones that are not recorded yet. What cannot be
// read is left out: see Unreadable.
func (b *Bus) LiveRecords(ctx context.Context, group, user string) ([]*faena.Record, error) {
	stream := recordsStream(group)
	subjects, err := b.subjects(ctx, stream, recordsOf(group, user))
	if err != nil {
		return nil, err
	}
	found := make([]*faena.Record, len(subjects))
	var reads errgroup.Group
	reads.SetLimit(parallel)
	i := 0
	for subject := range subjects {
		slot := &found[i]
		i++
		reads.Go(func() error {
			m, ok, err := b.last(ctx, stream, subject)
			if err != nil || !ok { // purged since it was listed
				return err
			}
			*slot, _ = b.recordAt(subject, m.Data)
			return nil
		})
	}
	if err := reads.Wait(); err != nil {
		return nil, fmt.Errorf("list records of user %s: %w", user, err)
	}
	out := found[:0]
	for _, r := range found {
		if r != nil {
			out = append(out, r)
		}
	}
	return out, nil
}
