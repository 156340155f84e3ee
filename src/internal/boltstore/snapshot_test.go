package boltstore_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/faena"
)

// What is written after a snapshot began, more than the file had room for, waits for nothing, and is not in it.
func TestStore_Snapshot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := boltstore.Open(filepath.Join(dir, "a.db"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	put := func(from, n, size int) {
		t.Helper()
		batch := make([]faena.Record, n)
		for i := range batch {
			now := time.Now().UTC()
			batch[i] = faena.Record{Schema: faena.SchemaVersion, ID: fmt.Sprintf("01920000-0000-7000-8000-%012d", from+i), User: "ann", Group: "default", Function: "f",
				Revision: 1, State: faena.StateSucceeded, AdmittedAt: now, EndedAt: &now, Result: faena.Blob{Size: int64(size), Inline: bytes.Repeat([]byte{1}, size)}}
		}
		if err := s.Insert(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	put(0, 10, 100)
	snapshot, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	put(10, 200, 200_000)
	f, err := os.Create(filepath.Join(dir, "b.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snapshot.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := snapshot.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	copied, err := boltstore.Open(f.Name(), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = copied.Close() })
	usage, err := copied.UserUsage(t.Context(), "ann")
	if err != nil || usage.Completed != 10 {
		t.Errorf("the copy counts %+v, %v", usage, err)
	}
}
