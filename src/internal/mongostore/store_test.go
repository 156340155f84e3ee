package mongostore

import (
	"testing"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
)

func TestStore_Documents(t *testing.T) {
	uri := ferrettest.URI(t)
	faenatest.Documents(t, func(t testing.TB) faena.Documents {
		return open(t, Options{URI: uri, Database: ferrettest.Database(t, uri)})
	})
}

// open opens a store that is closed with the test.
func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
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
