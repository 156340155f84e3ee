package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/faena"
)

// fill is how full a page is left that is split. A user's ids grow, so what is left of the split is never added to: with half
// of it, bbolt's own choice, the file is nearly twice as large.
const fill = 0.9

// Insert implements faena.Documents. A batch is one transaction.
func (s *Store) Insert(ctx context.Context, records []faena.Record) error {
	for i := range records {
		if !records[i].State.Terminal() {
			return fmt.Errorf("record activation %s: it is %s, not ended", records[i].ID, records[i].State)
		}
	}
	if len(records) == 0 {
		return ctx.Err()
	}
	return s.updateHistory(ctx, "record activations", func(tx *bolt.Tx) (change int64, err error) {
		for _, name := range measured {
			tx.Bucket(name).FillPercent = fill
		}
		counted := newCounts()
		for i := range records {
			r := &records[i]
			if recorded(tx, key(r.User, r.ID)) {
				continue
			}
			if gone, err := erased(tx, r.User); err != nil {
				return 0, err
			} else if gone {
				continue
			}
			size, err := insert(tx, *r)
			if err != nil {
				return 0, err
			}
			change += size
			counted.add(r)
		}
		return change, counted.store(tx)
	})
}

// recorded reports whether a record is stored, or was until it was pruned.
func recorded(tx *bolt.Tx, k []byte) bool {
	return tx.Bucket(activationsBucket).Get(k) != nil || tx.Bucket(prunedBucket).Get(k) != nil
}

// insert stores one record with its index entries, and returns what they take.
func insert(tx *bolt.Tx, r faena.Record) (sum int64, err error) {
	k := key(r.User, r.ID)
	entries := indexEntries(&r)
	if payload := encodePayload(r.Result.Inline, r.Log.Inline); payload != nil {
		entries = append(entries, entry{payloadsBucket, k, payload})
	}
	r.Result.Inline, r.Log.Inline = nil, nil
	value, err := json.Marshal(&r)
	if err != nil {
		return 0, fmt.Errorf("encode %s: %w", k, err)
	}
	for _, e := range append(entries, entry{activationsBucket, k, value}) {
		if err := tx.Bucket(e.bucket).Put(e.key, e.value); err != nil {
			return 0, err
		}
		sum += size(e.key, e.value)
	}
	return sum, nil
}

// remove removes a record with its index entries, and returns what they took; 0 where it is not there.
func remove(tx *bolt.Tx, r *faena.Record) (sum int64, err error) {
	k := key(r.User, r.ID)
	if tx.Bucket(activationsBucket).Get(k) == nil {
		return 0, nil
	}
	for _, e := range append(indexEntries(r), entry{activationsBucket, k, nil}, entry{payloadsBucket, k, nil}) {
		b := tx.Bucket(e.bucket)
		value := b.Get(e.key)
		if value == nil {
			continue
		}
		sum += size(e.key, value)
		if err := b.Delete(e.key); err != nil {
			return 0, err
		}
	}
	return sum, nil
}

// entry is a key in a bucket.
type entry struct{ bucket, key, value []byte }

// indexEntries are what leads a filter to a record.
func indexEntries(r *faena.Record) []entry {
	return []entry{
		{byFunctionBucket, key(r.User, r.Function, r.ID), []byte{}},
		{byStateBucket, key(r.User, string(r.State), r.ID), []byte{}},
		{byBothBucket, key(r.User, r.Function, string(r.State), r.ID), []byte{}},
	}
}

// Activation implements faena.Documents.
func (s *Store) Activation(ctx context.Context, user, id string) (r faena.Record, err error) {
	err = s.view(ctx, "read activation "+id, func(tx *bolt.Tx) error {
		k := key(user, id)
		value := tx.Bucket(activationsBucket).Get(k)
		if value == nil {
			return faena.NotFound("activation", id)
		}
		if r, err = decode[faena.Record](k, value); err != nil {
			return err
		}
		r.Result.Inline, r.Log.Inline, err = decodePayload(tx.Bucket(payloadsBucket).Get(k))
		return err
	})
	return r, err
}

// Recorded implements faena.Documents.
func (s *Store) Recorded(ctx context.Context, user string, ids []string) (stored []string, err error) {
	err = s.view(ctx, "look for activations of user "+user, func(tx *bolt.Tx) error {
		gone, err := erased(tx, user)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if gone || tx.Bucket(activationsBucket).Get(key(user, id)) != nil {
				stored = append(stored, id)
			}
		}
		return nil
	})
	return stored, err
}

// Activations implements faena.Documents. Each filter has an index in which the page is one run of keys, so that a
// page costs the same wherever it is and however many others there are.
func (s *Store) Activations(ctx context.Context, q faena.HistoryQuery) (list []faena.Record, err error) {
	index, prefix := activationsBucket, below(q.User)
	switch {
	case q.Function != "" && q.State != "":
		index, prefix = byBothBucket, below(q.User, q.Function, string(q.State))
	case q.Function != "":
		index, prefix = byFunctionBucket, below(q.User, q.Function)
	case q.State != "":
		index, prefix = byStateBucket, below(q.User, string(q.State))
	}
	err = s.view(ctx, "list the activations of user "+q.User, func(tx *bolt.Tx) error {
		records := tx.Bucket(activationsBucket)
		list, err = page[faena.Record](q.Limit, func(fn func(k, v []byte) (bool, error)) error {
			return descend(tx.Bucket(index), prefix, []byte(q.Before), func(k, _ []byte) (bool, error) {
				k = key(q.User, string(k[len(prefix):]))
				return fn(k, records.Get(k))
			})
		})
		return err
	})
	return list, err
}

// A payload is the length of the result, the result, and the log.

func encodePayload(result, log []byte) []byte {
	if len(result)+len(log) == 0 {
		return nil
	}
	p := make([]byte, 0, binary.MaxVarintLen64+len(result)+len(log))
	p = binary.AppendUvarint(p, uint64(len(result)))
	return append(append(p, result...), log...)
}

// decodePayload returns copies; a value must not be used after its transaction.
func decodePayload(p []byte) (result, log []byte, err error) {
	if len(p) == 0 {
		return nil, nil, nil
	}
	size, n := binary.Uvarint(p)
	if n <= 0 || size > uint64(len(p)-n) {
		return nil, nil, fmt.Errorf("decode a payload of %d bytes: it is damaged", len(p))
	}
	p = p[n:]
	return clone(p[:size]), clone(p[size:]), nil
}

func clone(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	return bytes.Clone(p)
}
