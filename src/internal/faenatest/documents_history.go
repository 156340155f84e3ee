package faenatest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"faena.dev/faena/internal/faena"
)

var historyClauses = []clause{
	{"ARecordComesBackAsItWas", func(t *testing.T, s faena.Documents) {
		records := []faena.Record{record("ann", 1), failed("ann", 2, "thumb", faena.ReasonOOMKilled), record("ann", 3), record("ann", 4), record("ann", 5)}
		records[1].Result, records[1].Log = faena.Blob{}, faena.Blob{} // neither
		records[2].Result = faena.Blob{Size: 300 << 10, Object: "out." + id(3) + ".1"}
		records[3].Result.Inline = []byte(strings.Repeat("\xff\x00", faena.MaxInlineBytes/2))
		records[3].Log = faena.Blob{}
		records[4].StartedAt, records[4].ExitCode, records[4].Remarks, records[4].Result = nil, nil, nil, faena.Blob{}
		ok(t, s.Insert(t.Context(), records))
		for i := range records {
			same(t, must(s.Activation(t.Context(), "ann", records[i].ID))(t), records[i])
		}
	}},
	{"AbsentOrSomebodyElsesIsNotFound", func(t *testing.T, s faena.Documents) {
		ok(t, s.Insert(t.Context(), []faena.Record{record("ann", 1)}))
		for _, who := range []string{"bob", "an", "annn", ""} {
			_, err := s.Activation(t.Context(), who, id(1))
			kind(t, err, faena.KindNotFound)
		}
		_, err := s.Activation(t.Context(), "ann", id(2))
		kind(t, err, faena.KindNotFound)
	}},
	{"WhichOfManyAreStored", func(t *testing.T, s faena.Documents) {
		_ = must(s.PutUser(t.Context(), faena.User{Schema: faena.SchemaVersion, Name: "ann", Role: faena.RoleUser}))(t)
		ok(t, s.Insert(t.Context(), []faena.Record{record("ann", 1), record("ann", 3), record("bob", 2)}))
		some := []string{id(3), id(2), id(1), id(4)}
		same(t, must(s.Recorded(t.Context(), "ann", some))(t), []string{id(3), id(1)})
		same(t, must(s.Recorded(t.Context(), "bob", some))(t), []string{id(2)})
		same(t, len(must(s.Recorded(t.Context(), "cid", some))(t)), 0)
		same(t, len(must(s.Recorded(t.Context(), "ann", nil))(t)), 0)
		ok(t, s.EraseUser(t.Context(), "ann"))
		same(t, must(s.Recorded(t.Context(), "ann", some))(t), some)
	}},
	{"OneThatIsStoredIsLeftAsItIs", func(t *testing.T, s faena.Documents) {
		ok(t, s.Insert(t.Context(), []faena.Record{record("ann", 1)}))
		other := failed("ann", 1, "thumb", faena.ReasonTimeout)
		other.Result = faena.Blob{Size: 5, Inline: []byte("other")}
		ok(t, s.Insert(t.Context(), []faena.Record{record("ann", 2), other, record("ann", 3)}))
		same(t, must(s.Activation(t.Context(), "ann", id(1)))(t), record("ann", 1))
		ids(t, s, faena.HistoryQuery{User: "ann", Limit: 10}, 3, 2, 1)
		ids(t, s, faena.HistoryQuery{User: "ann", Function: "thumb", Limit: 10})
		ids(t, s, faena.HistoryQuery{User: "ann", State: faena.StateTimedOut, Limit: 10})
	}},
	{"TheSameTwiceInABatchIsOne", func(t *testing.T, s faena.Documents) {
		ok(t, s.Insert(t.Context(), []faena.Record{record("ann", 1), record("ann", 1)}))
		ids(t, s, faena.HistoryQuery{User: "ann", Limit: 10}, 1)
		usageIs(t, s, "ann", 1, 0)
	}},
	{"AnEmptyBatchIsNothing", func(t *testing.T, s faena.Documents) {
		ok(t, s.Insert(t.Context(), nil))
	}},
	{"WhatHasNotEndedIsRefused", func(t *testing.T, s faena.Documents) {
		for _, state := range []faena.State{faena.StateQueued, faena.StateRunning, ""} {
			r := record("ann", 2)
			r.State = state
			if err := s.Insert(t.Context(), []faena.Record{record("ann", 1), r}); err == nil {
				t.Errorf("a record that is %q was stored", state)
			}
		}
		ids(t, s, faena.HistoryQuery{User: "ann", Limit: 10})
		usageIs(t, s, "ann", 0, 0)
	}},
	{"BatchesInParallelStoreEachOnce", func(t *testing.T, s faena.Documents) {
		var batch []faena.Record
		for i := range 100 {
			batch = append(batch, record("ann", i))
		}
		together(4, func(int) {
			if err := s.Insert(t.Context(), batch); err != nil {
				t.Error(err)
			}
		})
		if got := must(s.Activations(t.Context(), faena.HistoryQuery{User: "ann", Limit: 1000}))(t); len(got) != 100 {
			t.Errorf("there are %d records", len(got))
		}
		usageIs(t, s, "ann", 100, 0)
	}},
}

var pageClauses = []clause{
	{"NewestFirst", func(t *testing.T, s faena.Documents) {
		ok(t, s.Insert(t.Context(), []faena.Record{record("ann", 2), record("ann", 5)}))
		ok(t, s.Insert(t.Context(), []faena.Record{record("ann", 3), record("anna", 4), record("an", 4), record("ann-b", 4), record("ann", 1)}))
		ids(t, s, faena.HistoryQuery{User: "ann", Limit: 10}, 5, 3, 2, 1)
		ids(t, s, faena.HistoryQuery{User: "ann", Limit: 2}, 5, 3)
		ids(t, s, faena.HistoryQuery{User: "ann", Before: id(3), Limit: 2}, 2, 1)
		ids(t, s, faena.HistoryQuery{User: "ann", Before: id(4), Limit: 1}, 3)
		ids(t, s, faena.HistoryQuery{User: "ann", Before: id(1), Limit: 1})
		ids(t, s, faena.HistoryQuery{User: "ann", Before: id(9), Limit: 1}, 5)
		ids(t, s, faena.HistoryQuery{User: "nobody", Limit: 10})
	}},
	{"EachFilterAndBothTogether", func(t *testing.T, s faena.Documents) {
		all := mixed("ann", 240)
		ok(t, s.Insert(t.Context(), all))
		ok(t, s.Insert(t.Context(), mixed("anna", 40)))
		for _, function := range []string{"", "a", "a-1", "resize", "absent"} {
			for _, state := range append([]faena.State{""}, faena.States...) {
				t.Run(fmt.Sprintf("%s,%s", function, state), func(t *testing.T) {
					q := faena.HistoryQuery{User: "ann", Function: function, State: state, Limit: 7}
					same(t, pageByPage(t, s, q), matching(all, function, state))
				})
			}
		}
	}},
	{"APageHasNoInlineBytes", func(t *testing.T, s faena.Documents) {
		want := record("ann", 1)
		ok(t, s.Insert(t.Context(), []faena.Record{want}))
		want.Result.Inline, want.Log.Inline = nil, nil
		for _, q := range []faena.HistoryQuery{{}, {Function: "resize"}, {State: faena.StateSucceeded}, {Function: "resize", State: faena.StateSucceeded}} {
			q.User, q.Limit = "ann", 10
			same(t, must(s.Activations(t.Context(), q))(t), []faena.Record{want})
		}
	}},
	{"WhatIsInsertedMeanwhileMovesNoPage", func(t *testing.T, s faena.Documents) {
		var all []faena.Record
		for i := range 60 {
			all = append(all, record("ann", i))
		}
		ok(t, s.Insert(t.Context(), all))
		q, next := faena.HistoryQuery{User: "ann", Limit: 7}, 1000
		var got []string
		for done := false; !done; {
			page := must(s.Activations(t.Context(), q))(t)
			for _, r := range page {
				got, q.Before = append(got, r.ID), r.ID
			}
			done = len(page) < q.Limit
			ok(t, s.Insert(t.Context(), []faena.Record{record("ann", next), record("an", next), record("anna", next)})) // newer
			next++
		}
		same(t, got, matching(all, "", ""))
	}},
	{"DeletingTheFunctionLeavesItsHistory", func(t *testing.T, s faena.Documents) {
		add(t, s, revision("ann", "resize"))
		ok(t, s.Insert(t.Context(), []faena.Record{record("ann", 1)}))
		ok(t, s.DeleteFunction(t.Context(), "ann", "resize", anyHead))
		ids(t, s, faena.HistoryQuery{User: "ann", Function: "resize", Limit: 10}, 1)
	}},
}

// mixed are n records of three functions in all terminal states, in the order of their ids.
func mixed(user string, n int) (records []faena.Record) {
	functions := []string{"a", "a-1", "resize"}
	reasons := []faena.Reason{"", faena.ReasonExitNonzero, faena.ReasonTimeout, faena.ReasonCancelled, faena.ReasonWorkerLost}
	for i := range n {
		if reason := reasons[i/3%5]; reason != "" {
			records = append(records, failed(user, i, functions[i%3], reason))
			continue
		}
		r := record(user, i)
		r.Function = functions[i%3]
		records = append(records, r)
	}
	return records
}

// matching are the ids of the records that match a filter, newest first.
func matching(records []faena.Record, function string, state faena.State) (list []string) {
	for _, r := range slices.Backward(records) {
		if (function == "" || r.Function == function) && (state == "" || r.State == state) {
			list = append(list, r.ID)
		}
	}
	return list
}

// pageByPage are the ids that a query gives, one page after the other.
func pageByPage(t testing.TB, s faena.Documents, q faena.HistoryQuery) (list []string) {
	t.Helper()
	for range 1000 {
		page := must(s.Activations(t.Context(), q))(t)
		for _, r := range page {
			list = append(list, r.ID)
		}
		if len(page) < q.Limit {
			return list
		}
		q.Before = page[len(page)-1].ID
	}
	t.Fatalf("there is no end of the pages of %+v", q)
	return nil
}

// ids checks which records a query gives.
func ids(t testing.TB, s faena.Documents, q faena.HistoryQuery, want ...int) {
	t.Helper()
	var got, wanted []string
	for _, r := range must(s.Activations(t.Context(), q))(t) {
		got = append(got, r.ID)
	}
	for _, n := range want {
		wanted = append(wanted, id(n))
	}
	if !slices.Equal(got, wanted) {
		t.Errorf("%+v gives %v, want %v", q, got, wanted)
	}
}
