package mongostore

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"faena.dev/faena/internal/faena"
)

// A user's usage is one document a month, with the hours in it. An activation must be counted once, and there is no transaction over
// the two documents. So it carries a mark until its month has counted it:
//
//	activation  marked ─────────────────────────────────► no mark
//	month       version n ──► n+1: sums, and ids of what they count now ──► n+2: no ids
//	                      (1)                               (2)         (3)
//
// (1) is a compare-and-set on the version, made by one who has read the version first, where it had no ids, and looked for marks
// afterwards: whatever had a mark then is counted in no version up to n. (2) and (3) may be done by anybody who finds the ids, and
// twice. So whoever is killed, or overtaken, between any two of the writes, each activation is counted once; with the next
// count of its month at the latest.
//
// When a record is pruned, what is left of it is marked again, and its bytes are subtracted in the same way.

// mark says which month is to count an activation: + and the month's id for one that was stored, - for one that was pruned.
type mark string

const (
	stored = "+"
	pruned = "-"
)

// monthID is the id of the month that an activation of a user is counted in.
func monthID(user string, at time.Time) string { return key(user, at.UTC().Format("2006-01")) }

// hour is one of a month: day and hour.
type hour string

const hourLayout = "0215"

// start is when an hour of a month begins.
func (h hour) start(month string) (time.Time, error) {
	return time.ParseInLocation("2006-01 "+hourLayout, month[strings.LastIndex(month, "/")+1:]+" "+string(h), time.UTC)
}

// tally is what is to be added to a month.
type tally struct {
	counts
	bytes int64
	hours map[hour]*counts
	ids   []string // of what is added, each behind the sign of its mark
}

// add adds what an activation's document, with its mark, says.
func (t *tally) add(raw bson.Raw) {
	m, _ := raw.Lookup("mark").StringValueOK()
	t.ids = append(t.ids, m[:1]+idOf(raw))
	bytes, _ := raw.Lookup("bytes").AsInt64OK()
	if m[:1] == pruned {
		t.bytes -= bytes
		return
	}
	t.bytes += bytes
	record, _ := raw.Lookup("record").DocumentOK()
	state, _ := record.Lookup("state").StringValueOK()
	runUS, _ := record.Lookup("timings", "run_us").AsInt64OK()
	admitted, _ := record.Lookup("admitted_at").TimeOK()
	h := hour(admitted.UTC().Format(hourLayout))
	if t.hours[h] == nil {
		t.hours[h] = &counts{}
	}
	for _, c := range []*counts{&t.counts, t.hours[h]} {
		if c.RunUS += runUS; faena.State(state) == faena.StateSucceeded {
			c.Completed++
		} else {
			c.Failed++
		}
	}
}

// tallies sorts marked activations by month.
func tallies(raws []bson.Raw) map[string]*tally {
	months := map[string]*tally{}
	for _, raw := range raws {
		m, _ := raw.Lookup("mark").StringValueOK()
		if m == "" {
			continue
		}
		if months[m[1:]] == nil {
			months[m[1:]] = &tally{hours: map[hour]*counts{}}
		}
		months[m[1:]].add(raw)
	}
	return months
}

// markedFields are those of an activation that are counted.
var markedFields = bson.D{{Key: "mark", Value: 1}, {Key: "bytes", Value: 1}, {Key: "record.state", Value: 1},
	{Key: "record.timings.run_us", Value: 1}, {Key: "record.admitted_at", Value: 1}}

// count counts every marked activation of some months.
func (s *Store) count(ctx context.Context, months []string) error {
	if len(months) == 0 {
		return nil
	}
	marks := make([]string, 0, 2*len(months))
	for _, m := range months {
		marks = append(marks, stored+m, pruned+m)
	}
	return s.cas(ctx, func() (done bool, err error) {
		known, err := s.months(ctx, months)
		if err != nil {
			return false, err
		}
		raws, err := s.in(activationsCollection).list(ctx, is("mark", in(marks)), options.Find().SetLimit(stepSize).SetProjection(markedFields))
		if err != nil || len(raws) == 0 {
			return err == nil, err
		}
		all, err := s.addUp(ctx, known, tallies(raws))
		return all && len(raws) < stepSize, err
	})
}

// months reads months as they are, without ids: what others have left undone is done first. Those that are not there are nil.
func (s *Store) months(ctx context.Context, ids []string) (map[string]*usageDocument, error) {
	for {
		raws, err := s.in(usageCollection).list(ctx, is("_id", in(ids)),
			options.Find().SetProjection(bson.D{{Key: "schema", Value: 1}, {Key: "version", Value: 1}, {Key: "counted", Value: 1}}))
		if err != nil {
			return nil, err
		}
		known, undone := make(map[string]*usageDocument, len(raws)), []*usageDocument{}
		for _, raw := range raws {
			d, err := decode[usageDocument](raw)
			if err != nil {
				return nil, err
			}
			if known[d.ID] = &d; len(d.Counted) > 0 {
				undone = append(undone, &d)
			}
		}
		if len(undone) == 0 {
			return known, nil
		}
		if err := s.unmark(ctx, undone); err != nil {
			return nil, err
		}
	}
}

// addUp adds to months what is to be added, each where it is still as it is known, and reports whether all were.
func (s *Store) addUp(ctx context.Context, known map[string]*usageDocument, add map[string]*tally) (all bool, err error) {
	var changes []mongo.WriteModel
	var made []any
	var changed []*usageDocument
	for _, id := range slices.Sorted(maps.Keys(add)) {
		t := add[id]
		d := usageDocument{ID: id, Schema: faena.SchemaVersion, Version: 1, Counts: t.counts, Bytes: t.bytes, Hours: t.hours, Counted: t.ids}
		if was := known[id]; was != nil {
			d.Version = was.Version + 1
			changes = append(changes, mongo.NewUpdateOneModel().SetFilter(was.unchanged()).SetUpdate(t.change(d.Version)))
		} else {
			made = append(made, d)
		}
		changed = append(changed, &d)
	}
	usage := s.in(usageCollection)
	there, err := usage.insert(ctx, made...)
	if err != nil {
		return false, err
	}
	matched, err := usage.bulk(ctx, changes)
	if err != nil || matched < len(changes) || len(there) > 0 {
		return false, err // which of them were is seen by the next look
	}
	return true, s.unmark(ctx, changed)
}

// unchanged matches a month that is as it was read.
func (d *usageDocument) unchanged() bson.D {
	return bson.D{{Key: "_id", Value: d.ID}, {Key: "version", Value: d.Version}}
}

// change is what a tally makes of a month.
func (t *tally) change(version int64) bson.D {
	sums := bson.D{{Key: "bytes", Value: t.bytes}}
	add := func(prefix string, c counts) {
		sums = append(sums, bson.E{Key: prefix + "completed", Value: c.Completed}, bson.E{Key: prefix + "failed", Value: c.Failed},
			bson.E{Key: prefix + "run_us", Value: c.RunUS})
	}
	add("", t.counts)
	for _, h := range slices.Sorted(maps.Keys(t.hours)) {
		add("hours."+string(h)+".", *t.hours[h])
	}
	return bson.D{{Key: "$inc", Value: sums},
		{Key: "$set", Value: bson.D{{Key: "version", Value: version}, {Key: "counted", Value: t.ids}}}}
}

// unmark takes the marks off what months have counted, and then the ids off the months.
func (s *Store) unmark(ctx context.Context, months []*usageDocument) error {
	type marked struct{ ids, marks []string }
	bySign := map[string]*marked{stored: {}, pruned: {}}
	var changes []mongo.WriteModel
	for _, d := range months {
		for _, counted := range d.Counted {
			if m := bySign[counted[:1]]; m != nil {
				m.ids = append(m.ids, counted[1:])
			}
		}
		for sign, m := range bySign {
			m.marks = append(m.marks, sign+d.ID)
		}
		changes = append(changes, mongo.NewUpdateOneModel().SetFilter(d.unchanged()).SetUpdate(bson.D{
			{Key: "$set", Value: is("version", d.Version+1)}, {Key: "$unset", Value: is("counted", "")}}))
	}
	for _, m := range bySign {
		if len(m.ids) == 0 {
			continue
		}
		// Not more than the mark that was counted: meanwhile the record may be pruned, and marked for that.
		filter := bson.D{{Key: "mark", Value: in(m.marks)}, {Key: "_id", Value: in(m.ids)}}
		if err := s.in(activationsCollection).updateAll(ctx, filter, is("$unset", is("mark", ""))); err != nil {
			return err
		}
	}
	_, err := s.in(usageCollection).bulk(ctx, changes)
	return err
}

// UserUsage implements faena.Documents.
func (s *Store) UserUsage(ctx context.Context, user string) (faena.Usage, error) {
	return get(ctx, s, "read the usage of user "+user, func(ctx context.Context) (u faena.Usage, err error) {
		u.User = user
		sums := bson.D{{Key: "schema", Value: 1}, {Key: "completed", Value: 1}, {Key: "failed", Value: 1}, {Key: "run_us", Value: 1}}
		raws, err := s.in(usageCollection).list(ctx, is("_id", below(user)), options.Find().SetProjection(sums))
		for _, raw := range raws {
			d, err := decode[usageDocument](raw)
			if err != nil {
				return u, err
			}
			u.Completed, u.Failed, u.RunUS = u.Completed+d.Counts.Completed, u.Failed+d.Counts.Failed, u.RunUS+d.Counts.RunUS
		}
		return u, err
	})
}

// monthsAtOnce is how many months one command reads.
const monthsAtOnce = 12

// UsageByHour implements faena.Documents.
func (s *Store) UsageByHour(ctx context.Context, user string, from time.Time, limit int) ([]faena.Usage, error) {
	return get(ctx, s, "list the usage of user "+user, func(ctx context.Context) (list []faena.Usage, err error) {
		from := from.UTC().Truncate(time.Hour)
		ids := bson.D{{Key: "$gte", Value: monthID(user, from)}, {Key: "$lt", Value: user + beyond}}
		for len(list) < limit {
			raws, err := s.in(usageCollection).list(ctx, is("_id", ids), options.Find().SetSort(is("_id", 1)).SetLimit(monthsAtOnce))
			if err != nil {
				return nil, err
			}
			for _, raw := range raws {
				d, err := decode[usageDocument](raw)
				if err != nil {
					return nil, err
				}
				if list, err = d.appendHours(list, user, from); err != nil {
					return nil, err
				}
				ids[0] = bson.E{Key: "$gt", Value: d.ID}
			}
			if len(raws) < monthsAtOnce {
				break
			}
		}
		return list[:min(len(list), max(limit, 0))], nil
	})
}

// appendHours appends the hours of a month, from the given one on.
func (d *usageDocument) appendHours(list []faena.Usage, user string, from time.Time) ([]faena.Usage, error) {
	for _, h := range slices.Sorted(maps.Keys(d.Hours)) {
		start, err := h.start(d.ID)
		if err != nil {
			return nil, err
		}
		if c := d.Hours[h]; !start.Before(from) {
			list = append(list, faena.Usage{User: user, Hour: start, Completed: c.Completed, Failed: c.Failed, RunUS: c.RunUS})
		}
	}
	return list, nil
}
