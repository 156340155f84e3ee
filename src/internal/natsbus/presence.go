package natsbus

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
)

// maxPlaces is more than any host has: what workers say of their places is added up.
const maxPlaces = 1 << 20

// beatsAtOnce is how many heartbeats of one group are read at once.
const beatsAtOnce = 4

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

// Workers lists the workers whose heartbeat has not expired, of all groups that were declared, by group and id. One of a version
// that cannot be read is left out, and so is a group whose bucket does not answer, unless none does.
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

// heartbeats looks at all groups at once, each by itself: what one of them has stored, or that it does not answer, hides no other.
func (b *Bus) heartbeats(ctx context.Context) ([]heartbeat, error) {
	groups := b.declared()
	found := make([][]heartbeat, len(groups))
	var silent atomic.Int64
	var looks errgroup.Group
	looks.SetLimit(faena.MaxGroups)
	for i, group := range groups {
		looks.Go(func() (err error) {
			if found[i], err = b.heartbeatsOf(ctx, group); err != nil {
				silent.Add(1)
				b.log.Debug("the heartbeats of a group could not be read", "group", group, "error", err) // Streams says why
			}
			return err
		})
	}
	if err := looks.Wait(); err != nil && int(silent.Load()) == len(groups) {
		return nil, fmt.Errorf("read the heartbeats: %w", err)
	}
	return slices.Concat(found...), nil
}

// heartbeatsOf reads those of one group, by id.
func (b *Bus) heartbeatsOf(ctx context.Context, group string) ([]heartbeat, error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	stream := workersStream(group)
	subjects, err := b.subjects(ctx, stream, bucketSubjects(workersBucket(group)))
	if err != nil {
		return nil, err
	}
	found := make(chan heartbeat, len(subjects))
	var reads errgroup.Group
	reads.SetLimit(beatsAtOnce)
	for subject := range subjects {
		reads.Go(func() error {
			m, ok, err := b.last(ctx, stream, subject)
			if err != nil || !ok {
				return err
			}
			if w, ok := beatAt(subject, m.Data); ok {
				found <- heartbeat{worker: w, stored: m.Time}
			}
			return nil
		})
	}
	if err := reads.Wait(); err != nil {
		return nil, err
	}
	close(found)
	out := make([]heartbeat, 0, len(subjects))
	for h := range found {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b heartbeat) int { return cmp.Compare(a.worker.ID, b.worker.ID) })
	return out, nil
}

// beatAt decodes the heartbeat under a subject. ok is false for one of another version, one that means nothing, and one of another
// worker or group than its key says: a worker speaks for itself and its group only.
func beatAt(subject string, p []byte) (w faena.Worker, ok bool) {
	ok = json.Unmarshal(p, &w) == nil && checkSchema(w.Schema) == nil && subject == workerSubject(w.Group, w.ID) &&
		w.Places >= 0 && w.Places <= maxPlaces && w.Busy >= 0
	return w, ok
}

// PutCounter writes a counter of a user as a plain integer, for whoever reads the bucket.
func (b *Bus) PutCounter(ctx context.Context, user, name string, n int64) error {
	if _, err := b.store(ctx, &nats.Msg{Subject: counterSubject(user, name), Data: strconv.AppendInt(nil, n, 10)}); err != nil {
		return fmt.Errorf("write counter %s of user %s: %w", name, user, err)
	}
	return nil
}
