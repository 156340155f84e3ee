package mongostore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
)

var anyHead faena.Condition

func revision(user, digest string) faena.Revision {
	return faena.Revision{Schema: faena.SchemaVersion, User: user, Function: "f", Digest: digest, CreatedAt: noon}
}

// addRevision adds one with a digest that tells it from others.
func addRevision(digest string) act {
	return func(ctx context.Context, s *Store, user string) error {
		_, _, err := s.AddRevision(ctx, revision(user, digest), anyHead)
		return err
	}
}

// Whenever one process is killed between two of its writes, what another does afterwards makes it whole.
func TestStore_KilledBetweenWrites(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	second := open(t, Options{URI: server.URI(), Database: "crash"}).settled(t)
	twice := func(ctx context.Context, s *Store, user string) error {
		return errors.Join(addRevision("first")(ctx, s, user), addRevision("second")(ctx, s, user))
	}
	t.Run("AddRevision_First", func(t *testing.T) {
		everywhere(t, server, second, nil, addRevision("killed"), addRevision("again"), func(t *testing.T, user string) {
			f := must(second.Function(t.Context(), user, "f"))(t)
			if rev := must(second.Revision(t.Context(), user, "f", f.Latest))(t); rev.Digest != "again" || f.Latest > 2 {
				t.Errorf("revision %d is %+v", f.Latest, rev)
			}
		})
	})
	t.Run("AddRevision_Next", func(t *testing.T) {
		everywhere(t, server, second, twice, addRevision("killed"), addRevision("again"), func(t *testing.T, user string) {
			f := must(second.Function(t.Context(), user, "f"))(t)
			var digests []string
			for i, r := range must(second.Revisions(t.Context(), user, "f", 0, 100))(t) {
				if digests = append(digests, r.Digest); r.Number != f.Latest-i {
					t.Errorf("revision %d has the number %d", f.Latest-i, r.Number)
				}
			}
			want := [][]string{{"again", "second", "first"}, {"again", "killed", "second", "first"}}
			if f.Current != f.Latest || !slices.Equal(digests, want[0]) && !slices.Equal(digests, want[1]) {
				t.Errorf("the head is %+v, the revisions %q", f, digests)
			}
		})
	})
	t.Run("DeleteFunction", func(t *testing.T) {
		remove := func(ctx context.Context, s *Store, user string) error {
			return s.DeleteFunction(ctx, user, "f", anyHead)
		}
		everywhere(t, server, second, twice, remove, func(ctx context.Context, s *Store, user string) error {
			if err := remove(ctx, s, user); err != nil && !faena.IsKind(err, faena.KindNotFound) {
				return err
			}
			return addRevision("made again")(ctx, s, user)
		}, func(t *testing.T, user string) {
			list := must(second.Revisions(t.Context(), user, "f", 0, 100))(t)
			if len(list) != 1 || list[0].Number != 1 || list[0].Digest != "made again" {
				t.Errorf("a function that was made again has %+v", list)
			}
		})
	})
	t.Run("PutUser", func(t *testing.T) {
		put := func(ctx context.Context, s *Store, user string) error {
			_, err := s.PutUser(ctx, faena.User{Name: user})
			return err
		}
		everywhere(t, server, second, nil, put, put, func(t *testing.T, user string) { must(second.User(t.Context(), user))(t) })
	})
	t.Run("Insert", func(t *testing.T) {
		insert := func(n int) act {
			return func(ctx context.Context, s *Store, user string) error { return s.Insert(ctx, records(user, n)) }
		}
		everywhere(t, server, second, nil, insert(9), insert(12), func(t *testing.T, user string) {
			counted(t, second, user, 12)
			for _, r := range records(user, 12) {
				if got := must(second.Activation(t.Context(), user, r.ID))(t); string(got.Result.Inline) != string(r.Result.Inline) {
					t.Errorf("the result is %q", got.Result.Inline)
				}
			}
		})
	})
}

// A prune that was cut short leaves usage as it is, and the next one removes the rest, bytes included.
func TestStore_KilledWhilePruning(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	second := open(t, Options{URI: server.URI(), Database: "crash"}).settled(t)
	prune := func(ctx context.Context, s *Store, _ string) error {
		_, err := s.Prune(ctx, noon.Add(time.Hour), 100)
		return err
	}
	everywhere(t, server, second, func(ctx context.Context, s *Store, user string) error { return s.Insert(ctx, records(user, 12)) }, prune,
		func(ctx context.Context, s *Store, user string) error {
			// Some of them come a second time: their recorder had been killed.
			return errors.Join(s.Insert(ctx, records(user, 5)), prune(ctx, s, user))
		},
		func(t *testing.T, user string) {
			if list := must(second.Activations(t.Context(), faena.HistoryQuery{User: user, Limit: 100}))(t); len(list) != 0 {
				t.Errorf("%d are left", len(list))
			}
			// What one who was killed has left to do is done when the record is forgotten.
			age(t, second, user)
			ok(t, prune(t.Context(), second, user))
			counted(t, second, user, 12)
			for _, c := range []string{activationsCollection, payloadsCollection} {
				if n := second.documents(t, c, user); n != 0 {
					t.Errorf("%d documents are left in %s", n, c)
				}
			}
			if st := must(second.HistoryStats(t.Context()))(t); st.Bytes != 0 || !st.Oldest.IsZero() {
				t.Errorf("an empty history is %+v", st)
			}
		})
}

// age makes what stays of pruned records look a day old.
func age(t testing.TB, s *Store, user string) {
	t.Helper()
	_, err := s.db.Load().Collection(activationsCollection).UpdateMany(t.Context(),
		bson.D{{Key: "_id", Value: below(user)}, {Key: "pruned_at", Value: is("$exists", true)}},
		set(bson.E{Key: "pruned_at", Value: now().Add(-forgetAfter - time.Second)}))
	ok(t, err)
}

// fill gives a user something in each collection.
func fill(t testing.TB, s *Store, user string) {
	t.Helper()
	must(s.PutUser(t.Context(), faena.User{Name: user, Role: faena.RoleUser}))(t)
	for range 2 {
		_, _, err := s.AddRevision(t.Context(), revision(user, "sha256:5e"), anyHead)
		ok(t, err)
	}
	ok(t, s.Insert(t.Context(), records(user, 5)))
}

// nothingOf says what there still is of a user.
func nothingOf(t testing.TB, s *Store, user string) error {
	t.Helper()
	for _, c := range owned {
		if n := s.documents(t, c, user); n != 0 {
			return fmt.Errorf("there are %d documents in %s", n, c)
		}
	}
	return nil
}

// An erasure that was cut short leaves a tombstone at once, and is finished by the same call made again or by Open.
func TestStore_KilledWhileErasing(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	second := open(t, Options{URI: server.URI(), Database: "crash"}).settled(t)
	filled := func(_ context.Context, s *Store, user string) error { fill(t, s, user); return nil }
	erase := func(ctx context.Context, s *Store, user string) error { return s.EraseUser(ctx, user) }
	t.Run("TheSameCallAgain", func(t *testing.T) {
		everywhere(t, server, second, filled, erase, func(ctx context.Context, s *Store, user string) error {
			if err := erase(ctx, s, user); err != nil && !faena.IsKind(err, faena.KindNotFound) {
				return err
			}
			return nil
		}, func(t *testing.T, user string) {
			if _, err := second.User(t.Context(), user); !faena.IsKind(err, faena.KindNotFound) {
				t.Errorf("the profile: %v", err)
			}
			if err := second.EraseUser(t.Context(), user); !faena.IsKind(err, faena.KindNotFound) {
				t.Errorf("once more: %v", err)
			}
			ok(t, nothingOf(t, second, user))
		})
	})
	t.Run("Open", func(t *testing.T) {
		fill(t, second, "opened")
		k := openKilled(t, server, "crash")
		cut := func(ctx context.Context) error { return k.EraseUser(ctx, "opened") }
		if was, err := k.at(t, 3, ferrettest.LoseCommand, cut); !was || err == nil {
			t.Fatalf("it was not cut short: %v", err)
		}
		if nothingOf(t, second, "opened") == nil {
			t.Fatal("nothing is left to do")
		}
		ok(t, nothingOf(t, open(t, Options{URI: server.URI(), Database: "crash"}).settled(t), "opened"))
	})
}

// slow is a store that stops at a change until it is let go.
func slow(t testing.TB, server *ferrettest.Server, n int) (s *killed, stopped <-chan struct{}, letGo func()) {
	t.Helper()
	k := openKilled(t, server, "crash")
	at, on := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	k.relay.SetFault(func(command string) ferrettest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(changing, command) {
			return ferrettest.None
		}
		if n--; n == 0 {
			close(at)
			<-on
		}
		return ferrettest.None
	})
	return k, at, sync.OnceFunc(func() { close(on) })
}

// Who began to add something to a user before the erasure, and comes to it after the erasure, leaves nothing.
func TestStore_EraseUser_LateWriters(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	second := open(t, Options{URI: server.URI(), Database: "crash"}).settled(t)
	for name, c := range map[string]struct {
		write func(s *Store, user string) error
		want  func(err error) bool
	}{
		"AddRevision": {
			func(s *Store, user string) error {
				_, _, err := s.AddRevision(t.Context(), revision(user, "late"), anyHead)
				return err
			},
			func(err error) bool { return faena.IsKind(err, faena.KindNotFound) },
		},
		"Insert": {
			func(s *Store, user string) error { return s.Insert(t.Context(), records(user, 3)) },
			func(err error) bool { return err == nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			must(second.PutUser(t.Context(), faena.User{Name: name}))(t)
			late, stopped, letGo := slow(t, server, 1)
			defer letGo()
			done := make(chan error, 1)
			go func() { done <- c.write(late.Store, name) }()
			<-stopped
			ok(t, second.EraseUser(t.Context(), name))
			letGo()
			if err := <-done; !c.want(err) {
				t.Errorf("it returns %v", err)
			}
			ok(t, nothingOf(t, second, name))
		})
	}
	t.Run("ARecorderThatWasKilled", func(t *testing.T) {
		must(second.PutUser(t.Context(), faena.User{Name: "ann"}))(t)
		k := openKilled(t, server, "crash")
		insert := func(ctx context.Context) error { return k.Insert(ctx, records("ann", 3)) }
		if was, err := k.at(t, 2, ferrettest.LoseReply, insert); !was || err == nil {
			t.Fatalf("it was not killed: %v", err)
		}
		ok(t, second.EraseUser(t.Context(), "ann"))
		ok(t, insert(t.Context())) // as if it came only now
		ok(t, nothingOf(t, second, "ann"))
	})
	t.Run("AnAPIThatWasKilled", func(t *testing.T) {
		must(second.PutUser(t.Context(), faena.User{Name: "bob"}))(t)
		late, stopped, letGo := slow(t, server, 1)
		ctx, die := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, _, err := late.AddRevision(ctx, revision("bob", "late"), anyHead)
			done <- err
		}()
		<-stopped
		ok(t, second.EraseUser(t.Context(), "bob"))
		die()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it returns %v", err)
		}
		letGo() // the command was on its way
		faenatest.Eventually(t, 10*time.Second, "it has arrived", func() bool { return nothingOf(t, second, "bob") != nil })
		ok(t, nothingOf(t, open(t, Options{URI: server.URI(), Database: "crash"}).settled(t), "bob")) // the next one that is opened removes it
	})
}

// A recorder that comes late to take off the marks of what it has counted leaves those of what was pruned since.
func TestStore_Insert_LateToUnmark(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	second := open(t, Options{URI: server.URI(), Database: "crash"}).settled(t)
	late, stopped, letGo := slow(t, server, 4) // payloads, records, month, and now
	defer letGo()
	done := make(chan error, 1)
	go func() { done <- late.Insert(t.Context(), records("ann", 6)) }()
	<-stopped
	ok(t, second.Insert(t.Context(), records("ann", 6)))
	pruner := openKilled(t, server, "crash")
	prune := func(ctx context.Context) error { _, err := pruner.Prune(ctx, noon.Add(time.Hour), 100); return err }
	if was, err := pruner.at(t, 2, ferrettest.LoseReply, prune); !was || err == nil { // horizon, records
		t.Fatalf("it was not killed: %v", err)
	}
	letGo()
	ok(t, <-done)
	age(t, second, "ann")
	must(second.Prune(t.Context(), noon.Add(time.Hour), 100))(t)
	counted(t, second, "ann", 6)
	if st := must(second.HistoryStats(t.Context()))(t); st.Bytes != 0 {
		t.Errorf("an empty history has %d bytes", st.Bytes)
	}
}

// Several recorders that are given the same activations count each once, in whichever order they come.
func TestStore_Insert_SeveralRecorders(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	all := records("ann", 90)
	var wg sync.WaitGroup
	for i := range 3 {
		s := open(t, Options{URI: server.NewRelay(t).URI(), Database: "crash"})
		wg.Go(func() {
			for from := 0; from < 90; from += 15 {
				start := (from + 15*i) % 90
				part := slices.Clone(all[start : start+15])
				if start >= 15 {
					part = append(part, all[start-15:start]...)
				}
				if err := s.Insert(t.Context(), part); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	counted(t, open(t, Options{URI: server.URI(), Database: "crash"}).settled(t), "ann", 90)
}
