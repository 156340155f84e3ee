package boltstore

import (
	"context"
	"fmt"
	"math"
	"time"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
)

// number writes a revision's number so that keys are in its order.
func number(n int) string { return fmt.Sprintf("%010d", n) }

// now is the time as every adapter keeps it, in milliseconds.
func now() time.Time { return clock.Now().Truncate(time.Millisecond) }

// AddRevision implements faena.Documents.
func (s *Store) AddRevision(ctx context.Context, rev faena.Revision, c faena.Condition) (f faena.Function, created bool, err error) {
	err = s.update(ctx, "add a revision of function "+rev.Function, func(tx *bolt.Tx) error {
		if gone, err := erased(tx, rev.User); err != nil {
			return err
		} else if gone {
			return faena.NotFound("user", rev.User)
		}
		f, created, err = function(tx, rev.User, rev.Function)
		if err != nil {
			return err
		}
		created = !created
		if err := c.Check(f, !created); err != nil {
			return err
		}
		if created {
			f = faena.Function{Schema: faena.SchemaVersion, User: rev.User, Name: rev.Function, CreatedAt: now()}
		}
		f.Latest++
		f.Current, rev.Number = f.Latest, f.Latest
		if err := put(tx.Bucket(revisionsBucket), key(rev.User, rev.Function, number(rev.Number)), rev); err != nil {
			return err
		}
		return putFunction(tx, &f)
	})
	if err != nil {
		return faena.Function{}, false, err
	}
	return f, created, nil
}

// SetCurrent implements faena.Documents.
func (s *Store) SetCurrent(ctx context.Context, user, name string, n int, c faena.Condition) (f faena.Function, err error) {
	err = s.update(ctx, "change the revision of function "+name, func(tx *bolt.Tx) error {
		var exists bool
		if f, exists, err = function(tx, user, name); err != nil {
			return err
		}
		if !exists {
			return faena.NotFound("function", name)
		}
		if err := c.Check(f, true); err != nil {
			return err
		}
		if tx.Bucket(revisionsBucket).Get(key(user, name, number(n))) == nil {
			return faena.NotFound("revision", fmt.Sprintf("%s/%d", name, n))
		}
		f.Current = n
		return putFunction(tx, &f)
	})
	if err != nil {
		return faena.Function{}, err
	}
	return f, nil
}

// Function implements faena.Documents.
func (s *Store) Function(ctx context.Context, user, name string) (f faena.Function, err error) {
	err = s.view(ctx, "read function "+name, func(tx *bolt.Tx) error {
		var exists bool
		if f, exists, err = function(tx, user, name); err != nil {
			return err
		}
		if !exists {
			return faena.NotFound("function", name)
		}
		return nil
	})
	return f, err
}

// Functions implements faena.Documents.
func (s *Store) Functions(ctx context.Context, user, after string, limit int) (list []faena.Function, err error) {
	err = s.view(ctx, "list the functions of user "+user, func(tx *bolt.Tx) error {
		list, err = page[faena.Function](limit, func(fn func(k, v []byte) (bool, error)) error {
			return ascend(tx.Bucket(functionsBucket), below(user), []byte(after), fn)
		})
		return err
	})
	return list, err
}

// Revision implements faena.Documents.
func (s *Store) Revision(ctx context.Context, user, name string, n int) (rev faena.Revision, err error) {
	err = s.view(ctx, "read a revision of function "+name, func(tx *bolt.Tx) error {
		k := key(user, name, number(n))
		value := tx.Bucket(revisionsBucket).Get(k)
		if value == nil {
			return faena.NotFound("revision", fmt.Sprintf("%s/%d", name, n))
		}
		rev, err = decode[faena.Revision](k, value)
		return err
	})
	return rev, err
}

// Revisions implements faena.Documents.
func (s *Store) Revisions(ctx context.Context, user, name string, before, limit int) (list []faena.Revision, err error) {
	var from []byte
	if before > 0 {
		from = []byte(number(before))
	}
	err = s.view(ctx, "list the revisions of function "+name, func(tx *bolt.Tx) error {
		list, err = page[faena.Revision](limit, func(fn func(k, v []byte) (bool, error)) error {
			return descend(tx.Bucket(revisionsBucket), below(user, name), from, fn)
		})
		return err
	})
	return list, err
}

// DeleteFunction implements faena.Documents.
func (s *Store) DeleteFunction(ctx context.Context, user, name string, c faena.Condition) error {
	return s.update(ctx, "delete function "+name, func(tx *bolt.Tx) error {
		f, exists, err := function(tx, user, name)
		if err != nil {
			return err
		}
		if !exists {
			return faena.NotFound("function", name)
		}
		if err := c.Check(f, true); err != nil {
			return err
		}
		if err := tx.Bucket(functionsBucket).Delete(key(user, name)); err != nil {
			return err
		}
		_, _, err = removeBelow(tx.Bucket(revisionsBucket), below(user, name), math.MaxInt)
		return err
	})
}

func function(tx *bolt.Tx, user, name string) (f faena.Function, exists bool, err error) {
	k := key(user, name)
	value := tx.Bucket(functionsBucket).Get(k)
	if value == nil {
		return f, false, nil
	}
	f, err = decode[faena.Function](k, value)
	return f, true, err
}

// putFunction writes a changed head. Versions come from one sequence for all functions: one that is made again, even
// within the same millisecond, has another ETag than before.
func putFunction(tx *bolt.Tx, f *faena.Function) error {
	b := tx.Bucket(functionsBucket)
	version, err := b.NextSequence()
	if err != nil {
		return err
	}
	f.Version, f.UpdatedAt = version, now()
	return put(b, key(f.User, f.Name), f)
}

// page decodes what walk gives, at most limit documents.
func page[T document](limit int, walk func(fn func(k, v []byte) (bool, error)) error) ([]T, error) {
	var list []T
	if limit <= 0 {
		return nil, nil
	}
	err := walk(func(k, v []byte) (bool, error) {
		d, err := decode[T](k, v)
		if err != nil {
			return false, err
		}
		list = append(list, d)
		return len(list) < limit, nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}
