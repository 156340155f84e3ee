package natsbus

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
)

// Heartbeat stores a worker's description; it expires after faena.HeartbeatTTL.
func (b *Bus) Heartbeat(ctx context.Context, w faena.Worker) error {
	data, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode a heartbeat: %w", err)
	}
	if _, err := b.store(ctx, &nats.Msg{Subject: workerSubject(w.Group, w.ID), Data: data}); err != nil {
		return fmt.Errorf("store the heartbeat of worker %s: %w", w.ID, err)
	}
	return nil
}

// RemoveHeartbeat says that a worker has gone.
func (b *Bus) RemoveHeartbeat(ctx context.Context, group, id string) error {
	return b.purge(ctx, bucketStream(workersBucket), workerSubject(group, id))
}

// Workers lists the workers whose heartbeat has not expired, of all groups, by group and id. One of a version that
// cannot be read is left out.
func (b *Bus) Workers(ctx context.Context) ([]faena.Worker, error) {
	stream := bucketStream(workersBucket)
	subjects, err := b.subjects(ctx, stream, bucketSubjects(workersBucket))
	if err != nil {
		return nil, err
	}
	found := make(chan faena.Worker, len(subjects))
	var reads errgroup.Group
	reads.SetLimit(parallel)
	for subject := range subjects {
		reads.Go(func() error {
			m, ok, err := b.last(ctx, stream, subject)
			var w faena.Worker
			if err == nil && ok && json.Unmarshal(m.Data, &w) == nil && checkSchema(w.Schema) == nil {
				found <- w
			}
			return err
		})
	}
	if err := reads.Wait(); err != nil {
		return nil, fmt.Errorf("read the heartbeats: %w", err)
	}
	close(found)
	out := make([]faena.Worker, 0, len(subjects))
	for w := range found {
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b faena.Worker) int { return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

// PutCounter writes a counter of a user as a plain integer, for whoever reads the bucket.
func (b *Bus) PutCounter(ctx context.Context, user, name string, n int64) error {
	if _, err := b.store(ctx, &nats.Msg{Subject: counterSubject(user, name), Data: strconv.AppendInt(nil, n, 10)}); err != nil {
		return fmt.Errorf("write counter %s of user %s: %w", name, user, err)
	}
	return nil
}
