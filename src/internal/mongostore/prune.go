package mongostore

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"faena.dev/faena/internal/faena"
)

// forgetAfter is how long it is known of a record that it was here: one that is recorded again meanwhile is counted no second time.
const forgetAfter = 24 * time.Hour

// Prune implements faena.Documents. Of a record there stays, for a day, a document with its id: whoever inserts it again finds that.
// A record that a newer version has written stays for that version.
func (s *Store) Prune(ctx context.Context, before time.Time, limit int) (gone []faena.Record, err error) {
	hour := before.UTC().Truncate(time.Hour)
	err = s.call(ctx, "prune the history", func(ctx context.Context) error {
		if err := s.setHorizon(ctx, hour); err != nil {
			return err
		}
		old := bson.D{{Key: "record.admitted_at", Value: is("$lt", hour)}, {Key: "record.schema", Value: is("$lte", faena.SchemaVersion)}}
		for len(gone) < limit {
			most := min(stepSize, limit-len(gone))
			raws, err := s.in(activationsCollection).list(ctx, old, s.using(byAdmission).
				SetSort(bson.D{{Key: "record.admitted_at", Value: 1}, {Key: "_id", Value: 1}}).SetLimit(int64(most)))
			if err != nil {
				return err
			}
			records, err := decodeAll(raws, func(d activationDocument) (faena.Record, error) { return decode[faena.Record](d.Record) })
			if err != nil {
				return err
			}
			if err := s.bury(ctx, raws); err != nil {
				return err
			}
			if gone = append(gone, records...); len(raws) < most {
				break
			}
		}
		return s.forget(ctx)
	})
	return gone, err
}

// setHorizon moves the horizon forward.
func (s *Store) setHorizon(ctx context.Context, hour time.Time) error {
	meta := s.in(metaCollection)
	return s.cas(ctx, func() (done bool, err error) {
		last, err := s.horizon(ctx)
		switch {
		case err != nil:
			return false, err
		case last.IsZero():
			there, err := meta.insert(ctx, horizonDocument{ID: horizonID, Schema: faena.SchemaVersion, Hour: hour})
			return len(there) == 0, err
		case !hour.After(last):
			return true, nil
		}
		return meta.update(ctx, bson.D{{Key: "_id", Value: horizonID}, {Key: "hour", Value: last}}, set(bson.E{Key: "hour", Value: hour}))
	})
}

func (s *Store) horizon(ctx context.Context) (time.Time, error) {
	raw, err := s.in(metaCollection).one(ctx, byID(horizonID))
	if err != nil || raw == nil {
		return time.Time{}, err
	}
	d, err := decode[horizonDocument](raw)
	return d.Hour, err
}

// bury makes of records what stays of them, and removes their payloads. What was not counted yet is counted before.
func (s *Store) bury(ctx context.Context, raws []bson.Raw) error {
	if err := s.count(ctx, slices.Sorted(maps.Keys(tallies(raws)))); err != nil {
		return err
	}
	var all []string
	months := map[string][]string{} // ids
	for _, raw := range raws {
		admitted, _ := raw.Lookup("record", "admitted_at").TimeOK()
		user, _ := raw.Lookup("record", "user").StringValueOK()
		m := monthID(user, admitted)
		all, months[m] = append(all, idOf(raw)), append(months[m], idOf(raw))
	}
	var changes []mongo.WriteModel
	for m, ids := range months {
		changes = append(changes, mongo.NewUpdateManyModel().
			SetFilter(bson.D{{Key: "_id", Value: in(ids)}, notPruned, notMarked}).
			SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: "mark", Value: pruned + m}, {Key: "pruned_at", Value: now()}}},
				{Key: "$unset", Value: bson.D{{Key: "record", Value: ""}, {Key: "payload", Value: ""}}}}))
	}
	activations := s.in(activationsCollection)
	if _, err := activations.bulk(ctx, changes); err != nil || len(all) == 0 {
		return err
	}
	if _, err := s.in(payloadsCollection).remove(ctx, is("_id", in(all))); err != nil {
		return err
	}
	return s.count(ctx, slices.Sorted(maps.Keys(months)))
}

var notMarked = bson.E{Key: "mark", Value: is("$exists", false)}

// forget removes what stayed of records that were pruned long ago, and what one who was killed has left to do with them.
func (s *Store) forget(ctx context.Context) error {
	activations := s.in(activationsCollection)
	for {
		raws, err := activations.list(ctx, is("pruned_at", is("$lt", now().Add(-forgetAfter))),
			s.using(byPruning).SetLimit(stepSize).SetProjection(markedFields))
		if err != nil || len(raws) == 0 {
			return err
		}
		if err := s.count(ctx, slices.Sorted(maps.Keys(tallies(raws)))); err != nil {
			return err
		}
		ids := make([]string, len(raws))
		for i, raw := range raws {
			ids[i] = idOf(raw)
		}
		if _, err := s.in(payloadsCollection).remove(ctx, is("_id", in(ids))); err != nil {
			return err
		}
		buried := bson.D{{Key: "_id", Value: in(ids)}, {Key: "pruned_at", Value: is("$exists", true)}, notMarked}
		if _, err := activations.remove(ctx, buried); err != nil {
			return err
		}
		if len(raws) < stepSize {
			return nil
		}
	}
}

// HistoryStats implements faena.Documents. The bytes are added up by month, as usage is.
func (s *Store) HistoryStats(ctx context.Context) (faena.HistoryStats, error) {
	return get(ctx, s, "measure the history", func(ctx context.Context) (st faena.HistoryStats, err error) {
		if st.Horizon, err = s.horizon(ctx); err != nil {
			return st, err
		}
		ever := bson.DateTime(math.MinInt64)
		raws, err := s.in(activationsCollection).list(ctx, is("record.admitted_at", is("$gte", ever)), s.using(byAdmission).
			SetSort(is("record.admitted_at", 1)).SetLimit(1).SetProjection(is("record.admitted_at", 1)))
		if err != nil {
			return st, err
		}
		for _, raw := range raws {
			if oldest, ok := raw.Lookup("record", "admitted_at").TimeOK(); ok {
				st.Oldest = oldest.UTC()
			}
		}
		raws, err = s.in(usageCollection).list(ctx, is("bytes", is("$gt", 0)),
			s.using(byBytes).SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "bytes", Value: 1}}))
		for _, raw := range raws {
			n, _ := raw.Lookup("bytes").AsInt64OK()
			st.Bytes += n
		}
		return st, err
	})
}

// using is a query for which there is an index, which is named so that the server need not guess.
func (s *Store) using(i index) *options.FindOptionsBuilder {
	o := options.Find()
	if s.indexed.Load() {
		o.SetHint(i.keys())
	}
	return o
}
