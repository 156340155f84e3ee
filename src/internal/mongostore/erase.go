package mongostore

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"faena.dev/faena/internal/faena"
)

// erasure is how far a tombstone's erasure is.
//
//	begun ──all was removed──► done ──removed once more when a store is opened, a minute later──► (none)
//
// The second time is for those who were killed between a look at the profile, which was there then, and their last one.
type erasure string

const (
	erasureBegun erasure = "begun"
	erasureDone  erasure = "done"
)

// settled is how old a tombstone is when nobody can be left who began to add something before it: longer than any call takes.
const settled = time.Minute

// owned are the collections with ids that begin with a user's name.
var owned = []string{functionsCollection, revisionsCollection, activationsCollection, payloadsCollection, usageCollection}

// EraseUser implements faena.Documents. The tombstone is written first; from then on nothing of the user is added. What there is
// goes in steps. Where ctx ends, or the process, before all is gone, the rest goes with the same call made again, or when a store
// is opened next.
func (s *Store) EraseUser(ctx context.Context, name string) error {
	return s.call(ctx, "delete user "+name, func(ctx context.Context) error {
		err := s.cas(ctx, func() (done bool, err error) {
			d, err := s.profile(ctx, name)
			switch {
			case err != nil:
				return false, err
			case d == nil || d.User.Name != name || d.User.Deleted && d.Erasure != erasureBegun:
				return false, faena.NotFound("user", name)
			case d.User.Deleted:
				return true, nil // it was cut short
			}
			tombstone := userDocument{ID: d.ID, Schema: faena.SchemaVersion, Erasure: erasureBegun,
				User: faena.User{Schema: faena.SchemaVersion, Name: name, Deleted: true, CreatedAt: d.User.CreatedAt, UpdatedAt: now()}}
			return s.in(usersCollection).replace(ctx, bson.D{{Key: "_id", Value: d.ID}, notDeleted}, tombstone)
		})
		if err != nil {
			return err
		}
		if err := s.sweep(ctx, name); err != nil {
			return err
		}
		_, err = s.in(usersCollection).update(ctx, bson.D{{Key: "_id", Value: userID(name)}, {Key: "erasure", Value: erasureBegun}},
			set(bson.E{Key: "erasure", Value: erasureDone}))
		return err
	})
}

// sweep removes all that belongs to a user.
func (s *Store) sweep(ctx context.Context, name string) error {
	for _, c := range owned {
		if err := s.in(c).removeRange(ctx, below(name)); err != nil {
			return err
		}
	}
	return nil
}

// finishErasures does the rest of what others have left undone.
func (s *Store) finishErasures(ctx context.Context) error {
	users := s.in(usersCollection)
	raws, err := users.list(ctx, is("erasure", in([]erasure{erasureBegun, erasureDone})), options.Find())
	if err != nil {
		return err
	}
	for _, raw := range raws {
		d, err := decode[userDocument](raw)
		if err != nil {
			return err
		}
		if err := s.sweep(ctx, d.User.Name); err != nil {
			return err
		}
		next := set(bson.E{Key: "erasure", Value: erasureDone})
		if time.Since(d.User.UpdatedAt) > settled {
			next = is("$unset", is("erasure", ""))
		}
		if _, err := users.update(ctx, byID(d.ID), next); err != nil {
			return err
		}
	}
	return nil
}
