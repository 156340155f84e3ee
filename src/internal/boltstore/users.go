package boltstore

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/faena"
)

// PutUser implements faena.Documents.
func (s *Store) PutUser(ctx context.Context, u faena.User) (created bool, err error) {
	err = s.update(ctx, "store user "+u.Name, func(tx *bolt.Tx) error {
		names := tx.Bucket(namesBucket)
		lower := []byte(strings.ToLower(u.Name))
		taken := names.Get(lower)
		created = taken == nil
		if created {
			if err := names.Put(lower, []byte(u.Name)); err != nil {
				return err
			}
			return put(tx.Bucket(usersBucket), key(u.Name), u)
		}
		if string(taken) != u.Name {
			return conflict(fmt.Sprintf("The name %q differs from an earlier user's only in case.", u.Name))
		}
		old, _, err := user(tx, u.Name)
		if err != nil {
			return err
		}
		if old.Deleted {
			return conflict(fmt.Sprintf("The name %q belonged to a user who was deleted; it is never given again.", u.Name))
		}
		u.CreatedAt, u.PasswordHash = old.CreatedAt, cmp.Or(u.PasswordHash, old.PasswordHash)
		return put(tx.Bucket(usersBucket), key(u.Name), u)
	})
	return created && err == nil, err
}

// SetPassword implements faena.Documents.
func (s *Store) SetPassword(ctx context.Context, name, hash string) error {
	return s.update(ctx, "set the password of user "+name, func(tx *bolt.Tx) error {
		u, exists, err := user(tx, name)
		if err != nil {
			return err
		}
		if !exists || u.Deleted {
			return faena.NotFound("user", name)
		}
		u.PasswordHash, u.UpdatedAt = hash, now()
		return put(tx.Bucket(usersBucket), key(name), u)
	})
}

func conflict(message string) error {
	return &faena.Error{Kind: faena.KindConflict, Reason: "name_taken", Component: faena.ComponentCaller, Message: message}
}

// User implements faena.Documents.
func (s *Store) User(ctx context.Context, name string) (u faena.User, err error) {
	err = s.view(ctx, "read user "+name, func(tx *bolt.Tx) error {
		var exists bool
		if u, exists, err = user(tx, name); err != nil {
			return err
		}
		if !exists || u.Deleted {
			return faena.NotFound("user", name)
		}
		return nil
	})
	if err != nil {
		return faena.User{}, err
	}
	return u, nil
}

// Users implements faena.Documents. Tombstones on the way are walked over; they are few.
func (s *Store) Users(ctx context.Context, after string, limit int) (list []faena.User, err error) {
	err = s.view(ctx, "list users", func(tx *bolt.Tx) error {
		if limit <= 0 {
			return nil
		}
		return ascend(tx.Bucket(usersBucket), nil, []byte(after), func(k, v []byte) (bool, error) {
			u, err := decode[faena.User](k, v)
			if err == nil && !u.Deleted {
				list = append(list, u)
			}
			return len(list) < limit, err
		})
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func user(tx *bolt.Tx, name string) (u faena.User, exists bool, err error) {
	k := key(name)
	if len(k) == 0 {
		return u, false, nil
	}
	value := tx.Bucket(usersBucket).Get(k)
	if value == nil {
		return u, false, nil
	}
	u, err = decode[faena.User](k, value)
	return u, true, err
}

// erased reports whether a user was deleted: nothing of such a user is stored any more.
func erased(tx *bolt.Tx, name string) (bool, error) {
	u, exists, err := user(tx, name)
	return exists && u.Deleted, err
}
