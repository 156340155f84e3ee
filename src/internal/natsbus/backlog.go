package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"faena.dev/faena/internal/faena"
)

// PublishBacklog makes one try to put an activation's message into the backlog of its user. It is stored once, and keeps its place,
// however often and however much later it is tried: where that publication stands there already it is success; where another one does,
// which is about to be deleted, it is faena.ErrRetry. faena.ErrFull and faena.ErrRetry mean that nothing was stored; after
// faena.ErrUnknown only the same try may be repeated.
func (b *Bus) PublishBacklog(ctx context.Context, user, group string, publication int, m *faena.Message) error {
	data, err := b.code.encode(m)
	if err == nil {
		err = b.putBacklog(ctx, &nats.Msg{Subject: backlogSubject(group, user, m.ID), Data: data,
			Header: nats.Header{headerMsgID: {messageID(m.ID, publication)}, headerExpected: {strconv.Itoa(0)}}}, group)
	}
	if err != nil {
		return fmt.Errorf("put activation %s into the backlog: %w", m.ID, err)
	}
	return nil
}

// putBacklog stores m where nothing stands under its subject. The id of the message alone would not do: the server remembers it for
// duplicateWindow, and a second message would take the place of the first, at the end of the queue.
func (b *Bus) putBacklog(ctx context.Context, m *nats.Msg, group string) error {
	_, err := b.store(ctx, m)
	if !errors.Is(err, faena.ErrStale) {
		return err
	}
	there, ok, readErr := b.last(ctx, backlogStream(group), m.Subject)
	switch {
	case readErr != nil:
		return fmt.Errorf("%w: %w", faena.ErrUnknown, readErr)
	case !ok: // it was there, or a leader that is new has said so
		return fmt.Errorf("%w: %s", faena.ErrRetry, err.Error())
	case there.header(headerMsgID) != m.Header.Get(headerMsgID): // it was released, and is about to be deleted
		return fmt.Errorf("%w: that of an earlier attempt is there still", faena.ErrRetry)
	}
	return nil
}

// BacklogByUser counts what waits in a group's backlog.
func (b *Bus) BacklogByUser(ctx context.Context, group string) (map[string]int, error) {
	subjects, err := b.subjects(ctx, backlogStream(group), backlogSubjects(group))
	if err != nil {
		return nil, err
	}
	waiting := make(map[string]int)
	for s := range subjects {
		if user, _, ok := waitingOf(s); ok {
			waiting[user]++
		}
	}
	return waiting, nil
}

// BacklogSize counts what waits of one user in a group.
func (b *Bus) BacklogSize(ctx context.Context, group, user string) (int, error) {
	subjects, err := b.subjects(ctx, backlogStream(group), backlogOf(group, user))
	return len(subjects), err
}

// BacklogMessage reads an activation's message in the backlog; KindNotFound where there is none.
func (b *Bus) BacklogMessage(ctx context.Context, group, user, id string) (faena.Waiting, error) {
	m, ok, err := b.last(ctx, backlogStream(group), backlogSubject(group, user, id))
	return b.waiting(m, ok, err, group, user)
}

// BacklogNext reads the oldest message of a user in the backlog whose sequence is at least from; KindNotFound where there is none.
func (b *Bus) BacklogNext(ctx context.Context, group, user string, from uint64) (faena.Waiting, error) {
	m, ok, err := b.after(ctx, backlogStream(group), backlogOf(group, user), max(from, 1))
	return b.waiting(m, ok, err, group, user)
}

func (b *Bus) waiting(m stored, ok bool, err error, group, user string) (faena.Waiting, error) {
	if err != nil {
		return faena.Waiting{}, fmt.Errorf("read the backlog of user %s in group %s: %w", user, group, err)
	}
	if !ok {
		return faena.Waiting{}, faena.NotFound("message", backlogOf(group, user))
	}
	w := faena.Waiting{Sequence: m.Sequence, Published: m.Time}
	w.User, w.ID, _ = waitingOf(m.Subject)
	if w.Message, err = b.code.decode(m.Data); err != nil {
		w.Err = unknownSchema(w.ID, err)
	} else if w.Message.ID != w.ID {
		w.Message, w.Err = nil, fmt.Errorf("read the backlog: %w: it is another activation's than its subject says", faena.ErrUnreadable)
	}
	return w, nil
}

// DeleteBacklog removes a message from the backlog by its sequence; one that is gone is no error.
func (b *Bus) DeleteBacklog(ctx context.Context, group string, seq uint64) error {
	return b.deleteMessage(ctx, backlogStream(group), seq)
}

// Pending is how many messages of a group's queue no worker has been given yet: what is in the stream, and not with a worker. The
// consumer's own count is of no use to who publishes: the server (2.15.2) raises it some time after it has acknowledged a message; with
// three servers up to 8 of those that one client had published, one after the other, were not in it.
func (b *Bus) Pending(ctx context.Context, group string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	var info struct {
		Given int `json:"num_ack_pending"`
	}
	if err := b.ask(ctx, consumerInfo(queueStream(group), workersConsumer), nil, &info); err != nil {
		return 0, fmt.Errorf("look at the consumer of group %s: %w", group, err)
	}
	depth, err := b.QueueDepth(ctx, group) // after that: what is given meanwhile counts once more, rather than not at all
	return max(0, int(depth)-info.Given), err
}
