package natsbus

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	// unreadablePause is how long a record stays away that cannot be read.
	unreadablePause = 5 * time.Minute
)

// Terminal hands terminal records of a group to fn, in batches of at most batch that are gathered for wait, and purges
// those that fn has taken, until ctx ends. At least once: what fn was given comes again where it failed, or where this
// process ends before the purge. All APIs share one consumer. A record that cannot be decoded stays in the bucket: a
// warning is logged once, and it is offered again every unreadablePause, for an API that reads it.
func (b *Bus) Terminal(ctx context.Context, group string, batch int, wait time.Duration, fn func(context.Context, []faena.Record) error) error {
	r := recorder{b: b, group: group, fn: fn}
	var consumer jetstream.Consumer // nil until the servers have told of it
	for pause := recorderPause; ctx.Err() == nil; {
		var err error
		if consumer == nil {
			consumer, err = b.js.Consumer(ctx, recordsStream(group), recorderConsumer)
		}
		if err == nil {
			err = r.batch(ctx, consumer, batch, wait)
		}
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
		r.handBack()
		pause = min(2*pause, recorderLongPause)
	}
	return nil
}

// recorder works through one group's bucket. Owned by one goroutine.
type recorder struct {
	b     *Bus
	group string
	fn    func(context.Context, []faena.Record) error
	// failed could not be recorded. They are held through the pause and handed back after it: of messages that are handed
	// back with a delay the server (2.15.2) at times keeps the last one, see DESIGN.md.
	failed []jetstream.Msg
}

func (r *recorder) handBack() {
	for _, m := range r.failed {
		r.answer(m.Nak())
	}
	r.failed = nil
}

type ended struct {
	msg    jetstream.Msg
	record *faena.Record
}

// batch waits until there is something, gathers for as long as wait, and then takes what there is, once or, while the
// bucket gives full batches, again and again. Versions of a record that are superseded while it gathers are never sent.
func (r *recorder) batch(ctx context.Context, consumer jetstream.Consumer, size int, wait time.Duration) error {
	first, err := consumer.Next(jetstream.FetchContext(ctx))
	switch {
	case ctx.Err() != nil:
		if err == nil {
			r.answer(first.Nak())
		}
		return nil
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, jetstream.ErrNoMessages):
		return nil
	case err != nil:
		return fmt.Errorf("fetch records: %w", err)
	}
	select {
	case <-ctx.Done():
		r.answer(first.Nak())
		return nil
	case <-time.After(wait):
	}
	for done := r.take(nil, first); ; done = nil {
		done, full, err := r.fetch(done, consumer, size)
		if err != nil {
			r.b.log.Debug("a batch of records was cut short", "group", r.group, "error", err) // what came is recorded
		}
		if len(done) > 0 {
			if err := r.record(ctx, done); err != nil {
				return err
			}
		}
		if !full || ctx.Err() != nil {
			return nil
		}
	}
}

// fetch adds what there is, up to size; full says that there may be more.
func (r *recorder) fetch(done []ended, consumer jetstream.Consumer, size int) (_ []ended, full bool, err error) {
	want := max(size-len(done), 1)
	batch, err := consumer.FetchNoWait(want)
	if err != nil {
		return done, false, err
	}
	got := 0
	for m := range batch.Messages() {
		got++
		done = r.take(done, m)
	}
	return done, got == want, batch.Error()
}

// take adds a message of a terminal record. A live record's message is acknowledged: its next version is another one.
func (r *recorder) take(done []ended, m jetstream.Msg) []ended {
	rec, err := r.b.recordAt(m.Subject(), m.Data())
	switch {
	case err != nil:
		r.putBack(m, err)
	case !rec.State.Terminal():
		r.answer(m.Ack())
	default:
		done = append(done, ended{m, rec})
	}
	return done
}

// putBack leaves a record in the bucket that this build cannot read.
func (r *recorder) putBack(m jetstream.Msg, why error) {
	meta, err := m.Metadata()
	if err != nil {
		r.answer(err)
		return
	}
	what := describe(whereRecords, r.group, m.Subject(), "", meta.Sequence.Stream, why)
	if r.b.unread.note(m.Subject(), what) {
		r.b.log.Warn("a record that cannot be read stays in the bucket: it is not lost, faena doctor lists it", "activation_id", what.ID,
			"group", r.group, "user", what.User, "error", why)
	}
	r.answer(m.NakWithDelay(unreadablePause))
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
			r.failed = append(r.failed, d.msg)
		}
		return err
	}
	// Purged although ctx may have ended meanwhile: it is recorded.
	ctx = context.WithoutCancel(ctx)
	var purges errgroup.Group
	purges.SetLimit(parallel)
	var mu sync.Mutex
	for _, d := range done {
		purges.Go(func() error {
			if err := r.b.purge(ctx, recordsStream(r.group), d.msg.Subject()); err != nil {
				mu.Lock()
				defer mu.Unlock()
				r.failed = append(r.failed, d.msg)
				return err
			}
			r.answer(d.msg.Ack())
			return nil
		})
	}
	return purges.Wait()
}
