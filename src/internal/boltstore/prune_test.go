package boltstore

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// old is an hour after all that FillHistory makes.
var old = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)

// A Prune that is cut short returns what it has removed; each record is wholly there or wholly gone; the same call again
// does the rest, in this process or the next.
func TestStore_Prune_CutShort(t *testing.T) {
	const n = 5 * pruneStep
	path := filepath.Join(t.TempDir(), "faena.db")
	s := open(t, path)
	faenatest.FillHistory(t, s, "ann", n)
	usage := usageOf(t, s, "ann")
	removed := 0
	for looks := 1; ; looks++ {
		some, err := s.Prune(&endsAfter{Context: t.Context(), looks: looks}, old, n)
		if removed += len(some); err == nil {
			break
		}
		if !errors.Is(err, errEnded) {
			t.Fatal(err)
		}
		if left := consistent(t, s); left != n-removed {
			t.Fatalf("after %d looks %d were returned, and %d are left", looks, removed, left)
		}
		if st := statsOf(t, s); removed > 0 && !st.Horizon.Equal(old) {
			t.Fatalf("the horizon is %v", st.Horizon)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, path)
	}
	if removed != n || consistent(t, s) != 0 || usageOf(t, s, "ann") != usage {
		t.Errorf("%d of %d were returned, the usage is %+v", removed, n, usageOf(t, s, "ann"))
	}
}

// What a newer version has written is not removed by this one, which cannot tell its objects, and holds nothing else up.
func TestStore_Prune_RecordOfANewerVersion(t *testing.T) {
	s := quick(t)
	faenatest.FillHistory(t, s, "ann", 10)
	faenatest.FillHistory(t, s, "bob", 10)
	newer := listOf(t, s, "ann")[9] // the oldest
	newer.Schema++
	if err := s.db.Update(func(tx *bolt.Tx) error {
		return put(tx.Bucket(activationsBucket), key("ann", newer.ID), newer)
	}); err != nil {
		t.Fatal(err)
	}
	if pruned, err := s.Prune(t.Context(), old, 100); err != nil || len(pruned) != 19 {
		t.Errorf("%d are removed: %v", len(pruned), err)
	}
	if _, err := s.Activation(t.Context(), "ann", newer.ID); !errors.Is(err, faena.ErrSchema) {
		t.Errorf("it is gone: %v", err)
	}
	if st := statsOf(t, s); !st.Oldest.Equal(newer.AdmittedAt) {
		t.Errorf("the oldest is of %v", st.Oldest)
	}
}

// Marks of pruned records go when they are old, however many there are, and with the user.
func TestStore_Prune_Marks(t *testing.T) {
	const n = 2*eraseStep + 1
	s := quick(t)
	for _, name := range []string{"ann", "bob"} {
		if _, err := s.PutUser(t.Context(), faena.User{Name: name, Role: faena.RoleUser}); err != nil {
			t.Fatal(err)
		}
		faenatest.FillHistory(t, s, name, n)
	}
	prune := func(want, marks int) {
		t.Helper()
		pruned, err := s.Prune(t.Context(), old, 10*n)
		if got := count(t, s, prunedBucket); err != nil || len(pruned) != want || got != marks {
			t.Fatalf("%d are removed, want %d; there are %d marks, want %d: %v", len(pruned), want, got, marks, err)
		}
	}
	prune(2*n, 2*n)
	age := func(user string, by time.Duration) {
		t.Helper()
		if err := s.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(prunedBucket)
			var keys [][]byte
			err := ascend(b, below(user), nil, func(k, _ []byte) (bool, error) { keys = append(keys, bytes.Clone(k)); return true, nil })
			for _, k := range keys {
				err = errors.Join(err, b.Put(k, []byte(now().Add(-by).Format(time.RFC3339))))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	age("ann", markAge-time.Minute)
	prune(0, 2*n)
	age("ann", markAge+time.Minute)
	prune(0, n)
	if err := s.EraseUser(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	prune(0, 0)
}

// A file of the version before this has none of what pruning needs.
func TestOpen_BeforePruning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faena.db")
	s := open(t, path)
	faenatest.FillHistory(t, s, "ann", 300)
	want := statsOf(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, path, func(tx *bolt.Tx) error {
		return errors.Join(tx.DeleteBucket(prunedBucket), tx.DeleteBucket(groupsBucket))
	})
	s = open(t, path)
	if got := statsOf(t, s); got != want || got.Bytes == 0 || !got.Horizon.IsZero() {
		t.Errorf("the history was %+v and is %+v", want, got)
	}
	if consistent(t, s) != 300 {
		t.Error("the history is not the same")
	}
	if pruned, err := s.Prune(t.Context(), old, 1000); err != nil || len(pruned) != 300 || consistent(t, s) != 0 {
		t.Errorf("%d are removed: %v", len(pruned), err)
	}
}

// consistent checks that the parts of the history agree, and returns how many records it has.
func consistent(t *testing.T, s *Store) int {
	t.Helper()
	n := count(t, s, activationsBucket)
	for _, b := range [][]byte{byFunctionBucket, byStateBucket, byBothBucket} {
		if entries := count(t, s, b); entries != n {
			t.Errorf("%s has %d entries for %d records", b, entries, n)
		}
	}
	var sum int64
	err := s.db.View(func(tx *bolt.Tx) error {
		for _, name := range measured {
			if err := tx.Bucket(name).ForEach(func(k, v []byte) error { sum += size(k, v); return nil }); err != nil {
				return err
			}
		}
		return tx.Bucket(payloadsBucket).ForEach(func(k, _ []byte) error {
			if tx.Bucket(activationsBucket).Get(k) == nil {
				t.Errorf("the payload of %s is left", k)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if st := statsOf(t, s); st.Bytes != sum {
		t.Errorf("the history has %d bytes, and says %d", sum, st.Bytes)
	}
	return n
}

func count(t *testing.T, s *Store, bucket []byte) (n int) {
	t.Helper()
	if err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(_, _ []byte) error { n++; return nil })
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func statsOf(t *testing.T, s *Store) faena.HistoryStats {
	t.Helper()
	st, err := s.HistoryStats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func usageOf(t *testing.T, s *Store, user string) faena.Usage {
	t.Helper()
	u, err := s.UserUsage(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func listOf(t *testing.T, s *Store, user string) []faena.Record {
	t.Helper()
	list, err := s.Activations(t.Context(), faena.HistoryQuery{User: user, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
