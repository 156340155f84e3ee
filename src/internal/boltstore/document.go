package boltstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/faena"
)

// key joins the parts of a key. No part has a slash: users, functions, states and ids are checked long before.
func key(parts ...string) []byte { return []byte(strings.Join(parts, "/")) }

// below is the prefix of all keys that begin with the parts and go on.
func below(parts ...string) []byte { return append(key(parts...), '/') }

// put writes a document as JSON.
func put(b *bolt.Bucket, k []byte, document any) error {
	value, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("encode %s: %w", k, err)
	}
	return b.Put(k, value)
}

// document is what has a schema of its own.
type document interface {
	faena.Function | faena.Revision | faena.User | faena.Group | faena.Record
}

// decode reads a document; faena.ErrSchema where a newer version has written it.
func decode[T document](k, value []byte) (d T, err error) {
	if err := json.Unmarshal(value, &d); err != nil {
		return d, fmt.Errorf("decode %s: %w", k, err)
	}
	if version := schemaOf(&d); version > faena.SchemaVersion {
		return d, fmt.Errorf("decode %s: a newer version has written it (schema %d): %w", k, version, faena.ErrSchema)
	}
	return d, nil
}

func schemaOf(d any) int {
	switch d := d.(type) {
	case *faena.Function:
		return d.Schema
	case *faena.Revision:
		return d.Schema
	case *faena.User:
		return d.Schema
	case *faena.Group:
		return d.Schema
	case *faena.Record:
		return d.Schema
	}
	return 0
}

// ascend gives fn what lies under prefix, in order, from the first key after the given one, until fn returns false.
func ascend(b *bolt.Bucket, prefix, after []byte, fn func(k, v []byte) (more bool, err error)) error {
	c := b.Cursor()
	from := prefix
	if len(after) > 0 {
		from = append(append(bytes.Clone(prefix), after...), 0) // the smallest key that is greater
	}
	for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if more, err := fn(k, v); err != nil || !more {
			return err
		}
	}
	return nil
}

// descend gives fn what lies under prefix, backwards, from the last key before the given one (nil: from the end),
// until fn returns false.
func descend(b *bolt.Bucket, prefix, before []byte, fn func(k, v []byte) (more bool, err error)) error {
	c := b.Cursor()
	to := append(bytes.Clone(prefix), before...)
	if len(before) == 0 {
		to = append(to, 0xff) // beyond every name and number
	}
	step := c.Prev
	if k, _ := c.Seek(to); k == nil {
		step = c.Last
	}
	for k, v := step(); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Prev() {
		if more, err := fn(k, v); err != nil || !more {
			return err
		}
	}
	return nil
}

// removeBelow removes what lies under prefix, at most the given number of keys, and returns how many, and what they took.
func removeBelow(b *bolt.Bucket, prefix []byte, most int) (n int, sum int64, err error) {
	var keys [][]byte // a cursor must not be moved over what is removed under it
	err = ascend(b, prefix, nil, func(k, v []byte) (bool, error) {
		keys = append(keys, bytes.Clone(k))
		sum += size(k, v)
		return len(keys) < most, nil
	})
	for _, k := range keys {
		if err == nil {
			err = b.Delete(k)
		}
	}
	return len(keys), sum, err
}
