package natsbus

import (
	"encoding/json"
	"fmt"
	"sync"

	"faena.dev/faena/internal/faena"
)

// codecSize bounds the revisions that are remembered; beyond it the memory starts anew.
const codecSize = 1024

// codec writes and reads messages. A revision travels in every message of its function, so its encoded form is kept by
// its address, and what was decoded from it by its bytes: revisions are never changed. Safe for concurrent use.
type codec struct {
	mu      sync.RWMutex
	encoded map[*faena.Revision]json.RawMessage
	decoded map[string]*faena.Revision
}

func newCodec() *codec {
	return &codec{encoded: make(map[*faena.Revision]json.RawMessage), decoded: make(map[string]*faena.Revision)}
}

// wire is faena.Message with its revision in encoded form.
type wire struct {
	Schema    int             `json:"schema"`
	ID        string          `json:"id"`
	Instance  string          `json:"instance,omitempty"`
	Revision  json.RawMessage `json:"revision"`
	Parameter faena.Blob      `json:"parameter"`
}

func (c *codec) encode(m *faena.Message) ([]byte, error) {
	rev, err := c.encodeRevision(m.Revision)
	if err != nil {
		return nil, err
	}
	return json.Marshal(wire{m.Schema, m.ID, m.Instance, rev, m.Parameter})
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
	if len(c.encoded) >= codecSize {
		clear(c.encoded)
	}
	c.encoded[r] = raw
	c.mu.Unlock()
	return raw, nil
}

func (c *codec) decode(p []byte) (*faena.Message, error) {
	var w wire
	if err := json.Unmarshal(p, &w); err != nil {
		return nil, fmt.Errorf("decode a message: %w", err)
	}
	if err := checkSchema(w.Schema); err != nil {
		return nil, fmt.Errorf("decode a message: %w", err)
	}
	rev, err := c.decodeRevision(w.Revision)
	if err != nil {
		return nil, err
	}
	return &faena.Message{Schema: w.Schema, ID: w.ID, Instance: w.Instance, Revision: rev, Parameter: w.Parameter}, nil
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
		return nil, fmt.Errorf("decode a revision: %w", err)
	}
	if err := checkSchema(rev.Schema); err != nil {
		return nil, fmt.Errorf("decode a revision: %w", err)
	}
	c.mu.Lock()
	if len(c.decoded) >= codecSize {
		clear(c.decoded)
	}
	c.decoded[string(raw)] = rev
	c.mu.Unlock()
	return rev, nil
}

func decodeRecord(p []byte) (*faena.Record, error) {
	r := new(faena.Record)
	if err := json.Unmarshal(p, r); err != nil {
		return nil, fmt.Errorf("decode a record: %w", err)
	}
	if err := checkSchema(r.Schema); err != nil {
		return nil, fmt.Errorf("decode a record: %w", err)
	}
	return r, nil
}

// checkSchema accepts this build's version and the one before it.
func checkSchema(version int) error {
	if version < 1 || version > faena.SchemaVersion || version < faena.SchemaVersion-1 {
		return fmt.Errorf("%w: %d, this build reads %d", faena.ErrSchema, version, faena.SchemaVersion)
	}
	return nil
}
