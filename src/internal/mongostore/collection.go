package mongostore

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// collection runs commands, each with a deadline of its own, and makes of their errors what the port promises.
type collection struct {
	s *Store
	c *mongo.Collection
}

func (s *Store) in(name string) collection { return collection{s, s.db.Load().Collection(name)} }

func (c collection) run(ctx context.Context, timeout time.Duration, fn func(ctx context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := fn(limited); err != nil {
		return c.s.failed(ctx, err)
	}
	return nil
}

// one returns a document; nil where there is none.
func (c collection) one(ctx context.Context, filter bson.D, o ...*options.FindOneOptionsBuilder) (raw bson.Raw, err error) {
	err = c.run(ctx, c.s.o.Timeout, func(ctx context.Context) error {
		list := make([]options.Lister[options.FindOneOptions], len(o))
		for i := range o {
			list[i] = o[i]
		}
		raw, err = c.c.FindOne(ctx, filter, list...).Raw()
		if errors.Is(err, mongo.ErrNoDocuments) {
			raw, err = nil, nil
		}
		return err
	})
	return raw, err
}

// list returns the documents that a query gives.
func (c collection) list(ctx context.Context, filter bson.D, o *options.FindOptionsBuilder) (raws []bson.Raw, err error) {
	err = c.run(ctx, c.s.o.ListTimeout, func(ctx context.Context) error {
		cursor, err := c.c.Find(ctx, filter, o)
		if err != nil {
			return err
		}
		return cursor.All(ctx, &raws)
	})
	return raws, err
}

// insert stores documents in any order, and returns the places of those whose ids are there already.
func (c collection) insert(ctx context.Context, documents ...any) (there []int, err error) {
	raws := make([]bson.Raw, len(documents))
	for i, d := range documents {
		if raws[i], err = encode(d); err != nil {
			return nil, err
		}
	}
	return c.insertRaw(ctx, raws)
}

func (c collection) insertRaw(ctx context.Context, raws []bson.Raw) (there []int, err error) {
	if len(raws) == 0 {
		return nil, nil
	}
	err = c.run(ctx, c.s.o.ListTimeout, func(ctx context.Context) error {
		_, err := c.c.InsertMany(ctx, raws, options.InsertMany().SetOrdered(false))
		if failed, ok := errors.AsType[mongo.BulkWriteException](err); ok && failed.WriteConcernError == nil {
			for _, e := range failed.WriteErrors {
				if !mongo.IsDuplicateKeyError(e.WriteError) {
					return err
				}
				there = append(there, e.Index)
			}
			return nil
		}
		return err
	})
	return there, err
}

// update changes one document, and reports whether there is one that the filter matches.
func (c collection) update(ctx context.Context, filter, change bson.D) (matched bool, err error) {
	err = c.run(ctx, c.s.o.Timeout, func(ctx context.Context) error {
		r, err := c.c.UpdateOne(ctx, filter, change)
		if err == nil {
			matched = r.MatchedCount > 0
		}
		return err
	})
	return matched, err
}

// updateAll changes every document that the filter matches.
func (c collection) updateAll(ctx context.Context, filter, change bson.D) error {
	return c.run(ctx, c.s.o.ListTimeout, func(ctx context.Context) error {
		_, err := c.c.UpdateMany(ctx, filter, change)
		return err
	})
}

// replace writes a whole document over the one that the filter matches, and reports whether there is one.
func (c collection) replace(ctx context.Context, filter bson.D, document any) (matched bool, err error) {
	raw, err := encode(document)
	if err != nil {
		return false, err
	}
	err = c.run(ctx, c.s.o.Timeout, func(ctx context.Context) error {
		r, err := c.c.ReplaceOne(ctx, filter, raw)
		if err == nil {
			matched = r.MatchedCount > 0
		}
		return err
	})
	return matched, err
}

// bulk makes changes of several documents, in any order, and returns how many documents their filters matched.
func (c collection) bulk(ctx context.Context, changes []mongo.WriteModel) (matched int, err error) {
	if len(changes) == 0 {
		return 0, nil
	}
	err = c.run(ctx, c.s.o.ListTimeout, func(ctx context.Context) error {
		r, err := c.c.BulkWrite(ctx, changes, options.BulkWrite().SetOrdered(false))
		if err == nil {
			matched = int(r.MatchedCount)
		}
		return err
	})
	return matched, err
}

// remove removes what the filter matches, and returns how many that were.
func (c collection) remove(ctx context.Context, filter bson.D) (n int, err error) {
	err = c.run(ctx, c.s.o.ListTimeout, func(ctx context.Context) error {
		r, err := c.c.DeleteMany(ctx, filter)
		if err == nil {
			n = int(r.DeletedCount)
		}
		return err
	})
	return n, err
}

// stepSize is how many documents one command finds or removes where there may be very many.
const stepSize = 1000

// removeRange removes every document with an id in a range, the first of it step by step: no command takes long.
func (c collection) removeRange(ctx context.Context, ids bson.D) error {
	for {
		raws, err := c.list(ctx, is("_id", ids), options.Find().SetProjection(is("_id", 1)).SetSort(is("_id", 1)).SetSkip(stepSize-1).SetLimit(1))
		if err != nil {
			return err
		}
		step := ids
		if len(raws) > 0 {
			step = bson.D{ids[0], {Key: "$lte", Value: idOf(raws[0])}}
		}
		if _, err := c.remove(ctx, is("_id", step)); err != nil || len(raws) == 0 {
			return err
		}
	}
}

func idOf(raw bson.Raw) string {
	id, _ := raw.Lookup("_id").StringValueOK()
	return id
}
