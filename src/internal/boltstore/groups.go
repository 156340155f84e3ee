package boltstore

import (
	"context"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/faena"
)

// PutGroup implements faena.Documents.
func (s *Store) PutGroup(ctx context.Context, g faena.Group) (created bool, err error) {
	err = s.update(ctx, "store group "+g.Name, func(tx *bolt.Tx) error {
		old, exists, err := group(tx, g.Name)
		if err != nil {
			return err
		}
		if created = !exists; exists {
			g.CreatedAt = old.CreatedAt
		}
		return put(tx.Bucket(groupsBucket), key(g.Name), g)
	})
	return created && err == nil, err
}

// Group implements faena.Documents.
func (s *Store) Group(ctx context.Context, name string) (g faena.Group, err error) {
	err = s.view(ctx, "read group "+name, func(tx *bolt.Tx) error {
		var exists bool
		if g, exists, err = group(tx, name); err != nil {
			return err
		}
		if !exists {
			return faena.NotFound("group", name)
		}
		return nil
	})
	if err != nil {
		return faena.Group{}, err
	}
	return g, nil
}

// Groups implements faena.Documents.
func (s *Store) Groups(ctx context.Context) (list []faena.Group, err error) {
	err = s.view(ctx, "list groups", func(tx *bolt.Tx) error {
		list, err = page[faena.Group](faena.MaxGroups, func(fn func(k, v []byte) (bool, error)) error {
			return ascend(tx.Bucket(groupsBucket), nil, nil, fn)
		})
		return err
	})
	return list, err
}

// DeleteGroup implements faena.Documents.
func (s *Store) DeleteGroup(ctx context.Context, name string) error {
	return s.update(ctx, "delete group "+name, func(tx *bolt.Tx) error {
		if name == "" || tx.Bucket(groupsBucket).Get(key(name)) == nil {
			return faena.NotFound("group", name)
		}
		return tx.Bucket(groupsBucket).Delete(key(name))
	})
}

// ConnectGroup implements faena.Documents.
func (s *Store) ConnectGroup(ctx context.Context, name string, at time.Time) error {
	return s.update(ctx, "mark group "+name+" as connected", func(tx *bolt.Tx) error {
		g, exists, err := group(tx, name)
		if err != nil {
			return err
		}
		if !exists {
			return faena.NotFound("group", name)
		}
		if g.ConnectedAt != nil {
			return nil
		}
		g.ConnectedAt = &at
		return put(tx.Bucket(groupsBucket), key(name), g)
	})
}

// GroupUses implements faena.Documents. It reads all users and heads, and a revision for each head: it is asked for when
// an operator removes a group.
func (s *Store) GroupUses(ctx context.Context, name string, limit int) (uses []faena.GroupUse, err error) {
	err = s.view(ctx, "list who uses group "+name, func(tx *bolt.Tx) error {
		if limit <= 0 {
			return nil
		}
		err := ascend(tx.Bucket(usersBucket), nil, nil, func(k, v []byte) (bool, error) {
			u, err := decode[faena.User](k, v)
			if _, granted := u.Groups[name]; granted && !u.Deleted && err == nil {
				uses = append(uses, faena.GroupUse{User: u.Name})
			}
			return len(uses) < limit, err
		})
		if err != nil || len(uses) >= limit {
			return err
		}
		return ascend(tx.Bucket(functionsBucket), nil, nil, func(k, v []byte) (bool, error) {
			f, err := decode[faena.Function](k, v)
			if err != nil {
				return false, err
			}
			rev, err := currentRevision(tx, f)
			if err == nil && rev.Spec.Group == name {
				uses = append(uses, faena.GroupUse{User: f.User, Function: f.Name})
			}
			return len(uses) < limit, err
		})
	})
	if err != nil {
		return nil, err
	}
	return uses, nil
}

func group(tx *bolt.Tx, name string) (g faena.Group, exists bool, err error) {
	k := key(name)
	if len(k) == 0 {
		return g, false, nil
	}
	value := tx.Bucket(groupsBucket).Get(k)
	if value == nil {
		return g, false, nil
	}
	g, err = decode[faena.Group](k, value)
	return g, true, err
}

func currentRevision(tx *bolt.Tx, f faena.Function) (rev faena.Revision, err error) {
	k := key(f.User, f.Name, number(f.Current))
	value := tx.Bucket(revisionsBucket).Get(k)
	if value == nil {
		return rev, fmt.Errorf("read revision %s: the head names it, and it is not there", k)
	}
	return decode[faena.Revision](k, value)
}
