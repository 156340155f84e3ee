package faenatest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// midnight begins the day on which the activations of aged are admitted.
var midnight = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// clock is a time of that day.
func clock(hour, minute int) time.Time {
	return midnight.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
}

// aged is a record of an activation that was admitted at clock(hour, minute), with the id of number 60*hour+minute.
func aged(user string, hour, minute int) faena.Record {
	r := record(user, 60*hour+minute)
	started, ended := clock(hour, minute), clock(hour, minute).Add(50*time.Millisecond)
	r.AdmittedAt, r.StartedAt, r.EndedAt = clock(hour, minute), &started, &ended
	return r
}

var pruneClauses = []clause{
	{"OnlyWholeHours", func(t *testing.T, s faena.Documents) {
		ok(t, s.Insert(t.Context(), []faena.Record{aged("ann", 10, 0), aged("ann", 10, 59), aged("ann", 11, 0), aged("ann", 11, 59), aged("ann", 12, 0)}))
		pruned(t, s, clock(10, 59))
		pruned(t, s, clock(11, 30), aged("ann", 10, 0), aged("ann", 10, 59))
		elsewhere := time.FixedZone("half an hour off", 5*3600+1800)
		pruned(t, s, clock(12, 15).In(elsewhere), aged("ann", 11, 0), aged("ann", 11, 59))
		ids(t, s, faena.HistoryQuery{User: "ann", Limit: 10}, 720)
	}},
	{"OfAllUsers", func(t *testing.T, s faena.Documents) {
		owners := []string{"Zed", "an", "ann", "ann-b", "ann_b", "anna", "z"}
		var all, want []faena.Record
		for i, owner := range owners {
			want = append(want, aged(owner, 1, 0), aged(owner, 2, i))
			all = append(all, aged(owner, 3, 0), aged(owner, 4, i))
		}
		young := aged("bob", 5, 0)
		ok(t, s.Insert(t.Context(), append(append(all, young), want...)))
		pruned(t, s, clock(3, 0), want...)
		for i, owner := range owners {
			ids(t, s, faena.HistoryQuery{User: owner, Limit: 10}, 240+i, 180)
		}
		ids(t, s, faena.HistoryQuery{User: "bob", Limit: 10}, 300)
		pruned(t, s, clock(5, 0), all...)
		same(t, must(s.Activation(t.Context(), "bob", young.ID))(t), young)
	}},
	{"WhatIsPrunedIsGone", func(t *testing.T, s faena.Documents) {
		old := failed("ann", 1, "thumb", faena.ReasonTimeout)
		old.AdmittedAt = clock(1, 0)
		kept := aged("ann", 2, 0)
		ok(t, s.Insert(t.Context(), []faena.Record{old, kept}))
		pruned(t, s, clock(2, 0), old)
		_, err := s.Activation(t.Context(), "ann", old.ID)
		kind(t, err, faena.KindNotFound)
		same(t, must(s.Recorded(t.Context(), "ann", []string{old.ID, kept.ID}))(t), []string{kept.ID})
		for _, q := range []faena.HistoryQuery{{Function: "thumb"}, {State: faena.StateTimedOut}, {Function: "thumb", State: faena.StateTimedOut}} {
			q.User, q.Limit = "ann", 10
			ids(t, s, q)
		}
		same(t, must(s.Activation(t.Context(), "ann", kept.ID))(t), kept)
	}},
	{"FiltersAndPagesAreRightAfterwards", func(t *testing.T, s faena.Documents) {
		all := mixed("ann", 180)
		for i := range all {
			all[i].AdmittedAt = clock(0, i)
		}
		ok(t, s.Insert(t.Context(), all))
		pruned(t, s, clock(1, 0), all[:60]...)
		for _, function := range []string{"", "a", "a-1", "absent"} {
			for _, state := range []faena.State{"", faena.StateSucceeded, faena.StateLost, faena.StateQueued} {
				q := faena.HistoryQuery{User: "ann", Function: function, State: state, Limit: 7}
				same(t, pageByPage(t, s, q), matching(all[60:], function, state))
			}
		}
		newer := aged("ann", 3, 0)
		ok(t, s.Insert(t.Context(), []faena.Record{newer}))
		ids(t, s, faena.HistoryQuery{User: "ann", Limit: 2}, 180, 179)
	}},
	{"NoMoreThanTheLimit", func(t *testing.T, s faena.Documents) {
		var old []faena.Record
		for i := range 4 {
			old = append(old, aged("ann", 1, i), aged("bob", 1, i))
		}
		ok(t, s.Insert(t.Context(), append(slices.Clone(old), aged("ann", 2, 0), aged("bob", 2, 0))))
		var got []faena.Record
		for _, want := range []int{3, 3, 2, 0} {
			some := must(s.Prune(t.Context(), clock(2, 0), 3))(t)
			if len(some) != want {
				t.Fatalf("a call with a limit of 3 removes %d, want %d", len(some), want)
			}
			got = append(got, some...)
		}
		sameRecords(t, got, old)
		ids(t, s, faena.HistoryQuery{User: "ann", Limit: 10}, 120)
		ids(t, s, faena.HistoryQuery{User: "bob", Limit: 10}, 120)
	}},
	{"EmptyIsNothing", func(t *testing.T, s faena.Documents) {
		pruned(t, s, clock(1, 0))
	}},
	{"WhileRecordsAreInserted", func(t *testing.T, s faena.Documents) {
		var old, young []faena.Record
		for i := range 60 {
			old, young = append(old, aged("ann", 1, i)), append(young, aged("ann", 2, i))
		}
		ok(t, s.Insert(t.Context(), old))
		together(3, func(i int) {
			if i == 0 {
				prune(t, s, clock(2, 0), 7)
				return
			}
			for from := 0; from < 60; from += 10 {
				if err := s.Insert(t.Context(), young[from:from+10]); err != nil {
					t.Error(err)
				}
			}
		})
		same(t, pageByPage(t, s, faena.HistoryQuery{User: "ann", Limit: 50}), matching(young, "", ""))
		usageIs(t, s, "ann", 120, 0)
		hoursAre(t, s, "ann", clock(0, 0), 10, "01:60+0", "02:60+0")
	}},
	{"TwoAtOnceLeaveNone", func(t *testing.T, s faena.Documents) {
		var all []faena.Record
		for i := range 60 {
			all = append(all, aged("ann", 1, i), aged("bob", 1+i%2, i))
		}
		ok(t, s.Insert(t.Context(), all))
		together(3, func(int) { prune(t, s, clock(2, 0), 7) })
		ids(t, s, faena.HistoryQuery{User: "ann", Limit: 10})
		if left := pageByPage(t, s, faena.HistoryQuery{User: "bob", Limit: 50}); len(left) != 30 {
			t.Errorf("of 30 young ones there are %d", len(left))
		}
		usageIs(t, s, "ann", 60, 0)
		usageIs(t, s, "bob", 60, 0)
	}},
	{"CutShortAndCalledAgain", func(t *testing.T, s faena.Documents) {
		var all []faena.Record
		for i := range 60 {
			all = append(all, aged("ann", 1, i), aged("bob", 1, i))
		}
		ok(t, s.Insert(t.Context(), all))
		for i := range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*300*time.Microsecond)
			_, _ = s.Prune(ctx, clock(2, 0), 20) // it may have removed some, all, or none
			cancel()
		}
		prune(t, s, clock(2, 0), 20)
		for _, owner := range []string{"ann", "bob"} {
			ids(t, s, faena.HistoryQuery{User: owner, Limit: 10})
			ids(t, s, faena.HistoryQuery{User: owner, Function: "resize", State: faena.StateSucceeded, Limit: 10})
			usageIs(t, s, owner, 60, 0)
		}
	}},
}

// retentionClauses are about what pruning leaves behind: usage and statistics.
var retentionClauses = []clause{
	{"UsageOutlivesPruning", func(t *testing.T, s faena.Documents) {
		batch := []faena.Record{aged("ann", 1, 0), aged("ann", 1, 1), aged("ann", 2, 0), aged("bob", 1, 0)}
		ok(t, s.Insert(t.Context(), batch))
		before := must(s.UserUsage(t.Context(), "ann"))(t)
		prune(t, s, clock(3, 0), 10)
		same(t, must(s.UserUsage(t.Context(), "ann"))(t), before)
		hoursAre(t, s, "ann", clock(0, 0), 10, "01:2+0", "02:1+0")
		hoursAre(t, s, "bob", clock(0, 0), 10, "01:1+0")
		ok(t, s.Insert(t.Context(), []faena.Record{aged("ann", 3, 0)}))
		hoursAre(t, s, "ann", clock(0, 0), 10, "01:2+0", "02:1+0", "03:1+0")
	}},
	// Recording is at least once: a batch may come again just after it was pruned. It may be stored again.
	{"InsertedAgainAfterItWasPrunedCountsNothing", func(t *testing.T, s faena.Documents) {
		batch := []faena.Record{aged("ann", 1, 0), aged("ann", 1, 1), aged("ann", 2, 0)}
		ok(t, s.Insert(t.Context(), batch))
		for range 3 {
			prune(t, s, clock(2, 0), 10)
			ok(t, s.Insert(t.Context(), batch))
			usageIs(t, s, "ann", 3, 0)
			hoursAre(t, s, "ann", clock(0, 0), 10, "01:2+0", "02:1+0")
		}
		prune(t, s, clock(2, 0), 10)
		ids(t, s, faena.HistoryQuery{User: "ann", Limit: 10}, 120)
		ids(t, s, faena.HistoryQuery{User: "ann", Function: "resize", Limit: 10}, 120)
	}},
	// The store may have been away for long, or the activation may have waited: it is kept until the next Prune.
	{"AdmittedBeforeTheHorizonAndInsertedLateCountsOnce", func(t *testing.T, s faena.Documents) {
		ok(t, s.Insert(t.Context(), []faena.Record{aged("ann", 1, 0), aged("ann", 2, 0)}))
		prune(t, s, clock(2, 0), 10)
		late := []faena.Record{aged("ann", 1, 1), aged("bob", 0, 30)}
		for range 2 {
			ok(t, s.Insert(t.Context(), late))
			same(t, must(s.Activation(t.Context(), "ann", late[0].ID))(t), late[0])
			usageIs(t, s, "ann", 3, 0)
			usageIs(t, s, "bob", 1, 0)
		}
		hoursAre(t, s, "ann", clock(0, 0), 10, "01:2+0", "02:1+0")
		pruned(t, s, clock(2, 0), late...)
		ok(t, s.Insert(t.Context(), late))
		usageIs(t, s, "ann", 3, 0)
		usageIs(t, s, "bob", 1, 0)
	}},
	{"TheHorizonNeverGoesBack", func(t *testing.T, s faena.Documents) {
		horizonIs(t, s, time.Time{})
		ok(t, s.Insert(t.Context(), []faena.Record{aged("ann", 1, 0)}))
		horizonIs(t, s, time.Time{})
		pruned(t, s, clock(1, 30))
		horizonIs(t, s, clock(1, 0))
		prune(t, s, clock(5, 59), 10)
		horizonIs(t, s, clock(5, 0))
		ok(t, s.Insert(t.Context(), []faena.Record{aged("ann", 1, 0), aged("bob", 2, 0), aged("bob", 4, 0)}))
		prune(t, s, clock(3, 0), 10)
		horizonIs(t, s, clock(5, 0))
		ids(t, s, faena.HistoryQuery{User: "bob", Limit: 10}, 240) // of an hour that this call was not for
		together(8, func(i int) { prune(t, s, clock(6+i, 0), 10) })
		horizonIs(t, s, clock(13, 0))
	}},
	{"TheHorizonIsThereBeforeTheFirstIsRemoved", func(t *testing.T, s faena.Documents) {
		ok(t, s.Insert(t.Context(), []faena.Record{aged("ann", 1, 0), aged("ann", 1, 1)}))
		if some := must(s.Prune(t.Context(), clock(2, 0), 1))(t); len(some) != 1 {
			t.Errorf("%d were removed", len(some))
		}
		horizonIs(t, s, clock(2, 0))
	}},
	{"TheOldest", func(t *testing.T, s faena.Documents) {
		oldestIs(t, s, time.Time{})
		must(s.PutUser(t.Context(), user("bob")))(t)
		ok(t, s.Insert(t.Context(), []faena.Record{aged("zed", 3, 7), aged("ann", 4, 0), aged("bob", 5, 0)}))
		oldestIs(t, s, clock(3, 7))
		ok(t, s.Insert(t.Context(), []faena.Record{aged("bob", 1, 30)}))
		oldestIs(t, s, clock(1, 30))
		prune(t, s, clock(2, 0), 10)
		oldestIs(t, s, clock(3, 7))
		prune(t, s, clock(5, 0), 10)
		oldestIs(t, s, clock(5, 0))
		ok(t, s.EraseUser(t.Context(), "bob"))
		oldestIs(t, s, time.Time{})
	}},
	{"BytesRiseAndFall", func(t *testing.T, s faena.Documents) {
		const inline = 4000 // of result and log together; what else a record has is less
		must(s.PutUser(t.Context(), user("bob")))(t)
		bytesAre(t, s, 0, 0)
		var batch []faena.Record
		for i := range 60 {
			for _, owner := range []string{"ann", "bob"} {
				r := aged(owner, 1+i%2, i)
				r.Result = faena.Blob{Size: 3000, Inline: make([]byte, 3000)}
				r.Log = faena.Blob{Size: 1000, Inline: make([]byte, 1000)}
				batch = append(batch, r)
			}
		}
		ok(t, s.Insert(t.Context(), batch))
		bytesAre(t, s, 120*inline, 120*inline*2)
		ok(t, s.Insert(t.Context(), batch))
		bytesAre(t, s, 120*inline, 120*inline*2)
		prune(t, s, clock(2, 0), 10)
		bytesAre(t, s, 60*inline, 60*inline*2)
		ok(t, s.EraseUser(t.Context(), "bob"))
		bytesAre(t, s, 30*inline, 30*inline*2)
		prune(t, s, clock(3, 0), 10)
		bytesAre(t, s, 0, inline)
	}},
}

// prune removes what was admitted before an hour, a limit at a time, until none is left, and returns what it was. What is
// wrong fails the test, and ends it where it runs in the test's own goroutine.
func prune(t testing.TB, s faena.Documents, before time.Time, limit int) (all []faena.Record) {
	t.Helper()
	for range 1000 {
		some, err := s.Prune(t.Context(), before, limit)
		if err != nil || len(some) > limit {
			t.Errorf("with a limit of %d, %d are removed: %v", limit, len(some), err)
			return all
		}
		if all = append(all, some...); len(some) < limit {
			return all
		}
	}
	t.Error("there is no end of it")
	return all
}

// pruned checks which records a Prune removes.
func pruned(t testing.TB, s faena.Documents, before time.Time, want ...faena.Record) {
	t.Helper()
	sameRecords(t, prune(t, s, before, 100), want)
}

// sameRecords compares what was pruned, in any order, without the inline bytes.
func sameRecords(t testing.TB, got, want []faena.Record) {
	t.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	for i := range want {
		want[i].Result.Inline, want[i].Log.Inline = nil, nil
	}
	for _, list := range [][]faena.Record{got, want} {
		slices.SortFunc(list, func(a, b faena.Record) int { return strings.Compare(a.User+"/"+a.ID, b.User+"/"+b.ID) })
	}
	if len(got)+len(want) > 0 {
		same(t, got, want)
	}
}

func horizonIs(t testing.TB, s faena.Documents, want time.Time) {
	t.Helper()
	if st := must(s.HistoryStats(t.Context()))(t); !st.Horizon.Equal(want) {
		t.Errorf("the horizon is %v, want %v", st.Horizon, want)
	}
}

func oldestIs(t testing.TB, s faena.Documents, want time.Time) {
	t.Helper()
	if st := must(s.HistoryStats(t.Context()))(t); !st.Oldest.Equal(want) {
		t.Errorf("the oldest is of %v, want %v", st.Oldest, want)
	}
}

func bytesAre(t testing.TB, s faena.Documents, least, most int64) {
	t.Helper()
	if st := must(s.HistoryStats(t.Context()))(t); st.Bytes < least || st.Bytes > most {
		t.Errorf("the history has %d bytes, want %d to %d", st.Bytes, least, most)
	}
}
