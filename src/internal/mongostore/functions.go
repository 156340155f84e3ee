package mongostore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"faena.dev/faena/internal/faena"
)

// A head is one document with the function's newest revision in it, so that number, revision and head change in one step, by
// compare-and-set on the head's version. The revisions before it are documents of their own: a revision is copied there just
// before the next one takes its place in the head. They are found by the head's incarnation: those of a function that had the
// name before are never seen, whoever was killed before they were removed.

// The tries of a compare-and-set, and how long it waits between two: others change the same document.
const (
	casTries = 200
	casWait  = 20 * time.Millisecond
)

// cas calls fn until it is done, which a fn is not that was overtaken by another change of its document.
func (s *Store) cas(ctx context.Context, fn func() (done bool, err error)) error {
	for range casTries {
		if done, err := fn(); err != nil || done {
			return err
		}
		select {
		case <-time.After(rand.N(casWait)):
		case <-ctx.Done():
			return s.failed(ctx, ctx.Err())
		}
	}
	return faena.Unavailable(faena.ComponentStore, "store_busy", "Others change the same all the time. Try again.", nil)
}

// withoutRevision leaves out of a head what is only asked for by number.
var withoutRevision = is("revision", 0)

// head reads a function's head; nil where there is none.
func (s *Store) head(ctx context.Context, user, name string, o ...*options.FindOneOptionsBuilder) (*functionDocument, error) {
	raw, err := s.in(functionsCollection).one(ctx, byID(key(user, name)), o...)
	if err != nil || raw == nil {
		return nil, err
	}
	d, err := decode[functionDocument](raw)
	return &d, err
}

// unchanged matches a head that is as it was read.
func (d *functionDocument) unchanged() bson.D {
	return bson.D{{Key: "_id", Value: d.ID}, {Key: "function.version", Value: int64(d.Function.Version)},
		{Key: "incarnation", Value: d.Incarnation}}
}

// older is the id of one of the revisions before the newest.
func (d *functionDocument) older(n int) string {
	return key(d.Function.User, d.Function.Name, d.Incarnation, number(n))
}

// newFunction makes the head of a function without revisions. Its version begins at random: one that is made again, even within the
// same millisecond, has another ETag.
func newFunction(user, name string) *functionDocument {
	version, created := rand.Uint32(), now()
	return &functionDocument{ID: key(user, name), Schema: faena.SchemaVersion,
		Incarnation: strconv.FormatInt(created.UnixMilli(), 36) + "-" + strconv.FormatUint(uint64(version), 36),
		Function:    faena.Function{Schema: faena.SchemaVersion, User: user, Name: name, Version: uint64(version), CreatedAt: created}}
}

// AddRevision implements faena.Documents.
func (s *Store) AddRevision(ctx context.Context, rev faena.Revision, c faena.Condition) (f faena.Function, created bool, err error) {
	err = s.call(ctx, "add a revision of function "+rev.Function, func(ctx context.Context) error {
		if gone, err := s.erased(ctx, rev.User); err != nil {
			return err
		} else if gone {
			return faena.NotFound("user", rev.User)
		}
		err := s.cas(ctx, func() (done bool, err error) {
			f, created, done, err = s.addRevision(ctx, rev, c)
			return done, err
		})
		if err != nil {
			return err
		}
		// The user may have been erased since: then this came too late to be erased with the rest.
		if gone, err := s.erased(ctx, rev.User); err != nil || !gone {
			return err
		}
		if err := s.sweep(ctx, rev.User); err != nil {
			return err
		}
		return faena.NotFound("user", rev.User)
	})
	if err != nil {
		return faena.Function{}, false, err
	}
	return f, created, nil
}

// addRevision is one try; it is not done where the head was changed meanwhile.
func (s *Store) addRevision(ctx context.Context, rev faena.Revision, c faena.Condition) (f faena.Function, created, done bool, err error) {
	d, err := s.head(ctx, rev.User, rev.Function)
	if err != nil {
		return f, false, false, err
	}
	exists := d != nil
	if !exists {
		d = newFunction(rev.User, rev.Function)
	}
	if err := c.Check(d.Function, exists); err != nil {
		return f, false, false, err
	}
	was := d.unchanged()
	if exists {
		// It may be there: of a try that was cut short or overtaken. A revision never changes, so that is the same.
		newest := revisionDocument{ID: d.older(d.Function.Latest), Schema: faena.SchemaVersion, Revision: d.Revision}
		if _, err := s.in(revisionsCollection).insert(ctx, newest); err != nil {
			return f, false, false, err
		}
	}
	d.Function.Latest++
	rev.Number, d.Function.Current, d.Group = d.Function.Latest, d.Function.Latest, rev.Spec.Group
	if d.Revision, err = encode(rev); err != nil {
		return f, false, false, err
	}
	d.change()
	if exists {
		done, err = s.in(functionsCollection).replace(ctx, was, d)
		return d.Function, false, done, err
	}
	there, err := s.in(functionsCollection).insert(ctx, d)
	return d.Function, true, len(there) == 0, err
}

func (d *functionDocument) change() {
	d.Function.Version++
	d.Function.UpdatedAt = now()
}

// SetCurrent implements faena.Documents.
func (s *Store) SetCurrent(ctx context.Context, user, name string, n int, c faena.Condition) (faena.Function, error) {
	return get(ctx, s, "change the revision of function "+name, func(ctx context.Context) (f faena.Function, err error) {
		err = s.cas(ctx, func() (bool, error) {
			d, err := s.head(ctx, user, name)
			if err != nil {
				return false, err
			}
			if d == nil {
				return false, faena.NotFound("function", name)
			}
			if err := c.Check(d.Function, true); err != nil {
				return false, err
			}
			raw, err := s.revision(ctx, d, n)
			if err != nil {
				return false, err
			}
			if raw == nil {
				return false, faena.NotFound("revision", fmt.Sprintf("%s/%d", name, n))
			}
			rev, err := decode[faena.Revision](raw)
			if err != nil {
				return false, err
			}
			was := d.unchanged()
			d.Function.Current, d.Group = n, rev.Spec.Group
			d.change()
			f = d.Function
			return s.in(functionsCollection).update(ctx, was, set(bson.E{Key: "group", Value: d.Group},
				bson.E{Key: "function.current", Value: n}, bson.E{Key: "function.version", Value: int64(f.Version)},
				bson.E{Key: "function.updated_at", Value: f.UpdatedAt}))
		})
		return f, err
	})
}

// revision reads one revision of a head; nil where there is none.
func (s *Store) revision(ctx context.Context, d *functionDocument, n int) (bson.Raw, error) {
	switch {
	case n < 1 || n > d.Function.Latest:
		return nil, nil
	case n == d.Function.Latest:
		return d.Revision, nil
	}
	raw, err := s.in(revisionsCollection).one(ctx, byID(d.older(n)))
	if err != nil || raw == nil {
		return nil, err
	}
	older, err := decode[revisionDocument](raw)
	return older.Revision, err
}

// Function implements faena.Documents.
func (s *Store) Function(ctx context.Context, user, name string) (faena.Function, error) {
	return get(ctx, s, "read function "+name, func(ctx context.Context) (f faena.Function, err error) {
		d, err := s.head(ctx, user, name, options.FindOne().SetProjection(withoutRevision))
		if err != nil {
			return f, err
		}
		if d == nil {
			return f, faena.NotFound("function", name)
		}
		return d.Function, nil
	})
}

// Functions implements faena.Documents.
func (s *Store) Functions(ctx context.Context, user, from string, limit int) ([]faena.Function, error) {
	return get(ctx, s, "list the functions of user "+user, func(ctx context.Context) ([]faena.Function, error) {
		if limit <= 0 {
			return nil, nil
		}
		raws, err := s.in(functionsCollection).list(ctx, is("_id", after(from, user)),
			options.Find().SetSort(is("_id", 1)).SetLimit(int64(limit)).SetProjection(withoutRevision))
		if err != nil {
			return nil, err
		}
		return decodeAll(raws, func(d functionDocument) (faena.Function, error) { return d.Function, nil })
	})
}

// Revision implements faena.Documents.
func (s *Store) Revision(ctx context.Context, user, name string, n int) (faena.Revision, error) {
	return get(ctx, s, "read a revision of function "+name, func(ctx context.Context) (rev faena.Revision, err error) {
		d, err := s.head(ctx, user, name)
		if err != nil {
			return rev, err
		}
		var raw bson.Raw
		if d != nil {
			if raw, err = s.revision(ctx, d, n); err != nil {
				return rev, err
			}
		}
		if raw == nil {
			return rev, faena.NotFound("revision", fmt.Sprintf("%s/%d", name, n))
		}
		return decode[faena.Revision](raw)
	})
}

// Revisions implements faena.Documents.
func (s *Store) Revisions(ctx context.Context, user, name string, below, limit int) ([]faena.Revision, error) {
	return get(ctx, s, "list the revisions of function "+name, func(ctx context.Context) ([]faena.Revision, error) {
		d, err := s.head(ctx, user, name)
		if err != nil || d == nil || limit <= 0 {
			return nil, err
		}
		var list []faena.Revision
		if below <= 0 || below > d.Function.Latest {
			below = d.Function.Latest
			rev, err := decode[faena.Revision](d.Revision)
			if err != nil {
				return nil, err
			}
			if list = append(list, rev); len(list) == limit {
				return list, nil
			}
		}
		raws, err := s.in(revisionsCollection).list(ctx, is("_id", before(number(below), user, name, d.Incarnation)),
			options.Find().SetSort(is("_id", -1)).SetLimit(int64(limit-len(list))))
		if err != nil {
			return nil, err
		}
		older, err := decodeAll(raws, func(d revisionDocument) (faena.Revision, error) { return decode[faena.Revision](d.Revision) })
		return append(list, older...), err
	})
}

// DeleteFunction implements faena.Documents. The function is gone with its head. Where the older revisions stay, because this was cut
// short, nobody sees them, and they go with the user.
func (s *Store) DeleteFunction(ctx context.Context, user, name string, c faena.Condition) error {
	return s.call(ctx, "delete function "+name, func(ctx context.Context) error {
		var d *functionDocument
		err := s.cas(ctx, func() (done bool, err error) {
			if d, err = s.head(ctx, user, name, options.FindOne().SetProjection(withoutRevision)); err != nil {
				return false, err
			}
			if d == nil {
				return false, faena.NotFound("function", name)
			}
			if err := c.Check(d.Function, true); err != nil {
				return false, err
			}
			n, err := s.in(functionsCollection).remove(ctx, d.unchanged())
			return n > 0, err
		})
		if err != nil {
			return err
		}
		return s.in(revisionsCollection).removeRange(ctx, below(user, name, d.Incarnation))
	})
}
