package control

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"faena.dev/faena/internal/faena"
)

// once is a hook that does something before the first call.
func once(fn func()) func() error {
	var called atomic.Bool
	return func() error {
		if !called.Swap(true) {
			fn()
		}
		return nil
	}
}

// A change of the profile at one API and one of the password at another, each in the middle of the other, both hold.
func TestControl_PasswordAndProfile(t *testing.T) {
	t.Parallel()
	r := start(t)
	other := r.another("api-2")
	put := func(r *rig, role faena.Role, limit int, password string) {
		t.Helper()
		_, err := r.PutUser(t.Context(), faena.User{Name: "ann", Role: role, Groups: map[string]int{group: limit}}, password)
		noError(t, err)
	}
	is := func(t *testing.T, role faena.Role, limit int, password string) {
		t.Helper()
		u, err := r.User(t.Context(), "ann")
		noError(t, err)
		if u.Role != role || u.Groups[group] != limit || u.PasswordHash != "hash of "+password {
			t.Errorf("the user is %+v, want %s with a limit of %d and the password %s", u, role, limit, password)
		}
	}
	_, err := r.PutUser(t.Context(), faena.User{Name: "root", Role: faena.RoleAdmin}, "")
	noError(t, err)
	put(r, faena.RoleAdmin, 20, "first")

	t.Run("DemotedWhileAPasswordIsHashed", func(t *testing.T) {
		r.passwords.on("Hash", once(func() { put(other, faena.RoleUser, 3, "") }))
		noError(t, r.SetPassword(t.Context(), "ann", "second"))
		is(t, faena.RoleUser, 3, "second")
	})
	t.Run("APasswordIsSetBeforeAProfileIsWritten", func(t *testing.T) {
		other.documents.on("PutUser", once(func() { noError(t, r.SetPassword(t.Context(), "ann", "third")) }))
		put(other, faena.RoleAdmin, 5, "")
		is(t, faena.RoleAdmin, 5, "third")
	})
	t.Run("LimitedWhileAnAdminIsRecovered", func(t *testing.T) {
		r.passwords.on("Hash", once(func() { put(other, faena.RoleUser, 7, "") }))
		_, err := r.CreateAdmin(t.Context(), "ann", "fourth")
		noError(t, err)
		is(t, faena.RoleAdmin, 7, "fourth")
	})
	t.Run("Together", func(t *testing.T) {
		const each = 20
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := range each {
				if err := r.SetPassword(t.Context(), "ann", fmt.Sprintf("p%d", n)); err != nil {
					t.Error(err)
				}
			}
		})
		for n := range each {
			put(other, faena.RoleUser, 1+n, "")
		}
		wg.Wait()
		is(t, faena.RoleUser, each, fmt.Sprintf("p%d", each-1))
	})
	t.Run("DeletedWhileAPasswordIsHashed", func(t *testing.T) {
		r.passwords.on("Hash", once(func() { noError(t, other.DeleteUser(t.Context(), "ann")) }))
		isKind(t, r.SetPassword(t.Context(), "ann", "fifth"), faena.KindNotFound)
		_, err := r.User(t.Context(), "ann")
		isKind(t, err, faena.KindNotFound)
	})
}

// Two APIs that take the role from the last two admins, each having seen the other one, leave an admin.
func TestControl_LastAdmin_TwoAPIs(t *testing.T) {
	t.Parallel()
	r := start(t)
	other := r.another("api-2")
	admin := func(name string) {
		t.Helper()
		_, err := r.PutUser(t.Context(), faena.User{Name: name, Role: faena.RoleAdmin, Groups: map[string]int{group: 9}}, "old")
		noError(t, err)
	}
	demote := func(r *rig, name string) error {
		_, err := r.PutUser(t.Context(), faena.User{Name: name}, "")
		return err
	}
	replace := func(r *rig, name string) error {
		_, err := r.PutUser(t.Context(), faena.User{Name: name}, "new")
		return err
	}
	remove := func(r *rig, name string) error { return r.DeleteUser(t.Context(), name) }
	stays := func(t *testing.T, name string) {
		t.Helper()
		u, err := r.User(t.Context(), name)
		noError(t, err)
		if u.Role != faena.RoleAdmin || u.Groups[group] != 9 || u.PasswordHash != "hash of old" {
			t.Errorf("user %s is %+v", name, u)
		}
	}
	left := "" // of the case before
	for i, c := range []struct {
		name          string
		first, second func(r *rig, name string) error
	}{
		{"BothDemoted", demote, demote},
		{"DemotedWithAPassword", replace, demote},
		{"DeletedAndDemoted", remove, demote},
		{"DemotedAndDeleted", demote, remove},
		{"BothDeleted", remove, remove},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, zoe := fmt.Sprintf("root-%d", i), fmt.Sprintf("zoe-%d", i)
			admin(root)
			admin(zoe)
			if left != "" {
				noError(t, remove(r, left))
			}
			left = root
			r.documents.on("PutUser", once(func() { noError(t, c.second(other, zoe)) })) // root was looked at, and is written next
			if e := isKind(t, c.first(r, root), faena.KindConflict); e.Reason != "last_admin" {
				t.Errorf("the error is %+v", e)
			}
			stays(t, root)
		})
	}
	t.Run("Together", func(t *testing.T) {
		for range 5 {
			admin(left)
			admin("zoe")
			var wg, looked sync.WaitGroup
			looked.Add(2)
			var refused atomic.Int64
			for r, name := range map[*rig]string{r: left, other: "zoe"} {
				r.documents.on("PutUser", once(func() { looked.Done(); looked.Wait() }))
				wg.Go(func() {
					if err := demote(r, name); err != nil {
						refused.Add(1)
						isKind(t, err, faena.KindConflict)
						stays(t, name)
					}
				})
			}
			wg.Wait()
			if refused.Load() == 0 {
				t.Error("nobody is an admin")
			}
		}
	})
}

// Where nobody can tell whether an admin is left, the one who was demoted is one again.
func TestControl_LastAdmin_CannotLook(t *testing.T) {
	t.Parallel()
	r := start(t)
	for _, name := range []string{"root", "zoe"} {
		_, err := r.PutUser(t.Context(), faena.User{Name: name, Role: faena.RoleAdmin}, "")
		noError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.documents.on("Users", func() error {
		if u, err := r.documents.User(t.Context(), "root"); err != nil || u.Role != faena.RoleAdmin { // it is written
			cancel() // who asked is gone
			return errAway
		}
		return nil
	})
	_, err := r.PutUser(ctx, faena.User{Name: "root"}, "")
	isKind(t, err, faena.KindUnavailable)
	if ctx.Err() == nil {
		t.Error("nobody looked again")
	}
	u, err := r.User(t.Context(), "root")
	if err != nil || u.Role != faena.RoleAdmin {
		t.Errorf("the user is %+v, %v", u, err)
	}
}
