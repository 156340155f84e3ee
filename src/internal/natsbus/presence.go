package natsbus

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

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

// RemoveHeartbeat says that a worker has gone. It leaves a mark, which expires as a heartbeat does: a worker may not purge.
func (b *Bus) RemoveHeartbeat(ctx context.Context, group, id string) error {
	_, err := b.store(ctx, &nats.Msg{Subject: workerSubject(group, id), Header: nats.Header{headerOperation: {"DEL"}}})
	if err != nil {
		return fmt.Errorf("remove the heartbeat of worker %s: %w", id, err)
	}
	return nil
}

// Workers lists the workers whose heartbeat has not expired, of all groups, by group and id. One of a version that
// cannot be read is left out.
func (b *Bus) Workers(ctx context.Context) ([]faena.Worker, error) {
	beats, err := b.heartbeats(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]faena.Worker, len(beats))
	for i := range beats {
		out[i] = beats[i].worker
	}
	return out, nil
}

// Clocks tells how far the clock of this process (Of is ""), and those of the workers, are ahead of the servers'.
func (b *Bus) Clocks(ctx context.Context) ([]faena.ClockDifference, error) {
	out := []faena.ClockDifference{{Ahead: time.Since(b.ServerNow())}}
	beats, err := b.heartbeats(ctx)
	if err != nil {
		return nil, err
	}
	for _, beat := range beats {
		w := &beat.worker
		out = append(out, faena.ClockDifference{Of: "worker " + w.Group + "/" + w.ID, Ahead: w.SeenAt.Sub(beat.stored)})
	}
	return out, nil
}

// heartbeat is what a worker says, and when the server stored it.
type heartbeat struct {
	worker faena.Worker
	stored time.Time
}

func (b *Bus) heartbeats(ctx context.Context) ([]heartbeat, error) {
	stream := bucketStream(workersBucket)
	subjects, err := b.subjects(ctx, stream, bucketSubjects(workersBucket))
	if err != nil {
		return nil, err
	}
	found := make(chan heartbeat, len(subjects))
	var reads errgroup.Group
	reads.SetLimit(parallel)
	for subject := range subjects {
		reads.Go(func() error {
			m, ok, err := b.last(ctx, stream, subject)
			h := heartbeat{stored: m.Time}
			if err != nil || !ok || json.Unmarshal(m.Data, &h.worker) != nil || checkSchema(h.worker.Schema) != nil {
				return err
			}
			if subject == workerSubject(h.worker.Group, h.worker.ID) { // a worker speaks for itself and its group only
				found <- h
			}
			return nil
		})
	}
	if err := reads.Wait(); err != nil {
		return nil, fmt.Errorf("read the heartbeats: %w", err)
	}
	close(found)
	out := make([]heartbeat, 0, len(subjects))
	for h := range found {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b heartbeat) int {
		return cmp.Or(cmp.Compare(a.worker.Group, b.worker.Group), cmp.Compare(a.worker.ID, b.worker.ID))
	})
	return out, nil
}

// PutCounter writes a counter of a user as a plain integer, for whoever reads the bucket.
func (b *Bus) PutCounter(ctx context.Context, user, name string, n int64) error {
	if _, err := b.store(ctx, &nats.Msg{Subject: counterSubject(user, name), Data: strconv.AppendInt(nil, n, 10)}); err != nil {
		return fmt.Errorf("write counter %s of user %s: %w", name, user, err)
	}
	return nil
}
