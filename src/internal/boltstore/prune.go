package boltstore

import (
	"bytes"
	"context"
	"time"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/faena"
)

// horizonKey holds the latest hour that Prune was called for.
var horizonKey = []byte("horizon")

// Prune implements faena.Documents.
func (s *Store) Prune(ctx context.Context, before time.Time, limit int) (pruned []faena.Record, err error) {
	before = before.UTC().Truncate(time.Hour)
	err = s.update(ctx, "prune the history", func(tx *bolt.Tx) error {
		last, err := horizon(tx)
		if err != nil || !before.After(last) {
			return err
		}
		return tx.Bucket(metaBucket).Put(horizonKey, []byte(before.Format(time.RFC3339)))
	})
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, "prune the history", func(tx *bolt.Tx) error {
		err := eachUser(tx, func(user string) (bool, error) {
			err := ascend(tx.Bucket(activationsBucket), below(user), nil, func(k, v []byte) (bool, error) {
				r, err := decode[faena.Record](k, v)
				if err != nil || !r.AdmittedAt.Before(before) || len(pruned) >= limit {
					return false, err
				}
				pruned = append(pruned, r)
				return true, nil
			})
			return len(pruned) < limit, err
		})
		for i := range pruned {
			if err == nil {
				err = remove(tx, &pruned[i])
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return pruned, nil
}

func remove(tx *bolt.Tx, r *faena.Record) error {
	for _, b := range [][]byte{payloadsBucket, activationsBucket} {
		if err := tx.Bucket(b).Delete(key(r.User, r.ID)); err != nil {
			return err
		}
	}
	for _, entry := range indexEntries(r) {
		if err := tx.Bucket(entry.bucket).Delete(entry.key); err != nil {
			return err
		}
	}
	return nil
}

// eachUser gives fn every user who has a history, in the order of keys, until fn returns false.
func eachUser(tx *bolt.Tx, fn func(user string) (more bool, err error)) error {
	c := tx.Bucket(activationsBucket).Cursor()
	for k, _ := c.First(); k != nil; {
		user, _, _ := bytes.Cut(k, []byte("/"))
		next := append(bytes.Clone(user), '/'+1) // beyond all that belongs to this one
		if more, err := fn(string(user)); err != nil || !more {
			return err
		}
		k, _ = c.Seek(next)
	}
	return nil
}

func horizon(tx *bolt.Tx) (time.Time, error) {
	value := tx.Bucket(metaBucket).Get(horizonKey)
	if value == nil {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339, string(value))
}

// HistoryStats implements faena.Documents.
func (s *Store) HistoryStats(ctx context.Context) (st faena.HistoryStats, err error) {
	err = s.view(ctx, "measure the history", func(tx *bolt.Tx) error {
		if st.Horizon, err = horizon(tx); err != nil {
			return err
		}
		return eachUser(tx, func(user string) (bool, error) {
			err := ascend(tx.Bucket(activationsBucket), below(user), nil, func(k, v []byte) (bool, error) {
				r, err := decode[faena.Record](k, v)
				if st.Oldest.IsZero() || r.AdmittedAt.Before(st.Oldest) {
					st.Oldest = r.AdmittedAt
				}
				return false, err
			})
			return true, err
		})
	})
	return st, err
}
