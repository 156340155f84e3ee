package mongostore

import (
	"os"
	"testing"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
)

// FerretDB reads a whole collection for each query but one by id, so it shows nothing of this, and takes hours:
//
//	FAENA_TEST_MONGODB_URI=mongodb://127.0.0.1:27017/ go test -bench . -run '^$' ./internal/mongostore
func BenchmarkStore(b *testing.B) {
	uri := os.Getenv(ferrettest.Variable)
	if uri == "" {
		b.Fatalf("the cost of a page is that of an index: name a MongoDB in %s", ferrettest.Variable)
	}
	faenatest.BenchmarkDocuments(b, func(t testing.TB) faena.Documents {
		return open(t, Options{URI: uri, Database: ferrettest.Database(t, uri)}).settled(t)
	})
}
