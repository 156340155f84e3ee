package mongostore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/ferrettest"
)

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

// changing are the commands that change documents.
var changing = []string{"insert", "update", "delete"}

// killed is a store in a process that is killed at one of its changes. Others may use the same database.
type killed struct {
	*Store
	relay *ferrettest.Relay
}

func openKilled(t testing.TB, server *ferrettest.Server, database string) *killed {
	t.Helper()
	k := &killed{relay: server.NewRelay(t)}
	k.Store = open(t, Options{URI: k.relay.URI(), Database: database}).settled(t)
	return k
}

// settled waits until a store has nothing to do in the background.
func (s *Store) settled(t testing.TB) *Store {
	t.Helper()
	select {
	case <-s.idle:
	case <-time.After(30 * time.Second):
		t.Fatal("it is not settled within 30 s")
	}
	return s
}

// at runs fn, and kills the process at the n-th change, which the server has or has not made. It reports whether there were so many.
func (k *killed) at(t testing.TB, n int, fault ferrettest.Fault, fn func(context.Context) error) (was bool, err error) {
	t.Helper()
	var mu sync.Mutex
	k.relay.SetFault(func(command string) ferrettest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if was { // it is dead
			return ferrettest.LoseCommand
		}
		if !slices.Contains(changing, command) {
			return ferrettest.None
		}
		if n--; n > 0 {
			return ferrettest.None
		}
		was = true
		return fault
	})
	err = fn(t.Context())
	k.relay.SetFault(nil)
	mu.Lock()
	defer mu.Unlock()
	return was, err
}

var users atomic.Int64

// act is something that a process does to a user.
type act func(ctx context.Context, s *Store, user string) error

// everywhere lets one process after the other begin to do something, and kills each at another of its changes, before or after
// the server has made it; then a second process does something, and check looks at what is there. Each time it is about
// another user, for whom the second process has prepared something first.
func everywhere(parent *testing.T, server *ferrettest.Server, second *Store, prepare, first, again act,
	check func(t *testing.T, user string)) {
	parent.Helper()
	for name, fault := range map[string]ferrettest.Fault{"before": ferrettest.LoseCommand, "after": ferrettest.LoseReply} {
		for n, was := 1, true; was; n++ {
			parent.Run(fmt.Sprintf("%s change %d", name, n), func(t *testing.T) {
				user := fmt.Sprintf("user-%d", users.Add(1))
				if prepare != nil {
					ok(t, prepare(t.Context(), second, user))
				}
				k := openKilled(parent, server, second.o.Database) // closed last of all: it takes a moment to find its server again
				var err error
				was, err = k.at(t, n, fault, func(ctx context.Context) error { return first(ctx, k.Store, user) })
				if (err != nil) != was || n == 1 && !was {
					t.Fatalf("killed: %v, it returns %v", was, err)
				}
				ok(t, again(t.Context(), second, user))
				check(t, user)
			})
		}
	}
}

// documents counts what a collection has of a user.
func (s *Store) documents(t testing.TB, collection, user string) int {
	t.Helper()
	n, err := s.db.Load().Collection(collection).CountDocuments(t.Context(), is("_id", below(user)))
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// records are n of a user, a minute apart, each third of which has failed.
func records(user string, n int) (list []faena.Record) {
	for i := range n {
		at := noon.Add(time.Duration(i) * time.Minute)
		r := faena.Record{Schema: faena.SchemaVersion, ID: fmt.Sprintf("0195%04x-0000-7000-8000-%012x", i, i), User: user, Function: "f",
			State: faena.StateSucceeded, AdmittedAt: at, Timings: faena.Timings{RunUS: 10},
			Result: faena.Blob{Size: 3, Inline: []byte{0, 0xff, '\n'}}}
		if i%3 == 2 {
			r.State, r.Reason = faena.StateFailed, faena.ReasonExitNonzero
		}
		list = append(list, r)
	}
	return list
}

// counted checks the usage of a user who has recorded records(user, n), and that nothing is left undone.
func counted(t testing.TB, s *Store, user string, n int) {
	t.Helper()
	u := must(s.UserUsage(t.Context(), user))(t)
	if failed := int64(n / 3); u.Completed != int64(n)-failed || u.Failed != failed || u.RunUS != int64(10*n) {
		t.Errorf("the usage of %d activations is %+v", n, u)
	}
	for c, undone := range map[string]string{activationsCollection: "mark", usageCollection: "counted"} {
		filter := bson.D{{Key: "_id", Value: below(user)}, {Key: undone, Value: is("$exists", true)}}
		if n := must(s.db.Load().Collection(c).CountDocuments(t.Context(), filter))(t); n != 0 {
			t.Errorf("%d documents in %s are not done with", n, c)
		}
	}
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) count(part string) int { return strings.Count(l.String(), part) }
