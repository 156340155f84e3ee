package natsbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
)

const (
	// recorderAckWait is how long a batch may take before another API is given its records.
	recorderAckWait = time.Minute
	// recorderPause is how long records stay away that could not be recorded; it doubles up to recorderLongPause.
	recorderPause     = 500 * time.Millisecond
	recorderLongPause = 15 * time.Second
)

// Terminal hands terminal records of a group to fn, in batches of at most batch that are gathered for at most wait, and
// purges those that fn has taken, until ctx ends. At least once: what fn was given comes again where it failed, or where
// this process ends before the purge. All APIs share one consumer.
func (b *Bus) Terminal(ctx context.Context, group string, batch int, wait time.Duration, fn func(context.Context, []faena.Record) error) error {
	consumer, err := b.js.Consumer(ctx, bucketStream(recordsBucket(group)), recorderConsumer)
	if err != nil {
		return fmt.Errorf("record group %s: %w", group, err)
	}
	r := recorder{b: b, group: group, fn: fn}
	for pause := recorderPause; ctx.Err() == nil; {
		err := r.batch(ctx, consumer, batch, wait)
		if err == nil {
			pause = recorderPause
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		b.log.Warn("ended activations could not be recorded; they stay in the queue and are tried again", "group", group, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, recorderLongPause)
	}
	return nil
}

// recorder works through one group's bucket. Owned by one goroutine.
type recorder struct {
	b     *Bus
	group string
	fn    func(context.Context, []faena.Record) error
}

type ended struct {
	msg    jetstream.Msg
	record *faena.Record
}

func (r *recorder) batch(ctx context.Context, consumer jetstream.Consumer, size int, wait time.Duration) error {
	first, err := consumer.Next(jetstream.FetchContext(ctx))
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, jetstream.ErrNoMessages):
		return nil
	case err != nil:
		return fmt.Errorf("fetch records: %w", err)
	}
	done := r.take(nil, first)
	more, err := consumer.Fetch(size-1, jetstream.FetchMaxWait(wait))
	if err == nil {
		for m := range more.Messages() {
			done = r.take(done, m)
		}
		err = more.Error()
	}
	if err != nil && !errors.Is(err, nats.ErrTimeout) {
		r.b.log.Debug("a batch of records was cut short", "group", r.group, "error", err) // what came is recorded
	}
	if len(done) == 0 {
		return nil
	}
	return r.record(ctx, done)
}

// take adds a message of a terminal record. A live record's message is acknowledged: its next version is another one.
func (r *recorder) take(done []ended, m jetstream.Msg) []ended {
	rec, err := decodeRecord(m.Data())
	switch {
	case err != nil && errors.Is(err, faena.ErrSchema):
		r.answer(m.NakWithDelay(recorderLongPause)) // for an API of another version
	case err != nil:
		r.b.log.Error("a record that cannot be read stays in the bucket", "subject", m.Subject(), "error", err)
		r.answer(m.Term())
	case !rec.State.Terminal():
		r.answer(m.Ack())
	default:
		done = append(done, ended{m, rec})
	}
	return done
}

func (r *recorder) answer(err error) {
	if err != nil {
		r.b.log.Debug("an answer to the recorder's consumer was lost", "error", err) // it comes again
	}
}

func (r *recorder) record(ctx context.Context, done []ended) error {
	records := make([]faena.Record, len(done))
	for i, d := range done {
		records[i] = *d.record
	}
	if err := r.fn(ctx, records); err != nil {
		for _, d := range done {
			r.answer(d.msg.NakWithDelay(recorderPause))
		}
		return err
	}
	// Purged although ctx may have ended meanwhile: it is recorded.
	ctx = context.WithoutCancel(ctx)
	var purges errgroup.Group
	purges.SetLimit(parallel)
	for _, d := range done {
		purges.Go(func() error {
			if err := r.b.purge(ctx, bucketStream(recordsBucket(r.group)), d.msg.Subject()); err != nil {
				r.answer(d.msg.NakWithDelay(recorderPause))
				return err
			}
			r.answer(d.msg.Ack())
			return nil
		})
	}
	return purges.Wait()
}
