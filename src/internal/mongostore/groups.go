package mongostore

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"faena.dev/faena/internal/faena"
)

// PutGroup implements faena.Documents.
func (s *Store) PutGroup(ctx context.Context, g faena.Group) (bool, error) {
	return get(ctx, s, "store group "+g.Name, func(ctx context.Context) (created bool, err error) {
		groups := s.in(groupsCollection)
		err = s.cas(ctx, func() (done bool, err error) {
			raw, err := groups.one(ctx, byID(g.Name))
			if err != nil {
				return false, err
			}
			d := groupDocument{ID: g.Name, Schema: faena.SchemaVersion, Group: g}
			if raw == nil {
				there, err := groups.insert(ctx, d)
				created = true
				return len(there) == 0, err
			}
			old, err := decode[groupDocument](raw)
			if err != nil {
				return false, err
			}
			created, d.Group.CreatedAt = false, old.Group.CreatedAt
			return groups.replace(ctx, bson.D{{Key: "_id", Value: g.Name}, {Key: "group.created_at", Value: old.Group.CreatedAt}}, d)
		})
		return created, err
	})
}

// Group implements faena.Documents.
func (s *Store) Group(ctx context.Context, name string) (faena.Group, error) {
	return get(ctx, s, "read group "+name, func(ctx context.Context) (g faena.Group, err error) {
		raw, err := s.in(groupsCollection).one(ctx, byID(name))
		if err != nil {
			return g, err
		}
		if raw == nil {
			return g, faena.NotFound("group", name)
		}
		d, err := decode[groupDocument](raw)
		return d.Group, err
	})
}

// Groups implements faena.Documents.
func (s *Store) Groups(ctx context.Context) ([]faena.Group, error) {
	return get(ctx, s, "list groups", func(ctx context.Context) ([]faena.Group, error) {
		raws, err := s.in(groupsCollection).list(ctx, bson.D{}, options.Find().SetSort(is("_id", 1)).SetLimit(faena.MaxGroups))
		if err != nil {
			return nil, err
		}
		return decodeAll(raws, func(d groupDocument) (faena.Group, error) { return d.Group, nil })
	})
}

// DeleteGroup implements faena.Documents.
func (s *Store) DeleteGroup(ctx context.Context, name string) error {
	return s.call(ctx, "delete group "+name, func(ctx context.Context) error {
		n, err := s.in(groupsCollection).remove(ctx, byID(name))
		if err == nil && n == 0 {
			err = faena.NotFound("group", name)
		}
		return err
	})
}

// ConnectGroup implements faena.Documents.
func (s *Store) ConnectGroup(ctx context.Context, name string, at time.Time) error {
	return s.call(ctx, "mark group "+name+" as connected", func(ctx context.Context) error {
		groups := s.in(groupsCollection)
		pending := bson.D{{Key: "_id", Value: name}, {Key: "group.connected_at", Value: is("$exists", false)}}
		if done, err := groups.update(ctx, pending, set(bson.E{Key: "group.connected_at", Value: at})); err != nil || done {
			return err
		}
		raw, err := groups.one(ctx, byID(name))
		if err == nil && raw == nil {
			err = faena.NotFound("group", name)
		}
		return err
	})
}

// GroupUses implements faena.Documents.
func (s *Store) GroupUses(ctx context.Context, name string, limit int) ([]faena.GroupUse, error) {
	return get(ctx, s, "list who uses group "+name, func(ctx context.Context) ([]faena.GroupUse, error) {
		if limit <= 0 {
			return nil, nil
		}
		raws, err := s.in(usersCollection).list(ctx, is("granted", name),
			options.Find().SetSort(is("user.name", 1)).SetLimit(int64(limit)).SetProjection(is("user.name", 1)))
		if err != nil {
			return nil, err
		}
		var uses []faena.GroupUse
		for _, raw := range raws {
			user, _ := raw.Lookup("user", "name").StringValueOK()
			uses = append(uses, faena.GroupUse{User: user})
		}
		if len(uses) >= limit {
			return uses, nil
		}
		raws, err = s.in(functionsCollection).list(ctx, is("group", name),
			options.Find().SetSort(is("_id", 1)).SetLimit(int64(limit-len(uses))).
				SetProjection(bson.D{{Key: "function.user", Value: 1}, {Key: "function.name", Value: 1}}))
		if err != nil {
			return nil, err
		}
		for _, raw := range raws {
			user, _ := raw.Lookup("function", "user").StringValueOK()
			function, _ := raw.Lookup("function", "name").StringValueOK()
			uses = append(uses, faena.GroupUse{User: user, Function: function})
		}
		return uses, nil
	})
}
