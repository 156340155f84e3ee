package mongostore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/ferrettest"
)

// whole are the collections that may be read as a whole: they are small.
var whole = []string{groupsCollection}

// query is what a command looks for.
type query struct {
	command, collection string
	filter, sort        bson.D
	hint                bson.D
}

// queries takes a command apart.
func queries(command bson.Raw) (list []query) {
	elements, err := command.Elements()
	if err != nil || len(elements) == 0 {
		return nil
	}
	q := query{command: elements[0].Key()}
	q.collection, _ = elements[0].Value().StringValueOK()
	document := func(raw bson.Raw, key string) (d bson.D) {
		if sub, is := raw.Lookup(key).DocumentOK(); is {
			_ = bson.Unmarshal(sub, &d)
		}
		return d
	}
	switch q.command {
	case "find":
		q.filter, q.sort, q.hint = document(command, "filter"), document(command, "sort"), document(command, "hint")
		return []query{q}
	case "update", "delete":
		array, _ := command.Lookup(q.command + "s").ArrayOK()
		values, _ := array.Values()
		for _, v := range values {
			one := q
			one.filter = document(bson.Raw(v.Value), "q")
			list = append(list, one)
		}
	case "aggregate", "count", "distinct", "findAndModify":
		return []query{q} // there are none
	}
	return list
}

// served says which index gives the documents of a query in their order, as one run of its entries; "" where none does.
func (q query) served() string {
	exact, ranged := map[string]bool{}, map[string]bool{}
	for _, e := range q.filter {
		condition, is := e.Value.(bson.D)
		switch {
		case !is:
			exact[e.Key] = true
		case len(condition) > 0 && condition[0].Key == "$in":
			exact[e.Key] = len(q.sort) == 0 || e.Key != q.sort[0].Key // in the order of the sort: as many runs as values
			ranged[e.Key] = true
		case len(condition) > 0 && slices.Contains([]string{"$gt", "$gte", "$lt", "$lte"}, condition[0].Key):
			ranged[e.Key] = true
		}
	}
	for _, i := range append([]index{{collection: q.collection, fields: []string{"_id"}}}, indexes...) {
		if i.collection != q.collection || len(q.hint) > 0 && fmt.Sprint(q.hint) != fmt.Sprint(i.wire()) {
			continue
		}
		n := 0
		for n < len(i.fields) && exact[i.fields[n]] {
			n++
		}
		rest := i.fields[n:]
		run := n > 0 || len(rest) > 0 && ranged[rest[0]]
		sorted := len(q.sort) == 0 || len(rest) > 0 && rest[0] == q.sort[0].Key
		if run && sorted {
			return i.name()
		}
	}
	return ""
}

// wire are the keys of an index as a command has them.
func (i index) wire() (keys bson.D) {
	for _, field := range i.fields {
		keys = append(keys, bson.E{Key: field, Value: int32(1)})
	}
	return keys
}

// Every query of the store has an index that gives what it looks for as one run of entries, in the order that it asks for. Where the
// server explains itself as MongoDB does, its own plans are looked at too.
func TestStore_EveryQueryHasAnIndex(t *testing.T) {
	uri := ferrettest.URI(t)
	var mu sync.Mutex
	seen := map[string]query{}
	plans := map[string]bson.Raw{}
	s := open(t, Options{URI: uri, Database: ferrettest.Database(t, uri), monitor: &event.CommandMonitor{
		Started: func(_ context.Context, e *event.CommandStartedEvent) {
			mu.Lock()
			defer mu.Unlock()
			for _, q := range queries(e.Command) {
				shape := fmt.Sprintf("%s %s %s sorted %v by %v", q.command, q.collection, shapeOf(q.filter), q.sort, q.hint)
				if seen[shape] = q; q.command == "find" {
					plans[shape] = slices.Clone(e.Command)
				}
			}
		}}}).settled(t)
	useAll(t, s)
	ok(t, s.Close()) // nothing comes after this
	if len(seen) < 25 {
		t.Errorf("only %d queries were seen", len(seen))
	}
	for shape, q := range seen {
		by := q.served()
		if by == "" && !(slices.Contains(whole, q.collection) && len(q.filter) == 0) {
			t.Errorf("no index serves %s", shape)
		}
		if by != "" {
			t.Logf("%-45s serves %s", by, shape)
		}
	}
	asked := open(t, Options{URI: uri, Database: s.o.Database}).settled(t)
	for shape, command := range plans {
		if bad := explained(t, asked, command); bad != "" && !slices.Contains(whole, seen[shape].collection) {
			t.Errorf("the server's plan has a %s for %s", bad, shape)
		}
	}
}

// shapeOf is a filter without its values.
func shapeOf(filter bson.D) string {
	var parts []string
	for _, e := range filter {
		part := e.Key
		if d, is := e.Value.(bson.D); is {
			part += " " + shapeOf(d)
		}
		parts = append(parts, part)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// explained asks the server for its plan, and names a stage of it that reads a whole collection, or sorts; "" where there is none,
// or the server is none that has such plans.
func explained(t *testing.T, s *Store, command bson.Raw) string {
	t.Helper()
	var find bson.D
	ok(t, bson.Unmarshal(command, &find))
	find = slices.DeleteFunc(find, func(e bson.E) bool {
		return strings.HasPrefix(e.Key, "$") || e.Key == "lsid" || e.Key == "maxTimeMS" || e.Key == "readConcern"
	})
	raw := must(s.db.Load().RunCommand(t.Context(), bson.D{{Key: "explain", Value: find}, {Key: "verbosity", Value: "queryPlanner"}}).Raw())(t)
	plan := raw.Lookup("queryPlanner", "winningPlan").String()
	for _, stage := range []string{"COLLSCAN", "SORT"} {
		if strings.Contains(plan, `"`+stage+`"`) {
			return stage
		}
	}
	return ""
}

// useAll makes every query that the store has.
func useAll(t *testing.T, s *Store) {
	t.Helper()
	fill(t, s, "ann")
	fill(t, s, "bob")
	ctx := t.Context()
	g := faena.Group{Schema: faena.SchemaVersion, Name: "gpu"}
	must(s.PutGroup(ctx, g))(t)
	must(s.PutGroup(ctx, g))(t)
	ok(t, s.ConnectGroup(ctx, "gpu", noon))
	must(s.Groups(ctx))(t)
	must(s.GroupUses(ctx, "gpu", 10))(t)
	ok(t, s.DeleteGroup(ctx, "gpu"))
	must(s.PutUser(ctx, faena.User{Name: "ann"}))(t)
	must(s.Users(ctx, "a", 10))(t)
	must(s.Functions(ctx, "ann", "a", 10))(t)
	must(s.SetCurrent(ctx, "ann", "f", 1, anyHead))(t)
	must(s.Revisions(ctx, "ann", "f", 0, 10))(t)
	all := records("ann", 6)
	ok(t, s.Insert(ctx, all))
	must(s.Activation(ctx, "ann", all[0].ID))(t)
	must(s.Recorded(ctx, "ann", []string{all[0].ID, all[1].ID}))(t)
	for _, q := range []faena.HistoryQuery{{}, {Function: "f"}, {State: faena.StateFailed}, {Function: "f", State: faena.StateFailed}} {
		q.User, q.Limit, q.Before = "ann", 3, all[4].ID
		must(s.Activations(ctx, q))(t)
	}
	must(s.UserUsage(ctx, "ann"))(t)
	must(s.UsageByHour(ctx, "ann", noon, 10))(t)
	must(s.HistoryStats(ctx))(t)
	must(s.Prune(ctx, noon.AddDate(0, 0, 1), 3))(t)
	age(t, s, "ann")
	must(s.Prune(ctx, noon.AddDate(0, 0, 1), 3))(t)
	ok(t, s.DeleteFunction(ctx, "ann", "f", anyHead))
	ok(t, s.EraseUser(ctx, "ann"))
	ok(t, s.Insert(ctx, all))
	ok(t, s.finishErasures(ctx))
}
