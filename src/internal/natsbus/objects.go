package natsbus

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// chunkBytes is how much of an object one message holds.
const chunkBytes = 256 << 10

// erasedFor is how long a mark stays that stands for what was removed: the least that the server takes.
const erasedFor = "1s"

// objectInfo is the meta of an object, as clients of NATS's object store write and read it. We write objects
// ourselves: nats.go sends the meta together with the chunks, so that an object which does not fit leaves a meta without
// chunks, and a reader that waits for them.
type objectInfo struct {
	Name    string `json:"name"`
	Bucket  string `json:"bucket"`
	NUID    string `json:"nuid"` // of this put: its chunks have a subject of their own
	Size    int    `json:"size"`
	Chunks  int    `json:"chunks"`
	Digest  string `json:"digest"`
	Deleted bool   `json:"deleted,omitempty"`
	Options struct {
		MaxChunkSize int `json:"max_chunk_size"`
	} `json:"options"`
}

// PutObject stores what is too large for a message or record; a second one of the name replaces the first.
// faena.ErrFull where the store has reached its bytes: nothing is kept then.
func (b *Bus) PutObject(ctx context.Context, group, name string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	old, existed, err := b.objectInfo(ctx, group, name)
	if err != nil {
		return fmt.Errorf("store object %s: %w", name, outcome(err))
	}
	info := objectInfo{Name: name, Bucket: objectsBucket(group), NUID: rand.Text(), Size: len(data), Digest: digestOf(data)}
	info.Options.MaxChunkSize = chunkBytes
	if info.Chunks, err = b.putChunks(ctx, chunksSubject(group, info.NUID), data); err == nil {
		failpoint.Hit("bus/chunks-stored")
		err = b.putMeta(ctx, group, &info)
	}
	if err != nil {
		// Where even this fails the chunks go by their age: without a meta nobody sees them.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryFor)
		defer cancel()
		err = errors.Join(err, b.erase(clean, group, chunksSubject(group, info.NUID), nil))
		return fmt.Errorf("store object %s: %w", name, err)
	}
	if existed {
		if err := b.erase(ctx, group, chunksSubject(group, old.NUID), nil); err != nil {
			b.log.Warn("what an object has replaced stays until it is too old", "object", name, "error", err)
		}
	}
	return nil
}

// putChunks stores the data in order, one chunk after the other: the sequence is the order.
func (b *Bus) putChunks(ctx context.Context, subject string, data []byte) (n int, err error) {
	for chunk := range slices.Chunk(data, chunkBytes) {
		if _, err := b.store(ctx, &nats.Msg{Subject: subject, Data: chunk}); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// putMeta makes the object visible.
func (b *Bus) putMeta(ctx context.Context, group string, info *objectInfo) error {
	meta, err := json.Marshal(info)
	if err != nil {
		return err
	}
	_, err = b.store(ctx, &nats.Msg{Subject: objectSubject(group, info.Name), Data: meta, Header: nats.Header{headerRollup: {"sub"}}})
	return err
}

// Object reads one; KindNotFound where it is absent.
func (b *Bus) Object(ctx context.Context, group, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	info, ok, err := b.objectInfo(ctx, group, name)
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", name, err)
	}
	if !ok {
		return nil, faena.NotFound("object", name)
	}
	var data bytes.Buffer
	data.Grow(info.Size)
	seq := uint64(1)
	for range info.Chunks {
		m, ok, err := b.chunk(ctx, group, info.NUID, seq)
		if err != nil {
			return nil, fmt.Errorf("read object %s: %w", name, err)
		}
		if !ok { // removed or replaced while it was read
			return nil, faena.NotFound("object", name)
		}
		data.Write(m.Data)
		seq = m.Sequence + 1
	}
	if got := digestOf(data.Bytes()); got != info.Digest {
		return nil, fmt.Errorf("read object %s: it is damaged: its digest is %s, not %s", name, got, info.Digest)
	}
	return data.Bytes(), nil
}

// chunk reads the next chunk of an object. A try that a busy server does not answer in time is made again as long as ctx allows: an
// object is up to hundreds of requests, and all would have to be made again for one that was slow.
func (b *Bus) chunk(ctx context.Context, group, nuid string, seq uint64) (m stored, ok bool, err error) {
	for {
		m, ok, err = b.after(ctx, objectsStream(group), chunksSubject(group, nuid), seq)
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return m, ok, err
		}
	}
}

// DeleteObject removes one without a trace; one that is absent is no error.
func (b *Bus) DeleteObject(ctx context.Context, group, name string) error {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	info, ok, err := b.objectInfo(ctx, group, name)
	if err != nil || !ok {
		return err
	}
	gone, err := json.Marshal(objectInfo{Name: name, Bucket: info.Bucket, NUID: info.NUID, Deleted: true})
	if err != nil {
		return err
	}
	// In this order: one that is cut short can be repeated.
	if err := b.erase(ctx, group, chunksSubject(group, info.NUID), nil); err != nil {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	if err := b.erase(ctx, group, objectSubject(group, name), gone); err != nil {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	return nil
}

// erase removes what stands under a subject of the object store. An API purges, which always works. A worker may not: it
// puts a message in the place of all others of the subject, which is gone after erasedFor. In a store that is full to the
// last bytes there is no room for that message; what it should have removed goes by its age.
func (b *Bus) erase(ctx context.Context, group, subject string, mark []byte) error {
	if !b.o.confined() {
		return b.purge(ctx, objectsStream(group), subject)
	}
	_, err := b.store(ctx, &nats.Msg{Subject: subject, Data: mark, Header: nats.Header{headerRollup: {"sub"}, headerTTL: {erasedFor}}})
	return err
}

// objectInfo reads an object's meta from the leader; ok is false where there is none.
func (b *Bus) objectInfo(ctx context.Context, group, name string) (info objectInfo, ok bool, err error) {
	m, ok, err := b.last(ctx, objectsStream(group), objectSubject(group, name))
	if err != nil || !ok {
		return objectInfo{}, false, err
	}
	if err := json.Unmarshal(m.Data, &info); err != nil {
		return objectInfo{}, false, fmt.Errorf("decode the meta of object %s: %w", name, err)
	}
	return info, !info.Deleted, nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:])
}
