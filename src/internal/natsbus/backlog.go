package natsbus

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"faena.dev/faena/internal/faena"
)

// PublishBacklog makes one try to put an activation's message into the backlog of its user. It is stored once, however often it
// is tried: one that stands there already is success. faena.ErrFull and faena.ErrRetry mean that nothing was stored; after
// faena.ErrUnknown only the same try may be repeated.
func (b *Bus) PublishBacklog(ctx context.Context, user, group string, publication int, m *faena.Message) error {
	data, err := b.code.encode(m)
	if err != nil {
		return fmt.Errorf("put activation %s into the backlog: %w", m.ID, err)
	}
	if _, err := b.store(ctx, &nats.Msg{Subject: backlogSubject(group, user, m.ID), Data: data,
		Header: nats.Header{headerMsgID: {messageID(m.ID, publication)}}}); err != nil {
		return fmt.Errorf("put activation %s into the backlog: %w", m.ID, err)
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
		return faena.Waiting{}, fmt.Errorf("read the backlog of user %s in group %s: %w", user, group, outcome(err))
	}
	if !ok {
		return faena.Waiting{}, faena.NotFound("message", backlogOf(group, user))
	}
	w := faena.Waiting{Sequence: m.Sequence, Published: m.Time}
	w.User, w.ID, _ = waitingOf(m.Subject)
	if w.Message, err = b.code.decode(m.Data); err != nil {
		w.Err = unknownSchema(w.ID, err)
	}
	return w, nil
}

// DeleteBacklog removes a message from the backlog by its sequence; one that is gone is no error.
func (b *Bus) DeleteBacklog(ctx context.Context, group string, seq uint64) error {
	return b.deleteMessage(ctx, backlogStream(group), seq)
}

// Pending is how many messages of a group's queue no worker has been given yet.
func (b *Bus) Pending(ctx context.Context, group string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	var info struct {
		Pending int `json:"num_pending"`
	}
	if err := b.ask(ctx, consumerInfo(queueStream(group), workersConsumer), nil, &info); err != nil {
		return 0, fmt.Errorf("look at the consumer of group %s: %w", group, outcome(err))
	}
	return info.Pending, nil
}

// PutDeadLetter writes down what nobody will run; a second one of the same activation replaces the first.
func (b *Bus) PutDeadLetter(ctx context.Context, d *faena.DeadLetter) error {
	data, err := json.Marshal(d)
	if err == nil {
		_, err = b.store(ctx, &nats.Msg{Subject: deadLetterSubject(d.Group, d.User, d.ID), Data: data})
	}
	if err != nil {
		return fmt.Errorf("write the dead letter of activation %s: %w", d.ID, err)
	}
	return nil
}

// DeadLetter reads one; KindNotFound where there is none. seq is what DeleteDeadLetter takes.
func (b *Bus) DeadLetter(ctx context.Context, group, user, id string) (d *faena.DeadLetter, seq uint64, err error) {
	m, ok, err := b.last(ctx, deadLettersStream(group), deadLetterSubject(group, user, id))
	if err != nil {
		return nil, 0, fmt.Errorf("read the dead letter of activation %s: %w", id, outcome(err))
	}
	if !ok {
		return nil, 0, faena.NotFound("dead letter", id)
	}
	d = new(faena.DeadLetter)
	if err := json.Unmarshal(m.Data, d); err != nil {
		return nil, 0, fmt.Errorf("read the dead letter of activation %s: %w: %w", id, faena.ErrUnreadable, misread(m.Data, err))
	}
	if err := checkSchema(d.Schema); err != nil {
		return nil, 0, fmt.Errorf("read the dead letter of activation %s: %w", id, unknownSchema(id, err))
	}
	if d.Group != group || d.User != user || d.ID != id { // a worker may write what it likes
		return nil, 0, fmt.Errorf("read the dead letter of activation %s: %w: it is another activation's", id, faena.ErrUnreadable)
	}
	return d, m.Sequence, nil
}

// DeadLetterIDs lists the activations of a group that have one, by user; of all users where user is "".
func (b *Bus) DeadLetterIDs(ctx context.Context, group, user string) (map[string][]string, error) {
	filter := deadLetterSubjects(group)
	if user != "" {
		filter = deadLettersOf(group, user)
	}
	subjects, err := b.subjects(ctx, deadLettersStream(group), filter)
	if err != nil {
		return nil, err
	}
	ids := make(map[string][]string)
	for s := range subjects {
		if user, id, ok := waitingOf(s); ok {
			ids[user] = append(ids[user], id)
		}
	}
	return ids, nil
}

// DeleteDeadLetter removes one by its sequence; one that is gone is no error.
func (b *Bus) DeleteDeadLetter(ctx context.Context, group string, seq uint64) error {
	return b.deleteMessage(ctx, deadLettersStream(group), seq)
}

// ClaimKey makes an Idempotency-Key, of which hash is the hash, stand for an activation of its user, and returns what stands there
// then: mine reports whether it is claim. rev is what DropKey takes; age is by the server's clock. faena.ErrFull where there is no
// room, faena.ErrUnknown where it may have been stored.
func (b *Bus) ClaimKey(ctx context.Context, user, hash string, claim *faena.IdempotencyClaim) (there faena.IdempotencyClaim, mine bool, rev uint64, age time.Duration, err error) {
	data, err := json.Marshal(claim)
	if err != nil {
		return there, false, 0, 0, fmt.Errorf("claim an Idempotency-Key: %w", err)
	}
	subject := claimSubject(user, hash)
	if rev, err = b.storeIf(ctx, subject, data, 0); err == nil {
		return *claim, true, rev, 0, nil
	}
	cause := err
	m, ok, err := b.last(ctx, bucketStream(claimsBucket), subject)
	switch {
	case err != nil:
		return there, false, 0, 0, fmt.Errorf("claim an Idempotency-Key: %w", outcome(err))
	case !ok:
		return there, false, 0, 0, fmt.Errorf("claim an Idempotency-Key: %w", cause)
	}
	if err := json.Unmarshal(m.Data, &there); err != nil {
		return there, false, 0, 0, fmt.Errorf("claim an Idempotency-Key: read who has it: %w", err)
	}
	if err := checkSchema(there.Schema); err != nil {
		return there, false, 0, 0, fmt.Errorf("claim an Idempotency-Key: read who has it: %w", unknownSchema(there.ID, err))
	}
	return there, there.ID == claim.ID, m.Sequence, max(0, b.ServerNow().Sub(m.Time)), nil
}

// DropKey frees an Idempotency-Key that stands at revision rev; one that is gone, or stands for something newer, is left.
func (b *Bus) DropKey(ctx context.Context, user, hash string, rev uint64) error {
	subject := claimSubject(user, hash)
	m, ok, err := b.last(ctx, bucketStream(claimsBucket), subject)
	if err != nil || !ok || m.Sequence != rev {
		return err
	}
	return b.purge(ctx, bucketStream(claimsBucket), subject)
}
