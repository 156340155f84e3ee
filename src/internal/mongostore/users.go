package mongostore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"faena.dev/faena/internal/faena"
)

// A user's id is the name in lower case: of two spellings one can be stored, whoever else stores at the same time.

func userID(name string) string { return strings.ToLower(name) }

// profile reads what stands under a name, in whichever spelling, a tombstone included; nil where there is nothing.
func (s *Store) profile(ctx context.Context, name string) (*userDocument, error) {
	raw, err := s.in(usersCollection).one(ctx, byID(userID(name)))
	if err != nil || raw == nil {
		return nil, err
	}
	d, err := decode[userDocument](raw)
	return &d, err
}

// PutUser implements faena.Documents.
func (s *Store) PutUser(ctx context.Context, u faena.User) (bool, error) {
	return get(ctx, s, "store user "+u.Name, func(ctx context.Context) (created bool, err error) {
		err = s.cas(ctx, func() (done bool, err error) {
			created, done, err = s.putUser(ctx, u)
			return done, err
		})
		return created, err
	})
}

// putUser is one try; it is not done where the user was made or erased meanwhile.
func (s *Store) putUser(ctx context.Context, u faena.User) (created, done bool, err error) {
	old, err := s.profile(ctx, u.Name)
	if err != nil {
		return false, false, err
	}
	d := userDocument{ID: userID(u.Name), Schema: faena.SchemaVersion, Granted: slices.Sorted(maps.Keys(u.Groups)), User: u}
	switch {
	case old == nil:
		there, err := s.in(usersCollection).insert(ctx, d)
		return true, len(there) == 0, err
	case old.User.Name != u.Name:
		return false, false, conflict(fmt.Sprintf("The name %q differs from an earlier user's only in case.", u.Name))
	case old.User.Deleted:
		return false, false, conflict(fmt.Sprintf("The name %q belonged to a user who was deleted; it is never given again.", u.Name))
	}
	change, err := replacement(d)
	if err != nil {
		return false, false, err
	}
	done, err = s.in(usersCollection).update(ctx, bson.D{{Key: "_id", Value: d.ID}, notDeleted}, change)
	return false, done, err
}

// replacement sets the fields of a profile by name, so that those it does not name stay, whoever changes them meanwhile: the time
// it was made, and what is left out where it is empty, which is the password.
func replacement(d userDocument) (bson.D, error) {
	raw, err := encode(d.User)
	if err != nil {
		return nil, err
	}
	fields, err := raw.Elements()
	if err != nil {
		return nil, fmt.Errorf("encode user %s: %w", d.User.Name, err)
	}
	change := bson.D{{Key: "schema", Value: d.Schema}, {Key: "granted", Value: d.Granted}}
	for _, f := range fields {
		if f.Key() != "created_at" {
			change = append(change, bson.E{Key: "user." + f.Key(), Value: f.Value()})
		}
	}
	return set(change...), nil
}

// SetPassword implements faena.Documents.
func (s *Store) SetPassword(ctx context.Context, name, hash string) error {
	return s.call(ctx, "set the password of user "+name, func(ctx context.Context) error {
		known := is("$lte", faena.SchemaVersion)
		profile := bson.D{{Key: "_id", Value: userID(name)}, {Key: "user.name", Value: name}, notDeleted,
			{Key: "schema", Value: known}, {Key: "user.schema", Value: known}}
		done, err := s.in(usersCollection).update(ctx, profile,
			set(bson.E{Key: "user.password_hash", Value: hash}, bson.E{Key: "user.updated_at", Value: now()}))
		if err != nil || done {
			return err
		}
		if _, err := s.profile(ctx, name); err != nil { // it is one of a newer version
			return err
		}
		return faena.NotFound("user", name)
	})
}

// notDeleted matches a profile, and no tombstone.
var notDeleted = bson.E{Key: "user.deleted", Value: is("$ne", true)}

func conflict(message string) error {
	return &faena.Error{Kind: faena.KindConflict, Reason: "name_taken", Component: faena.ComponentCaller, Message: message}
}

// User implements faena.Documents.
func (s *Store) User(ctx context.Context, name string) (faena.User, error) {
	return get(ctx, s, "read user "+name, func(ctx context.Context) (u faena.User, err error) {
		d, err := s.profile(ctx, name)
		if err != nil {
			return u, err
		}
		if d == nil || d.User.Name != name || d.User.Deleted {
			return u, faena.NotFound("user", name)
		}
		return d.User, nil
	})
}

// Users implements faena.Documents. Tombstones on the way are walked over; they are few.
func (s *Store) Users(ctx context.Context, from string, limit int) ([]faena.User, error) {
	return get(ctx, s, "list users", func(ctx context.Context) ([]faena.User, error) {
		if limit <= 0 {
			return nil, nil
		}
		raws, err := s.in(usersCollection).list(ctx, bson.D{{Key: "user.name", Value: is("$gt", from)}, notDeleted},
			options.Find().SetSort(is("user.name", 1)).SetLimit(int64(limit)))
		if err != nil {
			return nil, err
		}
		return decodeAll(raws, func(d userDocument) (faena.User, error) { return d.User, nil })
	})
}

// erased reports whether a user was deleted: nothing of such a user is stored any more.
func (s *Store) erased(ctx context.Context, name string) (bool, error) {
	gone, err := s.allErased(ctx, []string{name})
	return gone[name], err
}

// allErased tells who of some users was deleted.
func (s *Store) allErased(ctx context.Context, names []string) (map[string]bool, error) {
	ids := make([]string, len(names))
	for i, name := range names {
		ids[i] = userID(name)
	}
	raws, err := s.in(usersCollection).list(ctx, bson.D{{Key: "_id", Value: in(ids)}, {Key: "user.deleted", Value: true}},
		options.Find().SetProjection(is("user.name", 1)))
	gone := map[string]bool{}
	for _, raw := range raws {
		if name, ok := raw.Lookup("user", "name").StringValueOK(); ok {
			gone[name] = true
		}
	}
	return gone, err
}
