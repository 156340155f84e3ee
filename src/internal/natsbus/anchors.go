package natsbus

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// anchorEvery is how many bytes may be written to a stream before its anchor is moved to the end: well below the size
// of a stream's file, 4 to 8 MB.
const anchorEvery = 1 << 20

// anchors keep the streams of an activation from running empty. Where the last message of a stream's newest file is
// removed the server makes another file and deletes that one. With one activation at a time this would happen at every
// acknowledgement and every purge, and takes ten times as long as all else about them (see DESIGN.md). So each of these
// streams holds one message that nobody is given and that is moved to the end now and then. Nothing depends on it.
type anchors struct {
	b    *Bus
	kick chan struct{} // of capacity one

	mu      sync.Mutex
	written map[string]*traffic // by group
}

// traffic counts the bytes that this connection has written since the anchor was moved.
type traffic struct{ queue, records atomic.Int64 }

func newAnchors(b *Bus) *anchors {
	return &anchors{b: b, kick: make(chan struct{}, 1), written: make(map[string]*traffic)}
}

func (a *anchors) of(group string) *traffic {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.written[group]
	if t == nil {
		t = new(traffic)
		a.written[group] = t
	}
	return t
}

func (a *anchors) queued(group string, n int)   { a.count(&a.of(group).queue, n) }
func (a *anchors) recorded(group string, n int) { a.count(&a.of(group).records, n) }

func (a *anchors) count(to *atomic.Int64, n int) {
	if to.Add(int64(n)) < anchorEvery {
		return
	}
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// move moves the anchors of what was written to. One that cannot be moved costs time later, nothing else.
func (a *anchors) move(ctx context.Context) {
	a.mu.Lock()
	due := make(map[string]*traffic)
	for group, t := range a.written {
		if t.queue.Load() >= anchorEvery || t.records.Load() >= anchorEvery {
			due[group] = t
		}
	}
	a.mu.Unlock()
	for group, t := range due {
		if t.queue.Load() >= anchorEvery {
			t.queue.Store(0)
			a.note(group, a.b.anchorQueue(ctx, group))
		}
		if t.records.Load() >= anchorEvery {
			t.records.Store(0)
			a.note(group, a.b.anchorRecords(ctx, group))
		}
	}
}

func (a *anchors) note(group string, err error) {
	if err != nil {
		a.b.log.Debug("a stream's anchor could not be moved", "group", group, "error", err)
	}
}

// anchorQueue takes the anchor away first: the stream takes one message of a subject. It is deleted, not purged: a purge may make
// the server forget what it was to give out again (see DESIGN.md).
func (b *Bus) anchorQueue(ctx context.Context, group string) error {
	m, ok, err := b.last(ctx, queueStream(group), queueAnchor(group))
	if err == nil && ok {
		err = b.DeleteMessage(ctx, group, m.Sequence)
	}
	if err != nil {
		return err
	}
	_, err = b.store(ctx, &nats.Msg{Subject: queueAnchor(group)})
	return err
}

// anchorRecords writes the anchor anew: a bucket keeps the last of a key.
func (b *Bus) anchorRecords(ctx context.Context, group string) error {
	_, err := b.store(ctx, &nats.Msg{Subject: recordsAnchor(group)})
	return err
}
