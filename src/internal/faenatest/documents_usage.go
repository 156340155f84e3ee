package faenatest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

var usageClauses = []clause{
	{"CountsWhatSucceededAndWhatDidNot", func(t *testing.T, s faena.Documents) {
		usageIs(t, s, "ann", 0, 0)
		ok(t, s.Insert(t.Context(), []faena.Record{
			record("ann", 1), record("ann", 2), failed("ann", 3, "resize", faena.ReasonTimeout),
			failed("ann", 4, "resize", faena.ReasonCancelled), failed("ann", 5, "resize", faena.ReasonWorkerLost), record("anna", 6)}))
		usageIs(t, s, "ann", 2, 3)
		usageIs(t, s, "anna", 1, 0)
		if u := must(s.UserUsage(t.Context(), "ann"))(t); u.RunUS != 5000 || !u.Hour.IsZero() {
			t.Errorf("the usage is %+v", u)
		}
	}},
	{"RecordingAgainCountsNothing", func(t *testing.T, s faena.Documents) {
		batch := mixed("ann", 50)
		ok(t, s.Insert(t.Context(), batch))
		first := must(s.UserUsage(t.Context(), "ann"))(t)
		ok(t, s.Insert(t.Context(), batch))
		ok(t, s.Insert(t.Context(), append(slices.Clone(batch[20:]), record("ann", 1000))))
		again := must(s.UserUsage(t.Context(), "ann"))(t)
		first.Completed, first.RunUS = first.Completed+1, first.RunUS+1000
		same(t, again, first)
	}},
	{"SumsAllHours", func(t *testing.T, s faena.Documents) {
		var batch []faena.Record
		for hour := range 30 {
			r := record("ann", hour)
			r.AdmittedAt = epoch.Add(time.Duration(hour) * time.Hour)
			batch = append(batch, r)
		}
		ok(t, s.Insert(t.Context(), batch[:20]))
		ok(t, s.Insert(t.Context(), batch[10:]))
		usageIs(t, s, "ann", 30, 0)
	}},
	{"BatchesThatOverlapCountEachOnce", func(t *testing.T, s faena.Documents) {
		var all []faena.Record
		for i := range 90 {
			owner := []string{"ann", "bob", "ann"}[i%3]
			all = append(all, aged(owner, 1+i/30, i%30))
		}
		together(6, func(i int) {
			for from := 0; from < 60; from += 15 { // each batch has records of two others, and is given twice
				batch := slices.Clone(all[from : from+30])
				if i%2 == 0 {
					slices.Reverse(batch)
				}
				if err := s.Insert(t.Context(), batch); err != nil {
					t.Error(err)
				}
			}
			if err := s.Insert(t.Context(), all[60:]); err != nil {
				t.Error(err)
			}
		})
		usageIs(t, s, "ann", 60, 0)
		usageIs(t, s, "bob", 30, 0)
		hoursAre(t, s, "ann", clock(0, 0), 10, "01:20+0", "02:20+0", "03:20+0")
		hoursAre(t, s, "bob", clock(0, 0), 10, "01:10+0", "02:10+0", "03:10+0")
	}},
	// Whatever an insertion that was cut short has done, the same batch again makes it whole.
	{"CutShortAndRepeatedCountsEachOnce", func(t *testing.T, s faena.Documents) {
		for hour := range 12 {
			batch := []faena.Record{aged("ann", hour, 1), aged("bob", hour, 2), aged("ann", hour, 3), aged("ann", hour+12, 4)}
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(hour)*200*time.Microsecond)
			_ = s.Insert(ctx, batch) // it may have stored some, all, or none
			cancel()
			ok(t, s.Insert(t.Context(), batch))
			usageIs(t, s, "ann", int64(3*(hour+1)), 0)
			usageIs(t, s, "bob", int64(hour+1), 0)
		}
	}},
	{"ByHour", func(t *testing.T, s faena.Documents) {
		hoursAre(t, s, "ann", clock(0, 0), 10)
		late := failed("ann", 100, "resize", faena.ReasonTimeout)
		late.AdmittedAt = clock(3, 59).In(time.FixedZone("half an hour off", 5*3600+1800))
		ok(t, s.Insert(t.Context(), []faena.Record{aged("ann", 3, 0), late, aged("ann", 5, 30), aged("ann", 9, 0), aged("ann", 26, 0),
			aged("anna", 4, 0), aged("an", 4, 0), aged("ann-b", 4, 0)}))
		hoursAre(t, s, "ann", clock(0, 0), 10, "03:1+1", "05:1+0", "09:1+0", "02:1+0") // the last is of the next day
		hoursAre(t, s, "ann", time.Time{}, 2, "03:1+1", "05:1+0")
		hoursAre(t, s, "ann", clock(3, 0), 1, "03:1+1")
		hoursAre(t, s, "ann", clock(4, 0), 10, "05:1+0", "09:1+0", "02:1+0")
		hoursAre(t, s, "ann", clock(5, 59), 2, "05:1+0", "09:1+0")
		hoursAre(t, s, "ann", clock(27, 0), 10)
		hoursAre(t, s, "nobody", clock(0, 0), 10)
		if list := must(s.UsageByHour(t.Context(), "ann", clock(3, 0), 1))(t); list[0].RunUS != 2000 || !list[0].Hour.Equal(clock(3, 0)) {
			t.Errorf("the usage of the hour is %+v", list[0])
		}
	}},
	{"TheHoursAddUpToTheSum", func(t *testing.T, s faena.Documents) {
		batch := mixed("ann", 120)
		for i := range batch {
			batch[i].AdmittedAt = clock(0, 17*i)
		}
		ok(t, s.Insert(t.Context(), batch[:70]))
		ok(t, s.Insert(t.Context(), batch[50:]))
		sum := faena.Usage{User: "ann"}
		for _, u := range must(s.UsageByHour(t.Context(), "ann", midnight, 1000))(t) {
			sum.Completed, sum.Failed, sum.RunUS = sum.Completed+u.Completed, sum.Failed+u.Failed, sum.RunUS+u.RunUS
		}
		same(t, must(s.UserUsage(t.Context(), "ann"))(t), sum)
		usageIs(t, s, "ann", 24, 96)
	}},
	{"ErasedWithTheUser", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("ann")))(t)
		ok(t, s.Insert(t.Context(), []faena.Record{aged("ann", 3, 0), aged("anna", 3, 0)}))
		ok(t, s.EraseUser(t.Context(), "ann"))
		ok(t, s.Insert(t.Context(), []faena.Record{aged("ann", 4, 0)}))
		hoursAre(t, s, "ann", clock(0, 0), 10)
		hoursAre(t, s, "anna", clock(0, 0), 10, "03:1+0")
	}},
}

func usageIs(t testing.TB, s faena.Documents, user string, completed, failed int64) {
	t.Helper()
	u := must(s.UserUsage(t.Context(), user))(t)
	if u.User != user || u.Completed != completed || u.Failed != failed {
		t.Errorf("the usage is %+v, want %d and %d", u, completed, failed)
	}
}

// hoursAre checks a user's usage by hour, each as "<hour>:<completed>+<failed>".
func hoursAre(t testing.TB, s faena.Documents, user string, from time.Time, limit int, want ...string) {
	t.Helper()
	var got []string
	for _, u := range must(s.UsageByHour(t.Context(), user, from, limit))(t) {
		if u.User != user || u.Hour.Location() != time.UTC || !u.Hour.Equal(u.Hour.Truncate(time.Hour)) {
			t.Errorf("the usage of an hour of user %s is %+v", user, u)
		}
		got = append(got, fmt.Sprintf("%s:%d+%d", u.Hour.Format("15"), u.Completed, u.Failed))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the hours of user %s are %q, want %q", user, got, want)
	}
}
