package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/faena"
)

const (
	// pruneStep is how many records one transaction of Prune removes: others wait some milliseconds for it.
	pruneStep = 200
	// markAge is how long a mark of a pruned record is kept. What is recorded again comes within minutes.
	markAge = 24 * time.Hour
)

// horizonKey holds the latest hour that Prune was called for.
var horizonKey = []byte("horizon")

// Prune implements faena.Documents. What it removes is looked for while others write, and goes in steps. Each leaves a mark,
// so that recording it again is still known for what it is. A record that a newer version has written stays for that version.
func (s *Store) Prune(ctx context.Context, before time.Time, limit int) (pruned []faena.Record, err error) {
	hour := before.UTC().Truncate(time.Hour)
	if err := s.setHorizon(ctx, hour); err != nil {
		return nil, err
	}
	user := "" // those before it have nothing left
	for len(pruned) < limit {
		most := min(pruneStep, limit-len(pruned))
		old, err := s.olderThan(ctx, hour, user, most)
		if err != nil {
			return pruned, err
		}
		if len(old) == 0 {
			break
		}
		gone, err := s.removeRecords(ctx, old)
		if pruned = append(pruned, gone...); err != nil {
			return pruned, err
		}
		if len(old) < most {
			break
		}
		user = old[len(old)-1].User
	}
	return pruned, s.forgetPruned(ctx)
}

// setHorizon moves the horizon forward. It writes nothing where it is there already: Prune is called often.
func (s *Store) setHorizon(ctx context.Context, hour time.Time) error {
	later := false
	err := s.view(ctx, "prune the history", func(tx *bolt.Tx) error {
		last, err := horizon(tx)
		later = hour.After(last)
		return err
	})
	if err != nil || !later {
		return err
	}
	return s.update(ctx, "prune the history", func(tx *bolt.Tx) error {
		last, err := horizon(tx)
		if err != nil || !hour.After(last) {
			return err
		}
		return tx.Bucket(metaBucket).Put(horizonKey, []byte(hour.Format(time.RFC3339)))
	})
}

func horizon(tx *bolt.Tx) (t time.Time, err error) {
	if value := tx.Bucket(metaBucket).Get(horizonKey); value != nil {
		if t, err = time.Parse(time.RFC3339, string(value)); err != nil {
			return t, fmt.Errorf("decode the horizon: %w", err)
		}
	}
	return t, nil
}

// olderThan finds records that were admitted before an hour, of the given user and those behind. A user's ids are in the
// order of admission: the first record that is not older is where the next user begins.
func (s *Store) olderThan(ctx context.Context, hour time.Time, user string, most int) (old []faena.Record, err error) {
	err = s.view(ctx, "look for history to prune", func(tx *bolt.Tx) error {
		return eachUser(tx.Bucket(activationsBucket), user, func(user string) (bool, error) {
			err := ascend(tx.Bucket(activationsBucket), below(user), nil, func(k, v []byte) (bool, error) {
				r, err := decode[faena.Record](k, v)
				newer := errors.Is(err, faena.ErrSchema)
				if err != nil && !newer || !r.AdmittedAt.Before(hour) {
					return false, err
				}
				if !newer {
					old = append(old, r)
				}
				return len(old) < most, nil
			})
			return len(old) < most, err
		})
	})
	return old, err
}

// removeRecords removes those of the records that are still there, and returns them.
func (s *Store) removeRecords(ctx context.Context, records []faena.Record) (gone []faena.Record, err error) {
	err = s.updateHistory(ctx, "prune the history", func(tx *bolt.Tx) (change int64, err error) {
		gone = gone[:0]
		mark := []byte(now().Format(time.RFC3339))
		for i := range records {
			size, err := remove(tx, &records[i])
			if err != nil {
				return 0, err
			}
			if size == 0 {
				continue // another Prune, or an erasure, was here first
			}
			if err := tx.Bucket(prunedBucket).Put(key(records[i].User, records[i].ID), mark); err != nil {
				return 0, err
			}
			change -= size
			gone = append(gone, records[i])
		}
		return change, nil
	})
	if err != nil {
		return nil, err
	}
	return gone, nil
}

// forgetPruned removes marks that are old.
func (s *Store) forgetPruned(ctx context.Context) error {
	for {
		var old [][]byte
		err := s.view(ctx, "look for marks of pruned history", func(tx *bolt.Tx) (err error) {
			old, err = oldMarks(tx.Bucket(prunedBucket), now().Add(-markAge), eraseStep)
			return err
		})
		if err != nil || len(old) == 0 {
			return err
		}
		err = s.update(ctx, "remove marks of pruned history", func(tx *bolt.Tx) error {
			for _, k := range old {
				if err := tx.Bucket(prunedBucket).Delete(k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(old) < eraseStep {
			return err
		}
	}
}

// oldMarks finds marks that were made before a time. One that was made later hides those behind it until it is old itself.
func oldMarks(b *bolt.Bucket, before time.Time, most int) (old [][]byte, err error) {
	err = eachUser(b, "", func(user string) (bool, error) {
		err := ascend(b, below(user), nil, func(k, v []byte) (bool, error) {
			made, err := time.Parse(time.RFC3339, string(v))
			if err != nil || !made.Before(before) {
				return false, err
			}
			old = append(old, bytes.Clone(k))
			return len(old) < most, nil
		})
		return len(old) < most, err
	})
	return old, err
}

// eachUser gives fn every user who has a key in b, in the order of keys, from the given one on, until fn returns false.
// It takes one seek for each.
func eachUser(b *bolt.Bucket, from string, fn func(user string) (more bool, err error)) error {
	c := b.Cursor()
	for k, _ := c.Seek([]byte(from)); k != nil; {
		user, _, _ := bytes.Cut(k, []byte{'/'})
		beyond := append(bytes.Clone(user), '/'+1)
		if more, err := fn(string(user)); err != nil || !more {
			return err
		}
		k, _ = c.Seek(beyond)
	}
	return nil
}
