package boltstore

import (
	"path/filepath"
	"testing"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

func TestStore_Documents(t *testing.T) {
	faenatest.Documents(t, func(t testing.TB) faena.Documents { return open(t, filepath.Join(t.TempDir(), "faena.db")) })
}

// open opens a store that is closed with the test.
func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
