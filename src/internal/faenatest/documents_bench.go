package faenatest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// rare is the function of every hundredth record of FillHistory; all of its records have failed.
const rare = "rare"

// HistoryQueries are the pages that a long history is asked for, by name. The filters match all records, one in a
// hundred, or none of the newest 90 %.
func HistoryQueries(user string, n int) map[string]faena.HistoryQuery {
	page := func(function string, state faena.State, before string) faena.HistoryQuery {
		return faena.HistoryQuery{User: user, Function: function, State: state, Before: before, Limit: 100}
	}
	return map[string]faena.HistoryQuery{
		"newest":       page("", "", ""),
		"oldest":       page("", "", id(n/10)),
		"function":     page("resize", "", ""),
		"rare":         page(rare, "", ""),
		"state":        page("", faena.StateSucceeded, ""),
		"rare_state":   page("", faena.StateFailed, ""),
		"early_state":  page("", faena.StateTimedOut, ""),
		"rare_both":    page(rare, faena.StateFailed, ""),
		"absent_state": page("resize", faena.StateLost, ""),
	}
}

// FillHistory gives a user n records for HistoryQueries.
func FillHistory(t testing.TB, s faena.Documents, user string, n int) {
	t.Helper()
	batch := make([]faena.Record, 0, 256)
	for i := range n {
		r := record(user, i)
		switch {
		case i%100 == 50:
			r = failed(user, i, rare, faena.ReasonExitNonzero)
		case i < n/10 && i%5 == 0:
			r = failed(user, i, "resize", faena.ReasonTimeout)
		}
		if batch = append(batch, r); len(batch) == cap(batch) || i == n-1 {
			ok(t, s.Insert(t.Context(), batch))
			batch = batch[:0]
		}
	}
}

// MedianPage is how long a page takes, at the median of many.
func MedianPage(t testing.TB, s faena.Documents, q faena.HistoryQuery) time.Duration {
	t.Helper()
	return median(t, 31, func() error {
		_, err := s.Activations(t.Context(), q)
		return err
	})
}

// MedianPrune is how long it takes to prune 100 records of the n that FillHistory gave, at the median of several.
func MedianPrune(t testing.TB, s faena.Documents, n int) time.Duration {
	t.Helper()
	return median(t, min(9, n/200), func() error {
		list, err := s.Prune(t.Context(), epoch.AddDate(1, 0, 0), 100)
		if err == nil && len(list) != 100 {
			return fmt.Errorf("%d were pruned", len(list))
		}
		return err
	})
}

func median(t testing.TB, n int, fn func() error) time.Duration {
	t.Helper()
	took := make([]time.Duration, n)
	for i := range took {
		start := time.Now()
		err := fn()
		took[i] = time.Since(start)
		ok(t, err)
	}
	slices.Sort(took)
	return took[n/2]
}

// BenchmarkDocuments measures pages of 100, with each filter, and other reads, in a history of 1,000 and in one of 100,000,
// and then the removal of 100. The two should not differ.
func BenchmarkDocuments(b *testing.B, open func(t testing.TB) faena.Documents) {
	for _, n := range []int{1000, 100_000} {
		s := open(b)
		FillHistory(b, s, "ann", n)
		queries := HistoryQueries("ann", n)
		for _, name := range sortedKeys(queries) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for b.Loop() {
					_, err := s.Activations(b.Context(), queries[name])
					ok(b, err)
				}
			})
		}
		b.Run(fmt.Sprintf("stats/%d", n), func(b *testing.B) {
			for b.Loop() {
				_, err := s.HistoryStats(b.Context())
				ok(b, err)
			}
		})
		b.Run(fmt.Sprintf("usage_by_hour/%d", n), func(b *testing.B) {
			for b.Loop() {
				_, err := s.UsageByHour(b.Context(), "ann", epoch, 24)
				ok(b, err)
			}
		})
		next := n
		b.Run(fmt.Sprintf("prune/%d", n), func(b *testing.B) {
			for b.Loop() {
				list, err := s.Prune(b.Context(), epoch.AddDate(1, 0, 0), 100)
				ok(b, err)
				b.StopTimer()
				for i := range list { // as many as there were, newer than all others
					list[i] = record("ann", next)
					next++
				}
				ok(b, s.Insert(b.Context(), list))
				b.StartTimer()
			}
		})
	}
}

func sortedKeys[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
