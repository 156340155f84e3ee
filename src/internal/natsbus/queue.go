package natsbus

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"faena.dev/faena/internal/faena"
)

// Publish makes one try to put an activation's message into a slot. The n-th publication of an activation is stored
// once, however often it is tried: duplicate is true where it was there already. faena.ErrSlotTaken, faena.ErrFull and
// faena.ErrRetry mean that nothing was stored; after faena.ErrUnknown only the same try may be repeated.
func (b *Bus) Publish(ctx context.Context, user, group string, slot, publication int, m *faena.Message) (seq uint64, duplicate bool, err error) {
	data, err := b.code.encode(m)
	if err != nil {
		return 0, false, fmt.Errorf("publish activation %s: %w", m.ID, err)
	}
	b.anchors.queued(group, len(data))
	ack, err := b.store(ctx, &nats.Msg{Subject: slotSubject(group, user, slot), Data: data,
		Header: nats.Header{headerMsgID: {messageID(m.ID, publication)}}})
	if err != nil {
		return 0, false, fmt.Errorf("publish activation %s: %w", m.ID, err)
	}
	return ack.Sequence, ack.Duplicate, nil
}

// BusySlots asks the stream which of the user's slots hold a message.
func (b *Bus) BusySlots(ctx context.Context, group, user string) (map[int]struct{}, error) {
	subjects, err := b.subjects(ctx, queueStream(group), userSubjects(group, user))
	if err != nil {
		return nil, err
	}
	busy := make(map[int]struct{}, len(subjects))
	for s := range subjects {
		if _, slot, ok := slotOf(s); ok {
			busy[slot] = struct{}{}
		}
	}
	return busy, nil
}

// ActiveByUser counts the messages of every user.
func (b *Bus) ActiveByUser(ctx context.Context, group string) (map[string]int, error) {
	subjects, err := b.subjects(ctx, queueStream(group), queueSubjects(group))
	if err != nil {
		return nil, err
	}
	active := make(map[string]int)
	for s := range subjects {
		if user, _, ok := slotOf(s); ok {
			active[user]++
		}
	}
	return active, nil
}

// SlotMessage tells which activation's message stands in a slot; KindNotFound where none does.
func (b *Bus) SlotMessage(ctx context.Context, group, user string, slot int) (id string, seq uint64, err error) {
	m, ok, err := b.last(ctx, queueStream(group), slotSubject(group, user, slot))
	if err != nil {
		return "", 0, fmt.Errorf("look into slot %d of user %s: %w", slot, user, err)
	}
	if !ok {
		return "", 0, faena.NotFound("message", slotSubject(group, user, slot))
	}
	id, ok = activationOf(m.header(headerMsgID))
	if !ok {
		return "", 0, fmt.Errorf("look into slot %d of user %s: the message has no id of an activation", slot, user)
	}
	return id, m.Sequence, nil
}

// DeleteMessage removes a message by sequence; one that is gone is no error.
func (b *Bus) DeleteMessage(ctx context.Context, group string, seq uint64) error {
	return b.deleteMessage(ctx, queueStream(group), seq)
}

func (b *Bus) deleteMessage(ctx context.Context, stream string, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	in := struct {
		Sequence uint64 `json:"seq"`
		NoErase  bool   `json:"no_erase"`
	}{seq, true}
	if err := b.ask(ctx, api("STREAM.MSG.DELETE", stream), in, nil); err != nil && !missing(err) {
		return fmt.Errorf("delete message %d: %w", seq, outcome(err))
	}
	return nil
}

// Fill returns the fullest of what the group's stores and the servers may hold, as a fraction of 1, with a word for
// which it is, and how many records the group's bucket holds. The backlog is left out: where one user has filled it, calls that
// need not wait go on.
func (b *Bus) Fill(ctx context.Context, group string) (fraction float64, what string, records uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	queue, err := b.state(ctx, queueStream(group), "")
	if err != nil {
		return 0, "", 0, err
	}
	live, err := b.state(ctx, recordsStream(group), recordsAnchor(group))
	if err != nil {
		return 0, "", 0, err
	}
	objects, err := b.state(ctx, objectsStream(group), "")
	if err != nil {
		return 0, "", 0, err
	}
	storage, err := b.storage(ctx)
	if err != nil {
		return 0, "", 0, fmt.Errorf("ask for the storage in use: %w", err)
	}
	for _, store := range []struct {
		name string
		used uint64
		of   int64
	}{
		{"the queue of group " + group, queue.Bytes, queue.most(b.o.queueBytes())},
		{"the bucket of live records of group " + group, live.Bytes, live.most(b.o.recordBytes())},
		{"the object store of group " + group, objects.Bytes, objects.most(b.o.objectBytes())},
		// All replicas are counted. One server holds one of each at most: this is what it may have come to.
		{"the servers' store", storage / uint64(b.o.Replicas), b.o.MaxStore},
	} {
		if f := float64(store.used) / float64(store.of); what == "" || f > fraction {
			fraction, what = f, store.name
		}
	}
	return fraction, what, live.Messages, nil
}

// BacklogFill returns how full the backlog of a group is, as a fraction of 1.
func (b *Bus) BacklogFill(ctx context.Context, group string) (float64, error) {
	s, err := b.state(ctx, backlogStream(group), "")
	if err != nil {
		return 0, err
	}
	return float64(s.Bytes) / float64(s.most(b.o.backlogBytes())), nil
}

// accountFor is how long it is remembered what JetStream keeps: every look asks for each group.
const accountFor = 500 * time.Millisecond

// inUse is what JetStream keeps altogether, as it was told last.
type inUse struct {
	turn    chan struct{} // whose it is to ask, or to read the rest; of capacity one
	storage uint64
	at      time.Time
}

func newInUse() inUse { return inUse{turn: make(chan struct{}, 1)} }

// storage returns what all streams take with all replicas, at most accountFor old.
func (b *Bus) storage(ctx context.Context) (uint64, error) {
	select {
	case b.inUse.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-b.inUse.turn }()
	if time.Since(b.inUse.at) < accountFor {
		return b.inUse.storage, nil
	}
	var told struct {
		Storage uint64 `json:"storage"`
	}
	if err := b.ask(ctx, accountInfo, nil, &told); err != nil {
		return 0, err
	}
	b.inUse.storage, b.inUse.at = told.Storage, time.Now()
	return told.Storage, nil
}

// QueueDepth is how many activations of a group are queued or running.
func (b *Bus) QueueDepth(ctx context.Context, group string) (uint64, error) {
	s, err := b.state(ctx, queueStream(group), queueAnchor(group))
	return s.Messages, err
}

type streamState struct {
	Messages uint64            `json:"messages"`
	Bytes    uint64            `json:"bytes"`
	Subjects map[string]uint64 `json:"subjects"`

	maxBytes int64 // what the stream may hold; 0 or less is no limit
}

// most is what the stream may hold, which may be more than its share: see declareStream.
func (s streamState) most(share int64) int64 { return max(s.maxBytes, share) }

// state tells what a stream holds, messages of the subject without left out.
func (b *Bus) state(ctx context.Context, stream, without string) (streamState, error) {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	in := struct {
		Filter string `json:"subjects_filter,omitempty"`
	}{without}
	var info struct {
		State  streamState `json:"state"`
		Config struct {
			MaxBytes int64 `json:"max_bytes"`
		} `json:"config"`
	}
	if err := b.ask(ctx, api("STREAM.INFO", stream), in, &info); err != nil {
		return streamState{}, fmt.Errorf("look at stream %s: %w", stream, err)
	}
	info.State.Messages -= info.State.Subjects[without]
	info.State.maxBytes = info.Config.MaxBytes
	return info.State, nil
}
