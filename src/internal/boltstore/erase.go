package boltstore

import (
	"context"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/faena"
)

// eraseStep is how many keys one transaction of an erasure removes: others wait some milliseconds for it.
const eraseStep = 1000

// owned are the buckets whose keys begin with a user's name.
var owned = [][]byte{functionsBucket, revisionsBucket, byFunctionBucket, byStateBucket, byBothBucket,
	payloadsBucket, activationsBucket, prunedBucket, usageBucket, usageTotalsBucket}

// EraseUser implements faena.Documents. The tombstone and a note of what is to be done are written first; from then
// on nothing of the user is added. What there is goes in steps, so that others are not held up. Where ctx ends, or the
// process, before all is gone, the rest goes with the same call made again, or at the next Open.
func (s *Store) EraseUser(ctx context.Context, name string) error {
	err := s.update(ctx, "delete user "+name, func(tx *bolt.Tx) error {
		if name != "" && tx.Bucket(erasuresBucket).Get(key(name)) != nil {
			return nil // it was cut short
		}
		u, exists, err := user(tx, name)
		if err != nil {
			return err
		}
		if !exists || u.Deleted {
			return faena.NotFound("user", name)
		}
		tombstone := faena.User{Schema: faena.SchemaVersion, Name: name, Deleted: true, CreatedAt: u.CreatedAt, UpdatedAt: now()}
		if err := put(tx.Bucket(usersBucket), key(name), tombstone); err != nil {
			return err
		}
		return tx.Bucket(erasuresBucket).Put(key(name), []byte{})
	})
	if err != nil {
		return err
	}
	for done := false; !done; {
		err := s.updateHistory(ctx, "erase what belongs to user "+name, func(tx *bolt.Tx) (change int64, err error) {
			done, change, err = eraseSome(tx, name)
			return change, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eraseSome removes the next eraseStep keys of a user, and with the last of them the note that there is more to do.
func eraseSome(tx *bolt.Tx, name string) (done bool, change int64, err error) {
	left := eraseStep
	for _, bucket := range owned {
		n, bytes, err := removeBelow(tx.Bucket(bucket), below(name), left)
		if err != nil {
			return false, 0, err
		}
		if isMeasured(bucket) {
			change -= bytes
		}
		if left -= n; left == 0 {
			return false, change, nil
		}
	}
	return true, change, tx.Bucket(erasuresBucket).Delete(key(name))
}

// finishErasures does the rest of what a process that has ended left undone.
func (s *Store) finishErasures() error {
	for {
		more := false
		err := s.db.Update(func(tx *bolt.Tx) error {
			name, _ := tx.Bucket(erasuresBucket).Cursor().First()
			if more = name != nil; !more {
				return nil
			}
			_, _, err := eraseSome(tx, string(name))
			return err
		})
		if err != nil || !more {
			return err
		}
	}
}
