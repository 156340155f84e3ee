package mongostore

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"faena.dev/faena/internal/faena"
)

// Insert implements faena.Documents. Payloads are stored before records, and records are counted after they are stored: the same batch
// again finishes whatever was cut short.
func (s *Store) Insert(ctx context.Context, records []faena.Record) error {
	for i := range records {
		if !records[i].State.Terminal() {
			return fmt.Errorf("record activation %s: it is %s, not ended", records[i].ID, records[i].State)
		}
	}
	if len(records) == 0 {
		return ctx.Err()
	}
	return s.call(ctx, "record activations", func(ctx context.Context) error {
		b, err := newBatch(records)
		if err != nil {
			return err
		}
		gone, err := s.allErased(ctx, b.users)
		if err != nil {
			return err
		}
		// What one who was killed has stored of them goes as well.
		if err := s.drop(ctx, b.without(gone)); err != nil {
			return err
		}
		if err := s.insert(ctx, b); err != nil {
			return err
		}
		// Some may have been erased since: then this came too late to be erased with the rest.
		if gone, err = s.allErased(ctx, b.users); err != nil {
			return err
		}
		return s.drop(ctx, b.without(gone))
	})
}

// batch is what Insert stores.
type batch struct {
	users, months []string
	activations   []activation
}

type activation struct {
	id, user     string
	month        string
	raw, payload bson.Raw // payload: nil where there are no inline bytes
}

// newBatch encodes records; of those with the same id the first.
func newBatch(records []faena.Record) (*batch, error) {
	b := &batch{}
	users, months, ids := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range records {
		a := activation{id: key(r.User, r.ID), user: r.User, month: monthID(r.User, r.AdmittedAt)}
		if ids[a.id] {
			continue
		}
		ids[a.id], users[a.user], months[a.month] = true, true, true
		if err := a.encode(r); err != nil {
			return nil, err
		}
		b.activations = append(b.activations, a)
	}
	b.users, b.months = slices.Sorted(maps.Keys(users)), slices.Sorted(maps.Keys(months))
	return b, nil
}

func (a *activation) encode(r faena.Record) (err error) {
	inline := int64(len(r.Result.Inline) + len(r.Log.Inline))
	if inline > 0 {
		p := payloadDocument{ID: a.id, Schema: faena.SchemaVersion, Result: r.Result.Inline, Log: r.Log.Inline}
		if a.payload, err = encode(p); err != nil {
			return err
		}
	}
	r.Result.Inline, r.Log.Inline = nil, nil
	d := activationDocument{ID: a.id, Schema: faena.SchemaVersion, Payload: inline > 0, Mark: mark(stored + a.month)}
	if d.Record, err = encode(r); err != nil {
		return err
	}
	d.Bytes = inline + int64(len(d.Record))
	a.raw, err = encode(d)
	return err
}

// without takes the activations of some users out of the batch, and returns them.
func (b *batch) without(users map[string]bool) *batch {
	out, left := &batch{}, &batch{}
	for _, a := range b.activations {
		into := left
		if users[a.user] {
			into = out
		}
		into.activations = append(into.activations, a)
	}
	for _, u := range b.users {
		if users[u] {
			out.users = append(out.users, u)
		} else {
			left.users = append(left.users, u)
		}
	}
	for _, a := range left.activations {
		left.months = append(left.months, a.month)
	}
	slices.Sort(left.months)
	left.months = slices.Compact(left.months)
	*b = *left
	return out
}

// insert stores a batch and counts what is new in it.
func (s *Store) insert(ctx context.Context, b *batch) error {
	if len(b.activations) == 0 {
		return nil
	}
	known, err := s.months(ctx, b.months) // before anything is stored: see addUp
	if err != nil {
		return err
	}
	var raws, payloads []bson.Raw
	for _, a := range b.activations {
		if raws = append(raws, a.raw); a.payload != nil {
			payloads = append(payloads, a.payload)
		}
	}
	if _, err := s.in(payloadsCollection).insertRaw(ctx, payloads); err != nil {
		return err
	}
	there, err := s.in(activationsCollection).insertRaw(ctx, raws)
	if err != nil {
		return err
	}
	if len(there) == 0 {
		if all, err := s.addUp(ctx, known, tallies(raws)); err != nil || all {
			return err
		}
	}
	return s.count(ctx, b.months)
}

// drop removes what is stored of activations of users who were erased, and their usage.
func (s *Store) drop(ctx context.Context, b *batch) error {
	if len(b.activations) == 0 {
		return nil
	}
	ids := make([]string, len(b.activations))
	for i, a := range b.activations {
		ids[i] = a.id
	}
	for _, c := range []string{activationsCollection, payloadsCollection} {
		if _, err := s.in(c).remove(ctx, is("_id", in(ids))); err != nil {
			return err
		}
	}
	for _, user := range b.users {
		if err := s.in(usageCollection).removeRange(ctx, below(user)); err != nil {
			return err
		}
	}
	return nil
}

// Activation implements faena.Documents.
func (s *Store) Activation(ctx context.Context, user, id string) (faena.Record, error) {
	return get(ctx, s, "read activation "+id, func(ctx context.Context) (r faena.Record, err error) {
		raw, err := s.in(activationsCollection).one(ctx, byID(key(user, id)))
		if err != nil {
			return r, err
		}
		if raw == nil {
			return r, faena.NotFound("activation", id)
		}
		d, err := decode[activationDocument](raw)
		if err != nil {
			return r, err
		}
		if d.Record == nil { // it was pruned
			return r, faena.NotFound("activation", id)
		}
		if r, err = decode[faena.Record](d.Record); err != nil || !d.Payload {
			return r, err
		}
		if raw, err = s.in(payloadsCollection).one(ctx, byID(d.ID)); err != nil {
			return r, err
		}
		if raw == nil { // it was pruned just now
			return r, faena.NotFound("activation", id)
		}
		p, err := decode[payloadDocument](raw)
		r.Result.Inline, r.Log.Inline = p.Result, p.Log
		return r, err
	})
}

// Recorded implements faena.Documents.
func (s *Store) Recorded(ctx context.Context, user string, ids []string) ([]string, error) {
	return get(ctx, s, "look for activations of user "+user, func(ctx context.Context) (recorded []string, err error) {
		gone, err := s.erased(ctx, user)
		if err != nil || len(ids) == 0 {
			return nil, err
		}
		if gone {
			return slices.Clone(ids), nil
		}
		full := make([]string, len(ids))
		for i, id := range ids {
			full[i] = key(user, id)
		}
		filter := bson.D{{Key: "_id", Value: in(full)}, notPruned}
		raws, err := s.in(activationsCollection).list(ctx, filter, options.Find().SetProjection(is("_id", 1)))
		if err != nil {
			return nil, err
		}
		there := map[string]bool{}
		for _, raw := range raws {
			there[idOf(raw)] = true
		}
		for i, id := range ids {
			if there[full[i]] {
				recorded = append(recorded, id)
			}
		}
		return recorded, nil
	})
}

// notPruned matches a record, and not what is left of one.
var notPruned = bson.E{Key: "record", Value: is("$exists", true)}

// Activations implements faena.Documents. Each filter has an index in which the page is one run of entries, so that a
// page costs the same wherever it is and however many others there are.
func (s *Store) Activations(ctx context.Context, q faena.HistoryQuery) ([]faena.Record, error) {
	return get(ctx, s, "list the activations of user "+q.User, func(ctx context.Context) ([]faena.Record, error) {
		if q.Limit <= 0 {
			return nil, nil
		}
		by, filter := byUser, bson.D{{Key: "record.user", Value: q.User}}
		function, state := bson.E{Key: "record.function", Value: q.Function}, bson.E{Key: "record.state", Value: q.State}
		switch {
		case q.Function != "" && q.State != "":
			by, filter = byBoth, bson.D{function, state}
		case q.Function != "":
			by, filter = byFunction, bson.D{function}
		case q.State != "":
			by, filter = byState, bson.D{state}
		}
		filter = append(filter, bson.E{Key: "_id", Value: before(q.Before, q.User)})
		raws, err := s.in(activationsCollection).list(ctx, filter, s.using(by).SetSort(is("_id", -1)).SetLimit(int64(q.Limit)))
		if err != nil {
			return nil, err
		}
		return decodeAll(raws, func(d activationDocument) (faena.Record, error) { return decode[faena.Record](d.Record) })
	})
}
