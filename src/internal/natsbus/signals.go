package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"faena.dev/faena/internal/faena"
)

const (
	// maxLogAnswer bounds the log so far in one answer: its tail.
	maxLogAnswer = 512 << 10
	// logAnswerFor is how long the holder of an activation may take to answer; others do not answer.
	logAnswerFor = time.Second
)

// Complete tells the API that waits how an activation ended. A record that no API waits for is not sent.
func (b *Bus) Complete(_ context.Context, r *faena.Record) error {
	if r.Instance == "" {
		return nil
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", r.ID, err)
	}
	if err := b.nc.Publish(completedSubject(r.Instance, r.Group), data); err != nil {
		return fmt.Errorf("tell %s of the end of %s: %w", r.Instance, r.ID, err)
	}
	return nil
}

// Completed calls fn with each terminal record that is announced to an API's instance, until stop is called. One whose
// group is not the subject's, or which no API has admitted, is dropped: a worker may only speak for what its group was given.
func (b *Bus) Completed(instance string, fn func(*faena.Record)) (stop func(), err error) {
	return b.subscribe(completedSubjects(instance), func(m *nats.Msg) {
		r, err := decodeRecord(m.Data)
		switch {
		case err != nil:
			b.log.Warn("an announced end could not be read; the record will be", "error", err)
		case r.Group != lastToken(m.Subject) || !r.State.Terminal() || !b.admitted(r):
			b.log.Warn("an announced end is not of its group, or none", "activation_id", r.ID, "subject", m.Subject)
		default:
			fn(r)
		}
	})
}

// RequestCancel asks the worker that holds an activation to look at its record.
func (b *Bus) RequestCancel(_ context.Context, group, id string) error {
	return b.nc.Publish(cancelSubject(group, id), nil)
}

// Cancels calls fn with the id of each activation of the group whose cancellation is asked for, until stop is called.
func (b *Bus) Cancels(group string, fn func(id string)) (stop func(), err error) {
	return b.subscribe(cancelSubjects(group), func(m *nats.Msg) { fn(lastToken(m.Subject)) })
}

// RequestDrain asks a worker to take nothing more, or, with drain false, to take activations again. It is a hint: the worker's
// heartbeat says whether it has been heard.
func (b *Bus) RequestDrain(_ context.Context, worker string, drain bool) error {
	order := resumeOrder
	if drain {
		order = drainOrder
	}
	return b.nc.Publish(drainSubject(worker), []byte(order))
}

// Drains calls fn with each such request to a worker, until stop is called.
func (b *Bus) Drains(worker string, fn func(drain bool)) (stop func(), err error) {
	return b.subscribe(drainSubject(worker), func(m *nats.Msg) {
		switch string(m.Data) {
		case drainOrder:
			fn(true)
		case resumeOrder:
			fn(false)
		default:
			b.log.Warn("a worker was asked for something that it does not know", "subject", m.Subject)
		}
	})
}

// PublishLog sends a piece of a running activation's log that begins at offset. It does not wait.
func (b *Bus) PublishLog(group, user, id string, offset int64, data []byte) error {
	return b.nc.PublishMsg(&nats.Msg{Subject: logSubject(group, user, id), Data: data, Header: offsetHeader(offset)})
}

// FollowLog calls fn with pieces of an activation's log as they are sent, until stop is called. p is fn's only while it runs.
func (b *Bus) FollowLog(group, user, id string, fn func(offset int64, p []byte)) (stop func(), err error) {
	return b.subscribe(logSubject(group, user, id), func(m *nats.Msg) {
		if offset, ok := offsetOf(m); ok {
			fn(offset, m.Data)
		}
	})
}

// ServeLogs answers who asks for the log so far of what this worker holds, until stop is called.
func (b *Bus) ServeLogs(group string, fn func(id string) (offset int64, data []byte, ok bool)) (stop func(), err error) {
	return b.subscribe(logTailSubjects(group), func(m *nats.Msg) {
		offset, data, ok := fn(lastToken(m.Subject))
		if !ok || m.Reply == "" {
			return
		}
		if over := len(data) - maxLogAnswer; over > 0 {
			offset, data = offset+int64(over), data[over:]
		}
		if err := b.nc.PublishMsg(&nats.Msg{Subject: m.Reply, Data: data, Header: offsetHeader(offset)}); err != nil {
			b.log.Debug("a log could not be sent", "error", err)
		}
	})
}

// LogSoFar asks the worker that holds an activation for its log so far, or its tail; KindNotFound where none answers.
func (b *Bus) LogSoFar(ctx context.Context, group, id string) (offset int64, p []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, logAnswerFor)
	defer cancel()
	m, err := b.nc.RequestWithContext(ctx, logTailSubject(group, id), nil)
	if err != nil {
		return 0, nil, &faena.Error{Kind: faena.KindNotFound, Reason: "log_not_found", Component: faena.ComponentWorker,
			Message: "No worker holds the log of the activation.", Activation: id, Err: err}
	}
	offset, ok := offsetOf(m)
	if !ok {
		return 0, nil, errors.New("a worker answered with a log that has no offset")
	}
	return offset, m.Data, nil
}

func offsetHeader(offset int64) nats.Header {
	return nats.Header{headerOffset: {strconv.FormatInt(offset, 10)}}
}

func offsetOf(m *nats.Msg) (int64, bool) {
	n, err := strconv.ParseInt(m.Header.Get(headerOffset), 10, 64)
	return n, err == nil && n >= 0
}

// PublishChanged tells every API to forget what it remembers of a function or user.
func (b *Bus) PublishChanged(kind, user, name string) error {
	return b.nc.Publish(changedSubject(kind, user, name), nil)
}

// Changed calls fn for each change that is announced, by this API too, until stop is called.
func (b *Bus) Changed(fn func(kind, user, name string)) (stop func(), err error) {
	return b.subscribe(changedSubjects, func(m *nats.Msg) {
		if kind, user, name, ok := changeOf(m.Subject); ok {
			fn(kind, user, name)
		}
	})
}

// subscribe calls fn with each message, one after the other, until stop is called. Close waits for the last.
func (b *Bus) subscribe(subject string, fn nats.MsgHandler) (stop func(), err error) {
	s, err := b.nc.Subscribe(subject, fn)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	b.own(s)
	return func() {
		if err := s.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
			b.log.Warn("a subscription could not be ended", "subject", subject, "error", err)
		}
	}, nil
}

// own makes Close wait until a subscription's goroutine has ended. The channel is closed then.
func (b *Bus) own(s *nats.Subscription) <-chan struct{} {
	ended := make(chan struct{})
	b.wg.Add(1)
	end := sync.OnceFunc(func() {
		close(ended)
		b.wg.Done()
	})
	s.SetClosedHandler(func(string) { end() })
	if !s.IsValid() { // the connection was closed meanwhile: the handler may have been missed
		end()
	}
	return ended
}
