package faenatest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// parallelClauses are about several APIs that change the same documents at once. Numbers, names and ETags of which one
// of many wins are with functions and users.
var parallelClauses = []clause{
	{"OneOfManyKindsOfChangeWithTheSameETagWins", func(t *testing.T, s faena.Documents) {
		for round := range 5 {
			name := fmt.Sprintf("f%d", round)
			add(t, s, revision("ann", name))
			c := faena.Condition{IfMatch: add(t, s, revision("ann", name)).ETag()}
			changes := []func() error{
				func() error { _, _, err := s.AddRevision(t.Context(), revision("ann", name), c); return err },
				func() error { _, err := s.SetCurrent(t.Context(), "ann", name, 1, c); return err },
				func() error { return s.DeleteFunction(t.Context(), "ann", name, c) },
			}
			var won atomic.Int64
			together(6, func(i int) {
				switch err := changes[i%3](); {
				case err == nil:
					won.Add(1)
				case !faena.IsKind(err, faena.KindPrecondition) && !faena.IsKind(err, faena.KindNotFound): // it is changed, or gone
					t.Error(err)
				}
			})
			if won.Load() != 1 {
				t.Errorf("%d changes with one ETag were made", won.Load())
			}
		}
	}},
	{"AHeadNamesARevisionThatIsThere", func(t *testing.T, s faena.Documents) {
		add(t, s, revision("ann", "resize"))
		var done atomic.Bool
		together(3, func(i int) {
			if i == 0 {
				defer done.Store(true)
				for range 30 {
					if _, _, err := s.AddRevision(t.Context(), revision("ann", "resize"), anyHead); err != nil {
						t.Error(err)
					}
				}
				return
			}
			for !done.Load() {
				f, err := s.Function(t.Context(), "ann", "resize")
				if err != nil {
					t.Error(err)
				}
				if _, err := s.Revision(t.Context(), "ann", "resize", f.Current); err != nil {
					t.Errorf("the head names revision %d: %v", f.Current, err)
				}
			}
		})
	}},
	{"DeletedAndMadeAgainItHasItsRevisions", func(t *testing.T, s faena.Documents) {
		for range 3 {
			together(4, func(i int) {
				for range 5 {
					if i%2 == 0 {
						if _, _, err := s.AddRevision(t.Context(), revision("ann", "resize"), anyHead); err != nil {
							t.Error(err)
						}
						continue
					}
					if err := s.DeleteFunction(t.Context(), "ann", "resize", anyHead); err != nil && !faena.IsKind(err, faena.KindNotFound) {
						t.Error(err)
					}
				}
			})
			f := add(t, s, revision("ann", "resize"))
			list := must(s.Revisions(t.Context(), "ann", "resize", 0, 100))(t)
			if len(list) != f.Latest {
				t.Errorf("of %d revisions there are %d", f.Latest, len(list))
			}
			for _, r := range list {
				must(s.Revision(t.Context(), "ann", "resize", r.Number))(t)
			}
			ok(t, s.DeleteFunction(t.Context(), "ann", "resize", anyHead))
			if list := must(s.Revisions(t.Context(), "ann", "resize", 0, 100))(t); len(list) != 0 {
				t.Errorf("%d revisions are left of a function that was deleted", len(list))
			}
		}
	}},
	{"AProfileIsReplacedByAll", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("ann")))(t)
		together(8, func(i int) {
			u := user("ann")
			u.Groups[faena.DefaultGroup], u.CreatedAt = 1+i, epoch.Add(time.Hour)
			if created, err := s.PutUser(t.Context(), u); err != nil || created {
				t.Errorf("it is new: %v, %v", created, err)
			}
		})
		if u := must(s.User(t.Context(), "ann"))(t); u.Groups[faena.DefaultGroup] == 20 || !u.CreatedAt.Equal(epoch) {
			t.Errorf("the profile is %+v", u)
		}
	}},
	{"APasswordAndAProfileAreChangedAtOnce", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("ann")))(t)
		const each = 25
		together(2, func(i int) {
			for n := range each {
				if i == 0 {
					if err := s.SetPassword(t.Context(), "ann", fmt.Sprintf("$argon2id$%d", n)); err != nil {
						t.Error(err)
					}
					if u, err := s.User(t.Context(), "ann"); err != nil || u.PasswordHash != fmt.Sprintf("$argon2id$%d", n) {
						t.Errorf("password %d is %q, %v", n, u.PasswordHash, err)
					}
					continue
				}
				u := user("ann")
				u.Role, u.Groups, u.PasswordHash = faena.RoleAdmin, map[string]int{"gpu": 1 + n}, ""
				if _, err := s.PutUser(t.Context(), u); err != nil {
					t.Error(err)
				}
				if u, err := s.User(t.Context(), "ann"); err != nil || u.Role != faena.RoleAdmin || u.Groups["gpu"] != 1+n || len(u.Groups) != 1 {
					t.Errorf("profile %d is %+v, %v", n, u, err)
				}
			}
		})
		want := user("ann")
		want.Role, want.Groups, want.PasswordHash = faena.RoleAdmin, map[string]int{"gpu": each}, fmt.Sprintf("$argon2id$%d", each-1)
		got := must(s.User(t.Context(), "ann"))(t)
		want.UpdatedAt = got.UpdatedAt
		same(t, got, want)
	}},
	{"AUserWhoIsErasedMeanwhileGetsNoPassword", func(t *testing.T, s faena.Documents) {
		for round := range 5 {
			name := fmt.Sprintf("ann-%d", round)
			must(s.PutUser(t.Context(), user(name)))(t)
			var erased atomic.Bool
			together(3, func(i int) {
				if i == 0 {
					defer erased.Store(true)
					if err := s.EraseUser(t.Context(), name); err != nil {
						t.Error(err)
					}
					return
				}
				for n := 0; !erased.Load(); n++ {
					if err := s.SetPassword(t.Context(), name, fmt.Sprintf("$argon2id$%d", n)); err != nil {
						kind(t, err, faena.KindNotFound)
						return
					}
				}
			})
			nothingOf(t, s, name)
			_, err := s.PutUser(t.Context(), user(name))
			kind(t, err, faena.KindConflict)
		}
	}},
	{"AUserIsErasedByTwo", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("ann")))(t)
		add(t, s, revision("ann", "resize"))
		ok(t, s.Insert(t.Context(), mixed("ann", 60)))
		together(3, func(int) {
			if err := s.EraseUser(t.Context(), "ann"); err != nil && !faena.IsKind(err, faena.KindNotFound) {
				t.Error(err)
			}
		})
		nothingOf(t, s, "ann")
	}},
	{"AGroupThatConnectsKeepsWhatAnAdminChanges", func(t *testing.T, s faena.Documents) {
		for round := range 8 {
			name := fmt.Sprintf("g%d", round)
			must(s.PutGroup(t.Context(), group(name)))(t)
			together(3, func(i int) {
				if i > 0 {
					if err := s.ConnectGroup(t.Context(), name, epoch.Add(time.Duration(i)*time.Minute)); err != nil {
						t.Error(err)
					}
					return
				}
				g := group(name)
				g.Nkey, g.CreatedAt = "UAOTHER", epoch.Add(time.Hour)
				if created, err := s.PutGroup(t.Context(), g); err != nil || created {
					t.Errorf("it is new: %v, %v", created, err)
				}
			})
			if g := must(s.Group(t.Context(), name))(t); g.Nkey != "UAOTHER" || !g.CreatedAt.Equal(epoch) {
				t.Errorf("the group is %+v", g)
			}
		}
	}},
}

// schemaClauses are about documents of a version that this one does not know: they are not taken for its own.
var schemaClauses = []clause{
	{"FunctionsUsersAndGroups", func(t *testing.T, s faena.Documents) {
		rev, u, g := revision("bob", "resize"), user("ann"), group("gpu")
		for _, schema := range []*int{&rev.Schema, &u.Schema, &g.Schema} {
			*schema = faena.SchemaVersion + 1
		}
		must(s.PutUser(t.Context(), u))(t)
		add(t, s, rev)
		must(s.PutGroup(t.Context(), g))(t)
		_, err := s.User(t.Context(), "ann")
		unknown(t, err)
		unknown(t, s.SetPassword(t.Context(), "ann", "$argon2id$new"))
		_, err = s.Revision(t.Context(), "bob", "resize", 1)
		unknown(t, err)
		_, err = s.Group(t.Context(), "gpu")
		unknown(t, err)
		if f := must(s.Function(t.Context(), "bob", "resize"))(t); f.Schema != faena.SchemaVersion {
			t.Errorf("the head, which this version has made, says %d", f.Schema)
		}
	}},
	{"Records", func(t *testing.T, s faena.Documents) {
		newer := record("ann", 1)
		newer.Schema++
		ok(t, s.Insert(t.Context(), []faena.Record{newer, record("ann", 2)}))
		_, err := s.Activation(t.Context(), "ann", id(1))
		unknown(t, err)
		same(t, must(s.Activation(t.Context(), "ann", id(2)))(t), record("ann", 2))
		same(t, must(s.Recorded(t.Context(), "ann", []string{id(1), id(2)}))(t), []string{id(1), id(2)})
	}},
}

func unknown(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, faena.ErrSchema) {
		t.Errorf("the error is %v, want one of an unknown schema", err)
	}
}
