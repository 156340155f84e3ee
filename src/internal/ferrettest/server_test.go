package ferrettest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
)

// connect is MongoDB's own client; it gives up soon.
func connect(t *testing.T, o *options.ClientOptions) *mongo.Collection {
	t.Helper()
	client, err := mongo.Connect(o.SetServerSelectionTimeout(time.Second).SetTimeout(10 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.WithoutCancel(t.Context())) })
	return client.Database("test").Collection("things")
}

type thing struct {
	ID string `bson:"_id"`
	N  int
}

func TestServer_StopsAndStartsOnTheSameFiles(t *testing.T) {
	s := ferrettest.Start(t, ferrettest.Options{})
	things := connect(t, options.Client().ApplyURI(s.URI()))
	if _, err := things.InsertOne(t.Context(), thing{ID: "a", N: 1}); err != nil {
		t.Fatal(err)
	}
	uri := s.URI()
	for name, end := range map[string]func(testing.TB){"Stop": s.Stop, "Kill": s.Kill} {
		t.Run(name, func(t *testing.T) {
			end(t)
			if err := things.FindOne(t.Context(), bson.D{}).Err(); err == nil {
				t.Error("it answers although it does not run")
			}
			s.Restart(t)
			if s.URI() != uri {
				t.Errorf("it was at %s and is at %s", uri, s.URI())
			}
			var got thing
			faenatest.EventuallyNil(t, 10*time.Second, "the document is there", func() error {
				return things.FindOne(t.Context(), bson.D{{Key: "_id", Value: "a"}}).Decode(&got)
			})
			if got.N != 1 {
				t.Errorf("the document is %+v", got)
			}
		})
	}
}

func TestServer_TLS(t *testing.T) {
	ca := faenatest.NewCA(t)
	cert := ca.Issue("mongodb")
	s := ferrettest.Start(t, ferrettest.Options{CertFile: cert.CertFile, KeyFile: cert.KeyFile})
	if _, err := connect(t, options.Client().ApplyURI(s.URI()).SetTLSConfig(ca.Client())).InsertOne(t.Context(), thing{ID: "a"}); err != nil {
		t.Error(err)
	}
	others := options.Client().ApplyURI(s.URI()).SetTLSConfig(faenatest.NewCA(t).Client())
	if _, err := connect(t, others).InsertOne(t.Context(), thing{ID: "b"}); err == nil {
		t.Error("a client that does not trust its authority is served")
	}
}

// Of many that change a document from what they have read, one does, as with MongoDB.
func TestRelay_ChangesOneAtATime(t *testing.T) {
	s := ferrettest.Start(t, ferrettest.Options{})
	if _, err := connect(t, options.Client().ApplyURI(s.URI())).InsertOne(t.Context(), thing{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	const each = 20
	var wg sync.WaitGroup
	for range 4 {
		things := connect(t, options.Client().ApplyURI(s.NewRelay(t).URI()))
		wg.Go(func() {
			for changed := 0; changed < each; {
				var was thing
				if err := things.FindOne(t.Context(), bson.D{{Key: "_id", Value: "a"}}).Decode(&was); err != nil {
					t.Error(err)
					return
				}
				done, err := things.UpdateOne(t.Context(), bson.D{{Key: "_id", Value: "a"}, {Key: "n", Value: was.N}},
					bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: was.N + 1}}}})
				if err != nil {
					t.Error(err)
					return
				}
				changed += int(done.MatchedCount)
			}
		})
	}
	wg.Wait()
	var got thing
	if err := connect(t, options.Client().ApplyURI(s.URI())).FindOne(t.Context(), bson.D{}).Decode(&got); err != nil || got.N != 4*each {
		t.Errorf("after %d changes it is %+v: %v", 4*each, got, err)
	}
}

func TestRelay_SetFault(t *testing.T) {
	s := ferrettest.Start(t, ferrettest.Options{})
	relay := s.NewRelay(t)
	cut, whole := connect(t, options.Client().ApplyURI(relay.URI())), connect(t, options.Client().ApplyURI(s.URI()))
	for _, c := range []struct {
		fault ferrettest.Fault
		there bool
	}{{ferrettest.LoseCommand, false}, {ferrettest.LoseReply, true}} {
		t.Run(fmt.Sprint(c.fault), func(t *testing.T) {
			relay.SetFault(func(command string) ferrettest.Fault {
				if command == "insert" {
					return c.fault
				}
				return ferrettest.None
			})
			id := fmt.Sprint(c.fault)
			if _, err := cut.InsertOne(t.Context(), thing{ID: id}); err == nil {
				t.Error("the client knows of no fault")
			}
			err := whole.FindOne(t.Context(), bson.D{{Key: "_id", Value: id}}).Err()
			if there := !errors.Is(err, mongo.ErrNoDocuments); there != c.there || there && err != nil {
				t.Errorf("the document is there: %v, %v", there, err)
			}
			relay.SetFault(nil)
			if _, err := cut.InsertOne(t.Context(), thing{ID: id + " again"}); err != nil {
				t.Errorf("without a fault: %v", err)
			}
		})
	}
}

func TestServer_LeavesNothing(t *testing.T) {
	leftovers := func() int {
		found, err := filepath.Glob(filepath.Join(os.TempDir(), "ferretdb-*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Run("One", func(t *testing.T) {
		uri := ferrettest.Start(t, ferrettest.Options{}).URI()
		client, err := mongo.Connect(options.Client().ApplyURI(uri))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Disconnect(context.WithoutCancel(t.Context())) })
		if _, err := client.Database(ferrettest.Database(t, uri)).Collection("things").InsertOne(t.Context(), thing{ID: "a"}); err != nil {
			t.Error(err)
		}
		if n := leftovers(); n != 1 {
			t.Errorf("there are %d directories", n)
		}
	})
	if n := leftovers(); n != 0 {
		t.Errorf("%d directories are left", n)
	}
}
