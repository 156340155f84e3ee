package natsbus

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
)

// maxUnfiled is how many records a recorder keeps that could not be filed. Each may have a parameter of faena.MaxInlineBytes.
const maxUnfiled = 64

// filing is what a recorder has to file in the backlog: what workers have put back for a later retry. What fails is kept apart from what
// could not be recorded, and keeps nothing from being recorded: it may be of one function, or for want of room. The other way round, while
// what has ended cannot be recorded no new record is looked at; the leader files what waits for that.
type filing struct {
	put     func(context.Context, *faena.Record) error
	fresh   []ended
	unfiled map[string]ended // by subject: what failed
	pause   time.Duration    // before it is tried again
	again   time.Time
}

// until is the time until something is to be tried again, at most most.
func (f *filing) until(most time.Duration) time.Duration {
	if len(f.unfiled) == 0 {
		return most
	}
	return max(time.Millisecond, min(most, time.Until(f.again)))
}

// fileNew files what was given last.
func (r *recorder) fileNew(ctx context.Context) {
	fresh := r.fresh
	r.fresh = nil
	r.file(ctx, fresh, r.fileOne)
	if len(r.unfiled) > 0 && r.pause == 0 {
		r.pause = recorderPause
		r.again = time.Now().Add(r.pause)
	}
}

// fileAgain tries again what is due.
func (r *recorder) fileAgain(ctx context.Context) {
	if len(r.unfiled) == 0 {
		r.pause = 0
		return
	}
	if time.Now().Before(r.again) {
		return
	}
	r.file(ctx, slices.Collect(maps.Values(r.unfiled)), func(ctx context.Context, d ended) error {
		if same, err := r.stands(ctx, d); err != nil || !same {
			return err
		}
		return r.fileOne(ctx, d)
	})
	r.pause = min(2*r.pause, recorderLongPause)
	r.again = time.Now().Add(r.pause)
}

// file gives each record to fn, several at once, and keeps those that fail.
func (r *recorder) file(ctx context.Context, records []ended, fn func(context.Context, ended) error) {
	var puts errgroup.Group
	puts.SetLimit(parallel)
	var mu sync.Mutex
	for _, d := range records {
		puts.Go(func() error {
			err := fn(ctx, d)
			mu.Lock()
			defer mu.Unlock()
			_, known := r.unfiled[d.msg.Subject]
			switch {
			case err == nil:
				r.answer(d.msg.Ack())
				delete(r.unfiled, d.msg.Subject)
			case known, len(r.unfiled) < maxUnfiled:
				r.unfiled[d.msg.Subject] = d
			}
			return err
		})
	}
	if err := puts.Wait(); err != nil && ctx.Err() == nil {
		r.b.log.Warn("activations could not be put into the backlog for their retry; they are tried again", "group", r.group, "error", err)
	}
}

func (r *recorder) fileOne(ctx context.Context, d ended) error { return r.put(ctx, d.record) }

// stands reports whether the bucket still has the record as it was given: another API, or the leader, may have filed it.
func (r *recorder) stands(ctx context.Context, d ended) (bool, error) {
	meta, err := d.msg.Metadata()
	if err != nil {
		return false, err
	}
	m, ok, err := r.b.last(ctx, recordsStream(r.group), d.msg.Subject)
	return ok && m.Sequence == meta.Sequence.Stream, err
}

// superseded forgets an older version of a record that a newer one was given of.
func (r *recorder) superseded(subject string) {
	if d, ok := r.unfiled[subject]; ok {
		r.answer(d.msg.Ack())
		delete(r.unfiled, subject)
	}
}
