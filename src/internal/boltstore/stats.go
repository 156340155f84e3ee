package boltstore

import (
	"bytes"
	"context"
	"errors"
	"slices"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/faena"
)

// measured are the buckets that HistoryStats.Bytes adds up: the keys and values of records and of what leads to them.
var measured = [][]byte{activationsBucket, payloadsBucket, byFunctionBucket, byStateBucket, byBothBucket}

// size is what one key takes of HistoryStats.Bytes.
func size(k, v []byte) int64 { return int64(len(k) + len(v)) }

func isMeasured(bucket []byte) bool {
	return slices.ContainsFunc(measured, func(m []byte) bool { return bytes.Equal(m, bucket) })
}

// updateHistory is update for changes of the history: fn returns by how many bytes it grows.
func (s *Store) updateHistory(ctx context.Context, action string, fn func(tx *bolt.Tx) (change int64, err error)) error {
	var change int64
	err := s.update(ctx, action, func(tx *bolt.Tx) (err error) {
		change, err = fn(tx)
		return err
	})
	if err == nil {
		s.bytes.Add(change)
	}
	return err
}

// measure adds up the bytes of the history. It is done at Open, where the tree is walked anyway, so that the file needs no
// counter which an earlier version would not keep.
func (s *Store) measure() error {
	var sum int64
	err := s.db.View(func(tx *bolt.Tx) error {
		for _, name := range measured {
			c := tx.Bucket(name).Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				sum += size(k, v)
			}
		}
		return nil
	})
	s.bytes.Store(sum)
	return err
}

// HistoryStats implements faena.Documents. It reads the first record of each user.
func (s *Store) HistoryStats(ctx context.Context) (st faena.HistoryStats, err error) {
	err = s.view(ctx, "measure the history", func(tx *bolt.Tx) (err error) {
		if st.Horizon, err = horizon(tx); err != nil {
			return err
		}
		records := tx.Bucket(activationsBucket)
		return eachUser(records, "", func(user string) (bool, error) {
			err := ascend(records, below(user), nil, func(k, v []byte) (bool, error) {
				r, err := decode[faena.Record](k, v)
				if err != nil && !errors.Is(err, faena.ErrSchema) {
					return false, err
				}
				if st.Oldest.IsZero() || r.AdmittedAt.Before(st.Oldest) {
					st.Oldest = r.AdmittedAt
				}
				return false, nil
			})
			return true, err
		})
	})
	if err != nil {
		return faena.HistoryStats{}, err
	}
	st.Bytes = s.bytes.Load()
	return st, nil
}
