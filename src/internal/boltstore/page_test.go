package boltstore

import (
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
	page := faenatest.MedianPage(t, small, faenatest.HistoryQueries("ann", few)["newest"])
	for name, q := range faenatest.HistoryQueries("ann", many) {
		if took := faenatest.MedianPage(t, large, q); took > 4*max(page, time.Millisecond) {
			t.Errorf("a page of %q takes %v of %d activations, and one of %d takes %v", name, took, many, few, page)
		}
	}
	prune := faenatest.MedianPrune(t, small, few)
	if took := faenatest.MedianPrune(t, large, many); took > 4*max(prune, time.Millisecond) {
		t.Errorf("pruning 100 of %d takes %v, and of %d %v", many, took, few, prune)
	}
}

func BenchmarkStore(b *testing.B) {
	faenatest.BenchmarkDocuments(b, func(t testing.TB) faena.Documents { return quick(t) })
}
