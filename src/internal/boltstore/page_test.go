package boltstore

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// quick opens a store whose changes are not on disk when a call returns, for filling it.
func quick(t testing.TB) *Store {
	s := open(t, filepath.Join(t.TempDir(), "faena.db"))
	s.db.NoSync = true
	return s
}

// A page of 100 costs the same in a history of 1,000 and in one that is twenty times as long, whatever it is filtered
// by, and so does pruning 100. A walk over what does not match would cost far more than the margin. BenchmarkStore does it
// with 100,000.
func TestStore_CostInALongHistory(t *testing.T) {
	const few, many = 1000, 20_000
	small, large := quick(t), quick(t)
	faenatest.FillHistory(t, small, "ann", few)
	faenatest.FillHistory(t, large, "ann", many)
	for name, q := range faenatest.HistoryQueries("ann", many) {
		compare(t, 5, fmt.Sprintf("a page of %q", name),
			func() time.Duration {
				return faenatest.MedianPage(t, small, faenatest.HistoryQueries("ann", few)["newest"])
			},
			func() time.Duration { return faenatest.MedianPage(t, large, q) })
	}
	compare(t, 2, "pruning 100", // each try removes half of the short history
		func() time.Duration { return faenatest.MedianPrune(t, small, few) },
		func() time.Duration { return faenatest.MedianPrune(t, large, many) })
}

// compare checks that something takes no longer in a long history than in a short one. The two are measured right after each other, and
// again where the host may have been busy with the second alone.
func compare(t *testing.T, tries int, what string, short, long func() time.Duration) {
	t.Helper()
	for range tries {
		a, b := short(), long()
		if b <= 4*max(a, time.Millisecond) {
			return
		}
		t.Logf("%s takes %v in a short history, and %v in a long one", what, a, b)
	}
	t.Errorf("%s takes longer in a long history, at each of %d tries", what, tries)
}

func BenchmarkStore(b *testing.B) {
	faenatest.BenchmarkDocuments(b, func(t testing.TB) faena.Documents { return quick(t) })
}
