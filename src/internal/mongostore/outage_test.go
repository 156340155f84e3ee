package mongostore

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
)

// away checks that an error says what the port promises of a store that is away.
func away(t testing.TB, err error) *faena.Error {
	t.Helper()
	e, is := errors.AsType[*faena.Error](err)
	if !is || e.Kind != faena.KindUnavailable || e.Component != faena.ComponentStore || !e.Retryable {
		t.Fatalf("the error is %v, want a retryable one that says unavailable and store", err)
	}
	return e
}

// The server goes away, in order or not, and comes back: calls fail soon and say so, then go on with what was there before.
func TestStore_ServerGoesAwayAndComesBack(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	s := open(t, Options{URI: server.URI(), SelectionTimeout: 300 * time.Millisecond}).settled(t)
	ok(t, s.Insert(t.Context(), records("ann", 3)))
	for name, end := range map[string]func(testing.TB){"Stop": server.Stop, "Kill": server.Kill} {
		t.Run(name, func(t *testing.T) {
			end(t)
			start := time.Now()
			away(t, s.Ping(t.Context()))
			away(t, s.Insert(t.Context(), records("ann", 6)))
			_, err := s.Function(t.Context(), "ann", "f")
			if e := away(t, err); !strings.Contains(err.Error(), "connection") || !strings.HasPrefix(e.Reason, "store_") {
				t.Errorf("the error has no word of the driver: %v", err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("three answers take %v", took)
			}
			server.Restart(t)
			faenatest.EventuallyNil(t, 20*time.Second, "the store answers", func() error { return s.Ping(t.Context()) })
			ok(t, s.Insert(t.Context(), records("ann", 6)))
			counted(t, s, "ann", 6)
		})
	}
}

// A store is opened while its server is away. It says what is wrong, and is ready by itself.
func TestOpen_BeforeTheServer(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	server.Stop(t)
	log := &lines{}
	s := open(t, Options{URI: server.URI(), SelectionTimeout: 300 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(log, nil))})
	e := away(t, s.Ping(t.Context()))
	if !strings.Contains(e.Message, "FAENA_MONGODB_URI") || s.Warning() != "" {
		t.Errorf("it says %q, and warns of %q", e.Message, s.Warning())
	}
	server.Restart(t)
	s.settled(t)
	ok(t, s.Ping(t.Context()))
	cursor, err := s.db.Load().Collection(activationsCollection).Indexes().List(t.Context())
	ok(t, err)
	var there []bson.M
	ok(t, cursor.All(t.Context(), &there))
	want := 1 // of ids
	for _, i := range indexes {
		if i.collection == activationsCollection {
			want++
		}
	}
	if len(there) != want {
		t.Errorf("the activations have %d indexes, want %d", len(there), want)
	}
	if n := log.count("level=ERROR"); n != 1 {
		t.Errorf("%d errors are logged:\n%s", n, log)
	}
}

// A server that is no replica set is warned of once, however often the store is asked.
func TestStore_Warning(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	log := &lines{}
	s := open(t, Options{URI: server.URI(), Logger: slog.New(slog.NewTextHandler(log, nil))}).settled(t)
	for range 3 {
		ok(t, s.Ping(t.Context()))
	}
	if w := s.Warning(); !strings.Contains(w, "no replica set") || !strings.Contains(w, "rs.initiate()") {
		t.Errorf("it warns of %q", w)
	}
	if n := log.count("level=WARN"); n != 1 {
		t.Errorf("%d warnings are logged:\n%s", n, log)
	}
}

// A command that the server does not answer ends by itself.
func TestStore_CommandsHaveADeadline(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	relay := server.NewRelay(t)
	s := open(t, Options{URI: relay.URI(), Timeout: 200 * time.Millisecond, ListTimeout: 300 * time.Millisecond})
	faenatest.EventuallyNil(t, 20*time.Second, "the store answers", func() error { return s.Ping(t.Context()) })
	hang, stop := context.WithCancel(t.Context())
	defer stop()
	relay.SetFault(func(command string) ferrettest.Fault {
		if command == "find" || command == "insert" {
			<-hang.Done()
		}
		return ferrettest.None
	})
	for name, call := range map[string]func() error{
		"a document": func() error { _, err := s.User(t.Context(), "ann"); return err },
		"a list":     func() error { _, err := s.Users(t.Context(), "", 10); return err },
		"a change":   func() error { return s.Insert(t.Context(), records("ann", 1)) },
	} {
		start := time.Now()
		err := call()
		away(t, err)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
			t.Errorf("%s: after %v: %v", name, took, err)
		}
	}
}

// Close leaves no goroutine and no connection, whatever state the store is in.
func TestStore_Close_ReleasesAll(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	for name, uri := range map[string]string{"InUse": server.URI(), "Away": "mongodb://" + nobody(t) + "/"} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.Context(), Options{URI: uri, SelectionTimeout: 100 * time.Millisecond})
			ok(t, err)
			for range 3 {
				if err := s.Insert(t.Context(), records("ann", 3)); name == "InUse" {
					ok(t, err)
				}
			}
			ok(t, s.Close())
			ok(t, s.Close())
			faenatest.Eventually(t, 10*time.Second, "no goroutine is left", func() bool {
				stacks := make([]byte, 1<<20)
				stacks = stacks[:runtime.Stack(stacks, true)]
				return !bytes.Contains(stacks, []byte("mongo-driver")) && !bytes.Contains(stacks, []byte("mongostore.(*Store)"))
			})
		})
	}
}

// A database that a newer version has written is left alone.
func TestStore_DatabaseOfANewerVersion(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	older := open(t, Options{URI: server.URI()}).settled(t)
	newer := set(bson.E{Key: "schema", Value: faena.SchemaVersion + 1})
	_, err := older.db.Load().Collection(metaCollection).UpdateOne(t.Context(), byID(schemaID), newer)
	ok(t, err)
	s := open(t, Options{URI: server.URI()})
	for name, err := range map[string]error{"Ping": s.Ping(t.Context()), "Insert": s.Insert(t.Context(), records("ann", 1))} {
		if !errors.Is(err, faena.ErrSchema) || !faena.IsKind(err, faena.KindUnavailable) || !strings.Contains(err.Error(), "newer version") {
			t.Errorf("%s returns %v", name, err)
		}
	}
	if _, err := older.Activation(t.Context(), "ann", records("ann", 1)[0].ID); !faena.IsKind(err, faena.KindNotFound) {
		t.Errorf("it has written something: %v", err)
	}
}

// nobody is an address where nobody listens.
func nobody(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	ok(t, l.Close())
	return l.Addr().String()
}
