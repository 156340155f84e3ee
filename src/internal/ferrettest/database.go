package ferrettest

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Variable names the environment variable with the URI of a MongoDB that tests may use: with credentials where it asks for some,
// and tls=true where it speaks TLS with a certificate that this machine trusts.
const Variable = "FAENA_TEST_MONGODB_URI"

// URI is of the server that Variable names, otherwise of a FerretDB that is started for the test.
func URI(t testing.TB) string {
	t.Helper()
	if uri := os.Getenv(Variable); uri != "" {
		return uri
	}
	return Start(t, Options{}).URI()
}

var databases atomic.Int64

// Database is the name of a database of the test's own. It is dropped when the test ends, after what was opened later is closed.
func Database(t testing.TB, uri string) string {
	t.Helper()
	name := fmt.Sprintf("faena_test_%d_%d_%d", os.Getpid(), time.Now().UnixMilli(), databases.Add(1))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within)
		defer cancel()
		client, err := mongo.Connect(options.Client().ApplyURI(uri))
		if err != nil {
			t.Errorf("drop database %s: %v", name, err)
			return
		}
		if err := client.Database(name).Drop(ctx); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
		_ = client.Disconnect(ctx)
	})
	return name
}
