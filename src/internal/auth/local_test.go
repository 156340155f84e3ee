package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"faena.dev/faena/internal/faena"
)

// errStore is what a document store says that is away.
var errStore = faena.Unavailable(faena.ComponentStore, "store_unavailable", "The documents cannot be read.", nil)

// book has profiles, like a document store.
type book struct {
	mu    sync.Mutex
	users map[string]faena.User
	err   error
}

// newBook has ann, whose password is "ann's-password", and what else is given, in pairs of a name and a hash.
func newBook(namesAndHashes ...string) *book {
	b := &book{users: map[string]faena.User{}}
	b.put("ann", cheapHash("ann's-password"))
	for i := 0; i < len(namesAndHashes); i += 2 {
		b.put(namesAndHashes[i], namesAndHashes[i+1])
	}
	return b
}

func (b *book) put(name, hash string) {
	b.change(faena.User{Name: name, Role: faena.RoleUser, PasswordHash: hash})
}

func (b *book) change(u faena.User) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users[u.Name] = u
}

func (b *book) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.users, name)
}

func (b *book) profile(ctx context.Context, name string) (faena.User, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := errors.Join(ctx.Err(), b.err); err != nil {
		return faena.User{}, err
	}
	u, ok := b.users[name]
	if !ok {
		return faena.User{}, faena.NotFound("user", name)
	}
	return u, nil
}

func newLocal(t *testing.T, b *book) *Local {
	t.Helper()
	if b == nil {
		b = newBook()
	}
	return NewLocal(b.profile, slog.New(slog.DiscardHandler))
}

const home = "192.0.2.1"

// login checks that a login ends as it must: kind is "" for one that is let in.
func login(t *testing.T, l *Local, address, name, password string, kind faena.Kind) {
	t.Helper()
	u, err := l.Check(t.Context(), address, name, password)
	switch {
	case kind == "" && (err != nil || u.Name != name):
		t.Errorf("%s with %q is %+v, %v", name, password, u, err)
	case kind != "" && (!faena.IsKind(err, kind) || u.Name != ""):
		t.Errorf("%s with %q is %+v, %v; want %s", name, password, u, err, kind)
	}
}

func TestLocal_Check(t *testing.T) {
	t.Parallel()
	b := newBook("Bob_2", cheapHash("bob's-password"), "gateway-user", "", "broken", "no hash")
	b.change(faena.User{Name: "gone", Role: faena.RoleUser, PasswordHash: cheapHash("gone's-password"), Deleted: true})
	l := newLocal(t, b)
	for i, c := range []struct {
		name, user, password string
		kind                 faena.Kind
	}{
		{"Right", "ann", "ann's-password", ""},
		{"RightAgain", "ann", "ann's-password", ""},
		{"AnotherUser", "Bob_2", "bob's-password", ""},
		{"Wrong", "ann", "ann's-passwore", faena.KindUnauthenticated},
		{"AnotherUsersPassword", "ann", "bob's-password", faena.KindUnauthenticated},
		{"Empty", "ann", "", faena.KindUnauthenticated},
		{"InAnotherCase", "ann", "Ann's-password", faena.KindUnauthenticated},
		{"WithASpace", "ann", "ann's-password ", faena.KindUnauthenticated},
		{"WithNUL", "ann", "ann's-password\x00", faena.KindUnauthenticated},
		{"Long", "ann", strings.Repeat("x", 1<<20), faena.KindUnauthenticated},
		{"TheHashItself", "ann", b.users["ann"].PasswordHash, faena.KindUnauthenticated},
		{"NoSuchUser", "nobody", "ann's-password", faena.KindUnauthenticated},
		{"AUserInAnotherCase", "Ann", "ann's-password", faena.KindUnauthenticated},
		{"NoUserName", "", "ann's-password", faena.KindUnauthenticated},
		{"ANameThatIsNone", "ann\x00", "ann's-password", faena.KindUnauthenticated},
		{"ALongName", strings.Repeat("a", 64), "ann's-password", faena.KindUnauthenticated},
		{"Deleted", "gone", "gone's-password", faena.KindUnauthenticated},
		{"WithoutAHash", "gateway-user", "", faena.KindUnauthenticated},
		{"WithAHashThatIsNone", "broken", "no hash", faena.KindInternal},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := l.Check(t.Context(), fmt.Sprint("192.0.2.", i), c.user, c.password)
			if c.kind == "" {
				if err != nil || u.Name != c.user || u.Role != faena.RoleUser {
					t.Errorf("it is %+v, %v", u, err)
				}
				return
			}
			if faena.KindOf(err) != c.kind || err == nil || u.Name != "" {
				t.Fatalf("it is %+v, %v", u, err)
			}
			if c.kind == faena.KindUnauthenticated && err.Error() != "User name or password is wrong." {
				t.Errorf("the error tells more than that it is wrong: %v", err)
			}
			if len(c.password) > 4 && strings.Contains(err.Error(), c.password) {
				t.Errorf("the error tells what was tried: %v", err)
			}
		})
	}
}

// A name that nobody has takes as long as one that somebody has: it waits for its turn, and computes a hash with the
// parameters of those that are made.
func TestLocal_CheckUnknownUser(t *testing.T) {
	t.Parallel()
	const wrong = "a wrong password"
	b := newBook("gateway-user", "")
	b.change(faena.User{Name: "gone", PasswordHash: cheapHash("gone's-password"), Deleted: true})
	l := newLocal(t, b)
	made, err := l.Hash(t.Context(), "12345678")
	if err != nil {
		t.Fatal(err)
	}
	parts, dummy := strings.Split(made, "$"), strings.Split(l.dummy, "$")
	if len(dummy) != len(parts) || strings.Join(dummy[:4], "$") != strings.Join(parts[:4], "$") || len(dummy[4]) != len(parts[4]) || len(dummy[5]) != len(parts[5]) {
		t.Errorf("for nobody %s would be computed, for a user %s", l.dummy, made)
	}
	l.dummy = "no hash" // comparing with it is an error, which tells that it was compared with
	for _, name := range []string{"nobody", "gone", "gateway-user", "", "no user name"} {
		if _, err := l.Check(t.Context(), home, name, wrong); !errors.Is(err, errHash) {
			t.Errorf("no hash is computed for %q: %v", name, err)
		}
	}
	l.turn <- struct{}{}
	for _, name := range []string{"ann", "nobody", "gone", "gateway-user", ""} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := l.Check(ctx, home, name, wrong); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q does not wait for its turn: %v", name, err)
		}
		cancel()
	}
}

// A credential that was verified costs no hash until the hash in the profile is another one or the user has gone.
func TestLocal_CheckRemembers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(b *book)
		old    faena.Kind // of a login with the old password
	}{
		{"NothingChanges", func(*book) {}, ""},
		{"ARoleChanges", func(b *book) {
			b.change(faena.User{Name: "ann", Role: faena.RoleAdmin, PasswordHash: b.users["ann"].PasswordHash})
		}, ""},
		{"ThePasswordChanges", func(b *book) { b.put("ann", cheapHash("another password")) }, faena.KindUnauthenticated},
		{"ThePasswordIsTakenAway", func(b *book) { b.put("ann", "") }, faena.KindUnauthenticated},
		{"TheUserIsDeleted", func(b *book) {
			b.change(faena.User{Name: "ann", PasswordHash: b.users["ann"].PasswordHash, Deleted: true})
		}, faena.KindUnauthenticated},
		{"TheUserIsGone", func(b *book) { b.remove("ann") }, faena.KindUnauthenticated},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBook()
			l := newLocal(t, b)
			login(t, l, home, "ann", "ann's-password", "")
			c.change(b)
			if c.old == "" {
				l.turn <- struct{}{} // a hash would wait
			}
			login(t, l, home, "ann", "ann's-password", c.old)
			if u, _ := b.profile(t.Context(), "ann"); c.old == "" {
				if got, err := l.Check(t.Context(), home, "ann", "ann's-password"); err != nil || got.Role != u.Role {
					t.Errorf("it is %+v, %v, not with the profile as it is now", got, err)
				}
			}
		})
	}
	t.Run("OneUsersForAnother", func(t *testing.T) {
		t.Parallel()
		b := newBook("bob", cheapHash("bob's-password"))
		l := newLocal(t, b)
		login(t, l, home, "ann", "ann's-password", "")
		b.put("bob", b.users["ann"].PasswordHash) // a hash that was copied still is a hash: bob has ann's password now
		login(t, l, home, "bob", "bob's-password", faena.KindUnauthenticated)
		login(t, l, home, "bob", "ann's-password", "")
	})
	t.Run("ForgetsOnRequest", func(t *testing.T) {
		t.Parallel()
		l := newLocal(t, newBook("bob", cheapHash("bob's-password")))
		login(t, l, home, "ann", "ann's-password", "")
		login(t, l, home, "bob", "bob's-password", "")
		l.Forget("ann")
		l.Forget("nobody")
		l.turn <- struct{}{}
		login(t, l, home, "bob", "bob's-password", "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := l.Check(ctx, home, "ann", "ann's-password"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ann is remembered: %v", err)
		}
	})
	t.Run("NoMoreThanItsBound", func(t *testing.T) {
		t.Parallel()
		l := newLocal(t, nil)
		for i := range 2*rememberedUsers + 5 {
			l.remember(fmt.Sprint("user", i), verified{hash: "h"})
			if n := len(l.remembered); n > rememberedUsers {
				t.Fatalf("%d are remembered", n)
			}
		}
		login(t, l, home, "ann", "ann's-password", "")
		l.turn <- struct{}{}
		login(t, l, home, "ann", "ann's-password", "")
	})
	t.Run("NeitherPasswordNorHashInMemory", func(t *testing.T) {
		t.Parallel()
		one, two := newLocal(t, nil), newLocal(t, nil)
		if one.mac("ann", "ann's-password") == two.mac("ann", "ann's-password") {
			t.Error("two processes remember it alike: it could be guessed from a memory dump without the key")
		}
		if one.mac("ann", "x") == one.mac("annx", "") {
			t.Error("name and password run into each other")
		}
	})
}

func TestLocal_CheckStoreAway(t *testing.T) {
	t.Parallel()
	b := newBook()
	l := newLocal(t, b)
	login(t, l, home, "ann", "ann's-password", "")
	b.err = errStore
	for range 2 * addressBurst { // and it is nobody's failure
		login(t, l, home, "ann", "ann's-password", faena.KindUnavailable)
	}
	b.err = nil
	login(t, l, home, "ann", "ann's-password", "")
}

// What an operator reads in the log has neither names nor passwords that were tried: people type one for the other.
func TestLocal_LogsNothingThatWasTried(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := newBook("broken", "no hash")
	l := NewLocal(b.profile, slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	l.dummy = cheapHash("nobody's-password")
	for _, name := range []string{"ann", "nobody", "broken", "a-password-as-name"} {
		for range 10 {
			_, _ = l.Check(t.Context(), home, name, "tried-password")
		}
	}
	for _, secret := range []string{"tried-password", "a-password-as-name", "nobody", b.users["ann"].PasswordHash} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the log has %q: %s", secret, out.String())
		}
	}
}

func TestLocal_CheckTakesTurns(t *testing.T) {
	t.Run("GivesUpAfterAWhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLocal(t, nil)
			l.turn <- struct{}{}
			began := time.Now()
			_, err := l.Check(t.Context(), home, "ann", "ann's-password")
			e, ok := errors.AsType[*faena.Error](err)
			if !ok || e.Kind != faena.KindLimit || !e.Retryable || e.RetryAfter <= 0 {
				t.Errorf("the error is %+v", err)
			}
			if waited := time.Since(began); waited != waitForHash {
				t.Errorf("it waited %v", waited)
			}
			if _, err := l.Hash(t.Context(), "12345678"); !faena.IsKind(err, faena.KindLimit) {
				t.Errorf("Hash: the error is %v", err)
			}
			<-l.turn
			login(t, l, home, "ann", "ann's-password", "")
		})
	})
	// Of right logins at once, such as after a restart, the first computes the hash for all.
	t.Run("OneHashForMany", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const broken = "a hash that would be an error"
			l := newLocal(t, newBook("bob", broken))
			l.turn <- struct{}{}
			errs := make(chan error)
			for range 100 {
				go func() {
					_, err := l.Check(t.Context(), home, "bob", "bob's-password")
					errs <- err
				}()
			}
			synctest.Wait()
			l.remember("bob", verified{l.mac("bob", "bob's-password"), broken})
			<-l.turn
			for range 100 {
				if err := <-errs; err != nil {
					t.Fatal(err)
				}
			}
		})
	})
	// Tries at once are no way around the throttle: each one that is computed counts before the next is.
	t.Run("ManyTriesAtOnce", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLocal(t, nil)
			l.turn <- struct{}{}
			kinds := make(chan faena.Kind)
			for i := range 100 {
				go func() {
					_, err := l.Check(t.Context(), home, "ann", fmt.Sprint("guess", i))
					kinds <- faena.KindOf(err)
				}()
			}
			synctest.Wait()
			<-l.turn
			count := map[faena.Kind]int{}
			for range 100 {
				count[<-kinds]++
			}
			if count[faena.KindUnauthenticated] != pairBurst || count[faena.KindLimit] != 100-pairBurst {
				t.Errorf("of 100 guesses at once these were answered: %v", count)
			}
		})
	})
}
