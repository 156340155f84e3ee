package faenatest

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

var userClauses = []clause{
	{"PutMakesAndReplaces", func(t *testing.T, s faena.Documents) {
		if created := must(s.PutUser(t.Context(), user("jorgeSD")))(t); !created {
			t.Error("the user is not new")
		}
		same(t, must(s.User(t.Context(), "jorgeSD"))(t), user("jorgeSD"))
		u := user("jorgeSD")
		u.Role, u.Groups, u.PasswordHash = faena.RoleAdmin, map[string]int{"gpu": 3}, "$argon2id$other"
		u.CreatedAt, u.UpdatedAt = epoch.Add(time.Hour), epoch.Add(time.Hour)
		if created := must(s.PutUser(t.Context(), u))(t); created {
			t.Error("the user is new again")
		}
		u.CreatedAt = epoch // of the first
		same(t, must(s.User(t.Context(), "jorgeSD"))(t), u)
	}},
	{"PutWithoutAPasswordKeepsIt", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("ann")))(t)
		u := user("ann")
		u.Role, u.Groups, u.PasswordHash, u.UpdatedAt = faena.RoleAdmin, map[string]int{"gpu": 3}, "", epoch.Add(time.Hour)
		must(s.PutUser(t.Context(), u))(t)
		u.PasswordHash = user("ann").PasswordHash
		same(t, must(s.User(t.Context(), "ann"))(t), u)
		bob := user("bob") // who has none yet
		bob.PasswordHash = ""
		must(s.PutUser(t.Context(), bob))(t)
		must(s.PutUser(t.Context(), bob))(t)
		same(t, must(s.User(t.Context(), "bob"))(t), bob)
	}},
	{"SetPasswordChangesNothingElse", func(t *testing.T, s faena.Documents) {
		u := user("jorgeSD")
		u.Role, u.Groups, u.PasswordHash = faena.RoleAdmin, map[string]int{"default": 2, "gpu": 3}, ""
		must(s.PutUser(t.Context(), u))(t)
		must(s.PutUser(t.Context(), user("bob")))(t)
		for _, hash := range []string{"$argon2id$first", "$argon2id$second"} {
			ok(t, s.SetPassword(t.Context(), "jorgeSD", hash))
			got := must(s.User(t.Context(), "jorgeSD"))(t)
			if !got.UpdatedAt.After(epoch) {
				t.Errorf("it was updated at %v", got.UpdatedAt)
			}
			u.PasswordHash, u.UpdatedAt = hash, got.UpdatedAt
			same(t, got, u)
		}
		same(t, must(s.User(t.Context(), "bob"))(t), user("bob"))
		uses := must(s.GroupUses(t.Context(), "gpu", 10))(t)
		same(t, uses, []faena.GroupUse{{User: "jorgeSD"}})
	}},
	{"NobodyGetsAPasswordWhoIsNotThere", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("jorgeSD")))(t)
		must(s.PutUser(t.Context(), user("gone")))(t)
		ok(t, s.EraseUser(t.Context(), "gone"))
		for _, name := range []string{"jorge", "jorgesd", "gone", "Gone", ""} {
			kind(t, s.SetPassword(t.Context(), name, "$argon2id$new"), faena.KindNotFound)
		}
		_, err := s.User(t.Context(), "gone")
		kind(t, err, faena.KindNotFound)
		same(t, must(s.User(t.Context(), "jorgeSD"))(t), user("jorgeSD"))
	}},
	{"AbsentIsNotFound", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("jorgeSD")))(t)
		for _, name := range []string{"jorge", "jorgeSDx", "jorgesd", "JORGESD", ""} {
			_, err := s.User(t.Context(), name)
			kind(t, err, faena.KindNotFound)
			kind(t, s.EraseUser(t.Context(), name), faena.KindNotFound)
		}
	}},
	{"ANameThatDiffersOnlyInCaseIsAConflict", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("jorgeSD")))(t)
		for _, name := range []string{"jorgesd", "JORGESD", "JorgeSD"} {
			_, err := s.PutUser(t.Context(), user(name))
			kind(t, err, faena.KindConflict)
		}
		if list := must(s.Users(t.Context(), "", 10))(t); len(list) != 1 {
			t.Errorf("there are %d users", len(list))
		}
	}},
	{"OneOfManySpellingsWins", func(t *testing.T, s faena.Documents) {
		var won atomic.Int64
		names := []string{"ann", "Ann", "aNn", "anN", "ANn", "AnN", "aNN", "ANN"}
		together(len(names), func(i int) {
			created, err := s.PutUser(t.Context(), user(names[i]))
			if err == nil && created {
				won.Add(1)
				return
			}
			kind(t, err, faena.KindConflict)
		})
		if list := must(s.Users(t.Context(), "", 10))(t); won.Load() != 1 || len(list) != 1 {
			t.Errorf("%d won, there are %d users", won.Load(), len(list))
		}
	}},
	{"ListsAreInOrderOfName", func(t *testing.T, s faena.Documents) {
		names := []string{"Zed", "ann", "ann-b", "ann_b", "anna", "bob", "z"} // as bytes
		for _, name := range []string{"bob", "z", "ann_b", "Zed", "anna", "ann", "ann-b", "gone"} {
			must(s.PutUser(t.Context(), user(name)))(t)
		}
		ok(t, s.EraseUser(t.Context(), "gone"))
		if got := userNames(must(s.Users(t.Context(), "", 100))(t)); !slices.Equal(got, names) {
			t.Errorf("the list is %v, want %v", got, names)
		}
		if got := userNames(must(s.Users(t.Context(), "ann", 3))(t)); !slices.Equal(got, names[2:5]) {
			t.Errorf("the page is %v, want %v", got, names[2:5])
		}
		if got := must(s.Users(t.Context(), "z", 3))(t); len(got) != 0 {
			t.Errorf("after the last there are %v", got)
		}
	}},
	{"WhatIsReturnedIsACopy", func(t *testing.T, s faena.Documents) {
		u := user("ann")
		must(s.PutUser(t.Context(), u))(t)
		u.Groups[faena.DefaultGroup] = 1
		got := must(s.User(t.Context(), "ann"))(t)
		got.Groups[faena.DefaultGroup] = 2
		same(t, must(s.User(t.Context(), "ann"))(t), user("ann"))
	}},
}

var erasureClauses = []clause{
	{"NothingIsLeft", func(t *testing.T, s faena.Documents) {
		for _, name := range []string{"ann", "anna", "ann-b"} {
			must(s.PutUser(t.Context(), user(name)))(t)
			add(t, s, revision(name, "resize"))
			add(t, s, revision(name, "resize"))
			ok(t, s.Insert(t.Context(), []faena.Record{record(name, 1), failed(name, 2, "thumb", faena.ReasonTimeout)}))
		}
		ok(t, s.EraseUser(t.Context(), "ann"))
		nothingOf(t, s, "ann")
		for _, name := range []string{"anna", "ann-b"} {
			must(s.User(t.Context(), name))(t)
			must(s.Revision(t.Context(), name, "resize", 1))(t)
			must(s.Activation(t.Context(), name, id(1)))(t)
			if u := must(s.UserUsage(t.Context(), name))(t); u.Completed != 1 || u.Failed != 1 {
				t.Errorf("the usage of %s is %+v", name, u)
			}
		}
	}},
	{"TheNameIsNeverGivenAgain", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("ann")))(t)
		ok(t, s.EraseUser(t.Context(), "ann"))
		for _, name := range []string{"ann", "Ann"} {
			_, err := s.PutUser(t.Context(), user(name))
			kind(t, err, faena.KindConflict)
		}
		_, err := s.User(t.Context(), "ann")
		kind(t, err, faena.KindNotFound)
	}},
	{"ErasedTwiceIsNotFound", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("ann")))(t)
		ok(t, s.EraseUser(t.Context(), "ann"))
		kind(t, s.EraseUser(t.Context(), "ann"), faena.KindNotFound)
	}},
	{"NothingIsAddedAfterwards", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("ann")))(t)
		ok(t, s.EraseUser(t.Context(), "ann"))
		ok(t, s.Insert(t.Context(), []faena.Record{record("ann", 1), record("bob", 2)})) // ended while she was erased
		_, _, err := s.AddRevision(t.Context(), revision("ann", "resize"), anyHead)
		kind(t, err, faena.KindNotFound)
		nothingOf(t, s, "ann")
		must(s.Activation(t.Context(), "bob", id(2)))(t)
	}},
	{"ALongHistoryGoesWhileOthersAreServed", func(t *testing.T, s faena.Documents) {
		must(s.PutUser(t.Context(), user("ann")))(t)
		for batch := range 10 {
			var records []faena.Record
			for i := range 256 {
				records = append(records, record("ann", 256*batch+i))
			}
			ok(t, s.Insert(t.Context(), records))
		}
		erased := make(chan error, 1)
		go func() { erased <- s.EraseUser(t.Context(), "ann") }()
		for n := 0; ; n++ {
			select {
			case err := <-erased:
				ok(t, err)
				nothingOf(t, s, "ann")
				return
			default:
				ok(t, s.Insert(t.Context(), []faena.Record{record("bob", n), record("ann", 100_000+n)}))
			}
		}
	}},
}

// nothingOf checks that the store has nothing of a user that can be read.
func nothingOf(t testing.TB, s faena.Documents, name string) {
	t.Helper()
	_, err := s.User(t.Context(), name)
	kind(t, err, faena.KindNotFound)
	_, err = s.Function(t.Context(), name, "resize")
	kind(t, err, faena.KindNotFound)
	_, err = s.Revision(t.Context(), name, "resize", 1)
	kind(t, err, faena.KindNotFound)
	_, err = s.Activation(t.Context(), name, id(1))
	kind(t, err, faena.KindNotFound)
	lists := len(must(s.Functions(t.Context(), name, "", 10))(t)) + len(must(s.Revisions(t.Context(), name, "resize", 0, 10))(t))
	for _, q := range []faena.HistoryQuery{{}, {Function: "resize"}, {State: faena.StateSucceeded}, {Function: "resize", State: faena.StateSucceeded}} {
		q.User, q.Limit = name, 10
		lists += len(must(s.Activations(t.Context(), q))(t))
	}
	if lists != 0 {
		t.Errorf("the lists of user %s still have %d entries", name, lists)
	}
	if u := must(s.UserUsage(t.Context(), name))(t); u.Completed+u.Failed+u.RunUS != 0 {
		t.Errorf("the usage of user %s is %+v", name, u)
	}
}

func userNames(list []faena.User) (names []string) {
	for _, u := range list {
		names = append(names, u.Name)
	}
	return names
}
