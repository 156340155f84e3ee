package natsbus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

const (
	// recorderAckWait is how long a batch may take before another API is given its records.
	recorderAckWait = time.Minute
	// recorderPause is how long records stay away that could not be recorded; it doubles up to recorderLongPause.
	recorderPause     = 500 * time.Millisecond
	recorderLongPause = 15 * time.Second
	// answerFor is how much later the server's answer to a pull may come; after that the pull counts as lost.
	answerFor = 2 * time.Second
	// unreadablePause is how long a record stays away that cannot be read.
	unreadablePause = 5 * time.Minute
)

// Terminal hands terminal records of a group to fn, in batches of at most batch that are gathered for wait, and purges
// those that fn has taken, until ctx ends. At least once: what fn was given comes again where it failed, or where this
// process ends before the purge. All APIs share one consumer. A record that cannot be decoded stays in the bucket: a
// warning is logged once, and it is offered again every unreadablePause, for an API that reads it.
//
// put is given each record that a worker has put back for a later retry (faena.Record.Parameter), to file it in the backlog, several
// at once. It may be given one again, also one that has changed meanwhile. Where it fails it is tried again, up to maxUnfiled of
// them by this process, any more by whoever is given them after recorderAckWait.
func (b *Bus) Terminal(ctx context.Context, group string, batch int, wait time.Duration, fn func(context.Context, []faena.Record) error,
	put func(context.Context, *faena.Record) error) error {
	r := recorder{b: b, group: group, fn: fn, inbox: b.nc.NewInbox(), filing: filing{put: put, unfiled: make(map[string]ended)}}
	var err error
	if r.sub, err = b.nc.SubscribeSync(r.inbox); err != nil {
		return fmt.Errorf("subscribe to the records of group %s: %w", group, err)
	}
	defer r.leave()
	for pause := recorderPause; ctx.Err() == nil; {
		var err error
		if again := r.failed; len(again) > 0 {
			r.failed = nil
			err = r.record(ctx, again)
		} else {
			err = r.batch(ctx, batch, wait)
		}
		if ctx.Err() == nil {
			r.fileAgain(ctx)
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
		pause = min(2*pause, recorderLongPause)
	}
	return nil
}

// recorder works through one group's bucket. Owned by one goroutine.
type recorder struct {
	b     *Bus
	group string
	fn    func(context.Context, []faena.Record) error
	// sub gets what all pulls bring. It is one for all, unlike in the library's fetches: what comes late, since the servers are
	// busy, would be lost there until recorderAckWait is over.
	inbox string
	sub   *nats.Subscription
	// failed could not be recorded, and is tried again after a pause. It is not handed back: see DESIGN.md.
	failed []ended
	filing // what is to be filed in the backlog
}

// leave hands back what has come and was not looked at.
func (r *recorder) leave() {
	for m, err := r.sub.NextMsg(0); err == nil; m, err = r.sub.NextMsg(0) {
		if !isStatus(m) {
			r.answer(m.Nak())
		}
	}
	for _, d := range r.failed {
		r.answer(d.msg.Nak())
	}
	for _, d := range r.unfiled {
		r.answer(d.msg.Nak())
	}
	_ = r.sub.Unsubscribe() // the connection may be closed
}

func isStatus(m *nats.Msg) bool { return len(m.Data) == 0 && m.Header.Get(headerStatus) != "" }

type ended struct {
	msg    *nats.Msg
	record *faena.Record
}

// batch waits until there is something, gathers for as long as wait, and then takes what there is, once or, while the
// bucket gives full batches, again and again. Versions of a record that are superseded while it gathers are never sent.
func (r *recorder) batch(ctx context.Context, size int, wait time.Duration) error {
	first, err := r.pull(ctx, 1, r.until(pullFor))
	if err != nil || len(first) == 0 {
		return err
	}
	select {
	case <-ctx.Done():
		r.answer(first[0].Nak())
		return nil
	case <-time.After(wait):
	}
	for done := r.take(nil, first[0]); ; done = nil {
		want := max(size-len(done), 1)
		msgs, err := r.pull(ctx, want, 0)
		if err != nil {
			r.b.log.Debug("a batch of records was cut short", "group", r.group, "error", err) // what came is recorded
		}
		for _, m := range msgs {
			done = r.take(done, m)
		}
		r.fileNew(ctx)
		if len(done) > 0 {
			if err := r.record(ctx, done); err != nil {
				return err
			}
		}
		if len(msgs) < want || ctx.Err() != nil {
			return nil
		}
	}
}

// pull asks for messages, and returns those that there are: up to n, or the first ones that come within a time. What earlier pulls
// have brought too late counts. With an error it returns what came before that.
func (r *recorder) pull(ctx context.Context, n int, within time.Duration) (msgs []*nats.Msg, err error) {
	body := fmt.Appendf(nil, `{"batch":%d,"no_wait":true}`, n)
	if within > 0 {
		body = fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, n, within)
	}
	if err := r.b.nc.PublishRequest(r.b.asked(pullSubject(recordsStream(r.group), recorderConsumer)), r.inbox, body); err != nil {
		return nil, fmt.Errorf("fetch records: %w", err)
	}
	for len(msgs) < n {
		limited, cancel := context.WithTimeout(ctx, within+answerFor)
		m, err := r.sub.NextMsgWithContext(limited)
		cancel()
		switch {
		case err == nil && !isStatus(m):
			msgs = append(msgs, m)
			continue
		case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
			return msgs, nil // the pull was lost, with a connection for example
		case err != nil:
			return msgs, fmt.Errorf("fetch records: %w", err)
		}
		if status := m.Header.Get(headerStatus); status != "404" && status != "408" { // neither that there is none, nor that none came
			err = fmt.Errorf("fetch records: the consumer, or the server that leads it, is away (status %s)", status)
		}
		return msgs, err
	}
	return msgs, nil
}

// take adds a message of a terminal record. A live record's message is acknowledged, its next version is another one, unless it is
// to be filed.
func (r *recorder) take(done []ended, m *nats.Msg) []ended {
	rec, err := r.b.recordAt(m.Subject, m.Data)
	switch {
	case err != nil:
		r.putBack(m, err)
	case rec.State.Terminal():
		r.superseded(m.Subject)
		done = append(done, ended{m, rec})
	case rec.Backlogged && rec.Parameter != nil && r.put != nil:
		r.fresh = append(r.fresh, ended{m, rec})
	default:
		r.superseded(m.Subject)
		r.answer(m.Ack())
	}
	return done
}

// putBack leaves a record in the bucket that this build cannot read.
func (r *recorder) putBack(m *nats.Msg, why error) {
	meta, err := m.Metadata()
	if err != nil {
		r.answer(err)
		return
	}
	what := describe(whereRecords, r.group, m.Subject, "", meta.Sequence.Stream, why)
	if r.b.unread.note(m.Subject, what) {
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
		r.failed = done
		return err
	}
	// Purged although ctx may have ended meanwhile: it is recorded.
	ctx = context.WithoutCancel(ctx)
	var purges errgroup.Group
	purges.SetLimit(parallel)
	var mu sync.Mutex
	for _, d := range done {
		purges.Go(func() error {
			if err := r.b.purge(ctx, recordsStream(r.group), d.msg.Subject); err != nil {
				mu.Lock()
				defer mu.Unlock()
				r.failed = append(r.failed, d)
				return err
			}
			failpoint.Hit("recorder/record-purged")
			r.answer(d.msg.Ack())
			return nil
		})
	}
	return purges.Wait()
}
