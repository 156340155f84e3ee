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
