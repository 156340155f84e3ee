package natsbus

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/faena"
)

// codecBytes bounds what is remembered of revisions in each direction, by their encoded size; beyond it the memory
// starts anew.
const codecBytes = 16 << 20

// codec writes and reads messages. A revision travels in every message of its function, so its encoded form is kept by
// its address, and what was decoded from it by its bytes: revisions are never changed. Safe for concurrent use.
type codec struct {
	mu           sync.RWMutex
	encoded      map[*faena.Revision]json.RawMessage
	decoded      map[string]*faena.Revision
	encodedBytes int
	decodedBytes int
}

func newCodec() *codec {
	return &codec{encoded: make(map[*faena.Revision]json.RawMessage), decoded: make(map[string]*faena.Revision)}
}

// encode writes faena.Message as JSON. It is put together by hand: json.Marshal would check the revision each time.
func (c *codec) encode(m *faena.Message) ([]byte, error) {
	rev, err := c.encodeRevision(m.Revision)
	if err != nil {
		return nil, err
	}
	head, err := json.Marshal(struct {
		Schema         int           `json:"schema"`
		ID             string        `json:"id"`
		Record         *faena.Record `json:"record,omitempty"`
		RecordRevision uint64        `json:"record_revision,omitempty"`
	}{m.Schema, m.ID, m.Record, m.RecordRevision})
	if err != nil {
		return nil, fmt.Errorf("encode a message: %w", err)
	}
	parameter, err := json.Marshal(m.Parameter)
	if err != nil {
		return nil, fmt.Errorf("encode a message: %w", err)
	}
	return slices.Concat(head[:len(head)-1], []byte(`,"revision":`), rev, []byte(`,"parameter":`), parameter, []byte(`}`)), nil
}

func (c *codec) encodeRevision(r *faena.Revision) (json.RawMessage, error) {
	c.mu.RLock()
	raw, ok := c.encoded[r]
	c.mu.RUnlock()
	if ok {
		return raw, nil
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode a revision: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.encodedBytes += len(raw); c.encodedBytes > codecBytes {
		clear(c.encoded)
		c.encodedBytes = len(raw)
	}
	c.encoded[r] = raw
	return raw, nil
}

// decode reads faena.Message. The revision is shared with other messages that carry the same.
func (c *codec) decode(p []byte) (*faena.Message, error) {
	var w struct {
		Schema         int             `json:"schema"`
		ID             string          `json:"id"`
		Record         *faena.Record   `json:"record"`
		RecordRevision uint64          `json:"record_revision"`
		Revision       json.RawMessage `json:"revision"`
		Parameter      faena.Blob      `json:"parameter"`
	}
	if err := json.Unmarshal(p, &w); err != nil {
		return nil, fmt.Errorf("decode a message: %w", misread(p, err))
	}
	if err := checkSchema(w.Schema); err != nil {
		return nil, fmt.Errorf("decode a message: %w", err)
	}
	if w.Record != nil {
		if err := checkSchema(w.Record.Schema); err != nil {
			return nil, fmt.Errorf("decode a message: its record: %w", err)
		}
	}
	rev, err := c.decodeRevision(w.Revision)
	if err != nil {
		return nil, err
	}
	return &faena.Message{Schema: w.Schema, ID: w.ID, Record: w.Record, RecordRevision: w.RecordRevision, Revision: rev,
		Parameter: w.Parameter}, nil
}

func (c *codec) decodeRevision(raw json.RawMessage) (*faena.Revision, error) {
	c.mu.RLock()
	rev, ok := c.decoded[string(raw)]
	c.mu.RUnlock()
	if ok {
		return rev, nil
	}
	rev = new(faena.Revision)
	if err := json.Unmarshal(raw, rev); err != nil {
		return nil, fmt.Errorf("decode a revision: %w", misread(raw, err))
	}
	if err := checkSchema(rev.Schema); err != nil {
		return nil, fmt.Errorf("decode a revision: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other, ok := c.decoded[string(raw)]; ok {
		return other, nil // the same address for all
	}
	if c.decodedBytes += len(raw); c.decodedBytes > codecBytes {
		clear(c.decoded)
		c.decodedBytes = len(raw)
	}
	c.decoded[string(raw)] = rev
	return rev, nil
}

// errForged says that no API of this installation has admitted an activation.
var errForged = fmt.Errorf("%w: no API of this installation has admitted it: a worker of its group has made it up, or the APIs do not share FAENA_SEAL_KEY_FILE", faena.ErrUnreadable)

// recordAt decodes the record that stands under a subject. The workers of a group may write anything into its bucket: a record of
// another group, user or activation than its key says is an error, and so is one that no API has admitted (ADR 10).
func (b *Bus) recordAt(subject string, p []byte) (*faena.Record, error) {
	r, err := decodeRecord(p)
	if errors.Is(err, faena.ErrSchema) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", faena.ErrUnreadable, err)
	}
	if recordSubject(r.Group, r.User, r.ID) != subject {
		return nil, fmt.Errorf("decode a record: %w: it is another activation's than its key says", faena.ErrUnreadable)
	}
	if !b.admitted(r) {
		return nil, fmt.Errorf("decode a record: %w", errForged)
	}
	return r, nil
}

// made reports whether an API has made an id for a user and a group.
func (b *Bus) made(user, group, id string) bool { return b.o.Made == nil || b.o.Made(user, group, id) }

// admittedOff is how far the clocks of the APIs that have made an id and used it may be apart.
const admittedOff = time.Minute

// admitted reports whether an API has made the id of a record for its user and group, at the time that it says. An id that an
// Idempotency-Key stands for may be used as long as the key lasts.
func (b *Bus) admitted(r *faena.Record) bool {
	if b.o.Made == nil {
		return true
	}
	id, err := uuid.Parse(r.ID)
	if err != nil || !b.made(r.User, r.Group, r.ID) {
		return false
	}
	sec, nsec := id.Time().UnixTime()
	later := r.AdmittedAt.Sub(time.Unix(sec, nsec))
	return -admittedOff < later && later < faena.IdempotencyTTL+admittedOff
}

func decodeRecord(p []byte) (*faena.Record, error) {
	r := new(faena.Record)
	if err := json.Unmarshal(p, r); err != nil {
		return nil, fmt.Errorf("decode a record: %w", misread(p, err))
	}
	if err := checkSchema(r.Schema); err != nil {
		return nil, fmt.Errorf("decode a record: %w", err)
	}
	if !slices.Contains(faena.States, r.State) { // it would be taken for an end
		return nil, fmt.Errorf("decode a record: its state is %q", r.State)
	}
	return r, nil
}
