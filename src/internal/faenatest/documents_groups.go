package faenatest

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

func group(name string) faena.Group {
	return faena.Group{Schema: faena.SchemaVersion, Name: name, Nkey: "UANKEYOF" + name, Recipient: "age1" + name, CreatedAt: epoch, UpdatedAt: epoch}
}

var groupClauses = []clause{
	{"PutMakesAndReplaces", func(t *testing.T, s faena.Documents) {
		if created := must(s.PutGroup(t.Context(), group("gpu")))(t); !created {
			t.Error("the group is not new")
		}
		same(t, must(s.Group(t.Context(), "gpu"))(t), group("gpu"))
		connected := epoch.Add(time.Minute)
		g := group("gpu")
		g.Nkey, g.Recipient, g.ConnectedAt = "UAOTHER", "", &connected
		g.CreatedAt, g.UpdatedAt = epoch.Add(time.Hour), epoch.Add(time.Hour)
		if created := must(s.PutGroup(t.Context(), g))(t); created {
			t.Error("the group is new again")
		}
		g.CreatedAt = epoch // of the first
		same(t, must(s.Group(t.Context(), "gpu"))(t), g)
		must(s.PutGroup(t.Context(), group("gpu")))(t)
		same(t, must(s.Group(t.Context(), "gpu"))(t), group("gpu")) // pending again
	}},
	{"AbsentIsNotFound", func(t *testing.T, s faena.Documents) {
		must(s.PutGroup(t.Context(), group("gpu")))(t)
		for _, name := range []string{"gp", "gpus", "GPU", ""} {
			_, err := s.Group(t.Context(), name)
			kind(t, err, faena.KindNotFound)
			kind(t, s.DeleteGroup(t.Context(), name), faena.KindNotFound)
			kind(t, s.ConnectGroup(t.Context(), name, epoch), faena.KindNotFound)
		}
		same(t, must(s.Group(t.Context(), "gpu"))(t), group("gpu"))
	}},
	{"AllInOrderOfName", func(t *testing.T, s faena.Documents) {
		if list := must(s.Groups(t.Context()))(t); len(list) != 0 {
			t.Errorf("at first there are %v", groupNames(list))
		}
		names := []string{"a", "a-1", "a1", "b", "default"} // as bytes
		for i := range faena.MaxGroups - len(names) {
			names = append(names, fmt.Sprintf("g%02d", i))
		}
		for _, name := range slices.Backward(names) {
			must(s.PutGroup(t.Context(), group(name)))(t)
		}
		list := must(s.Groups(t.Context()))(t)
		if got := groupNames(list); !slices.Equal(got, names) {
			t.Fatalf("the list is %v, want %v", got, names)
		}
		same(t, list[1], group("a-1"))
	}},
	{"OneOfManyPutsMakesIt", func(t *testing.T, s faena.Documents) {
		var made atomic.Int64
		together(8, func(int) {
			created, err := s.PutGroup(t.Context(), group("gpu"))
			if err != nil {
				t.Error(err)
			}
			if created {
				made.Add(1)
			}
		})
		if list := must(s.Groups(t.Context()))(t); made.Load() != 1 || len(list) != 1 {
			t.Errorf("it was made %d times, there are %v", made.Load(), groupNames(list))
		}
	}},
	{"DeletedAndMadeAgain", func(t *testing.T, s faena.Documents) {
		must(s.PutGroup(t.Context(), group("gpu")))(t)
		must(s.PutGroup(t.Context(), group("gpu-2")))(t)
		ok(t, s.DeleteGroup(t.Context(), "gpu"))
		_, err := s.Group(t.Context(), "gpu")
		kind(t, err, faena.KindNotFound)
		kind(t, s.DeleteGroup(t.Context(), "gpu"), faena.KindNotFound)
		same(t, groupNames(must(s.Groups(t.Context()))(t)), []string{"gpu-2"})
		g := group("gpu")
		g.CreatedAt = epoch.Add(time.Hour)
		if created := must(s.PutGroup(t.Context(), g))(t); !created {
			t.Error("the group is not new")
		}
		same(t, must(s.Group(t.Context(), "gpu"))(t), g)
	}},
	{"ConnectedOnce", func(t *testing.T, s faena.Documents) {
		must(s.PutGroup(t.Context(), group("gpu")))(t)
		must(s.PutGroup(t.Context(), group("cpu")))(t)
		first := epoch.Add(time.Minute)
		for i := range 3 {
			ok(t, s.ConnectGroup(t.Context(), "gpu", first.Add(time.Duration(i)*time.Hour)))
		}
		got := must(s.Group(t.Context(), "gpu"))(t)
		if got.ConnectedAt == nil || !got.ConnectedAt.Equal(first) {
			t.Errorf("it was connected at %v, want %v", got.ConnectedAt, first)
		}
		if got.Nkey != group("gpu").Nkey || !got.CreatedAt.Equal(epoch) {
			t.Errorf("the group is %+v", got)
		}
		if got := must(s.Group(t.Context(), "cpu"))(t); !got.Pending() {
			t.Errorf("another group was connected at %v", got.ConnectedAt)
		}
	}},
	{"WhatIsReturnedIsACopy", func(t *testing.T, s faena.Documents) {
		connected := epoch
		g := group("gpu")
		g.ConnectedAt = &connected
		must(s.PutGroup(t.Context(), g))(t)
		connected = epoch.Add(time.Hour) // the caller's own
		*must(s.Group(t.Context(), "gpu"))(t).ConnectedAt = epoch.Add(2 * time.Hour)
		*must(s.Groups(t.Context()))(t)[0].ConnectedAt = epoch.Add(3 * time.Hour)
		if got := must(s.Group(t.Context(), "gpu"))(t); !got.ConnectedAt.Equal(epoch) {
			t.Errorf("it was connected at %v, want %v", got.ConnectedAt, epoch)
		}
	}},
	{"UsesAreUsersThenFunctions", func(t *testing.T, s faena.Documents) {
		usesAre(t, s, "gpu", 10)
		must(s.PutGroup(t.Context(), group("gpu")))(t)
		usesAre(t, s, "gpu", 10)
		for _, name := range []string{"zed", "ann", "gone", "bob", "Cid"} {
			u := user(name)
			if name != "bob" {
				u.Groups["gpu"] = 1
			}
			must(s.PutUser(t.Context(), u))(t)
		}
		ok(t, s.EraseUser(t.Context(), "gone"))
		for _, f := range []string{"zed/a", "ann/resize", "ann/blur", "bob/render"} {
			add(t, s, revisionIn("gpu", f))
		}
		add(t, s, revisionIn("default", "ann/resize-2"))
		add(t, s, revisionIn("gpu-2", "bob/other"))
		usesAre(t, s, "gpu", 10, "user Cid", "user ann", "user zed",
			"function ann/blur", "function ann/resize", "function bob/render", "function zed/a")
		usesAre(t, s, "gpu", 2, "user Cid", "user ann")
		usesAre(t, s, "gpu", 5, "user Cid", "user ann", "user zed", "function ann/blur", "function ann/resize")
		usesAre(t, s, "gpu-2", 10, "function bob/other")
		usesAre(t, s, "gp", 10)
	}},
	{"OnlyTheCurrentRevisionIsAUse", func(t *testing.T, s faena.Documents) {
		add(t, s, revisionIn("gpu", "ann/resize"))
		add(t, s, revisionIn("default", "ann/resize"))
		usesAre(t, s, "gpu", 10)
		must(s.SetCurrent(t.Context(), "ann", "resize", 1, anyHead))(t)
		usesAre(t, s, "gpu", 10, "function ann/resize")
		ok(t, s.DeleteFunction(t.Context(), "ann", "resize", anyHead))
		usesAre(t, s, "gpu", 10)
	}},
	{"AUserOrFunctionThatGoesIsNoUse", func(t *testing.T, s faena.Documents) {
		u := user("ann")
		u.Groups["gpu"] = 1
		must(s.PutUser(t.Context(), u))(t)
		add(t, s, revisionIn("gpu", "ann/resize"))
		usesAre(t, s, "gpu", 10, "user ann", "function ann/resize")
		must(s.PutUser(t.Context(), user("ann")))(t)
		usesAre(t, s, "gpu", 10, "function ann/resize")
		ok(t, s.EraseUser(t.Context(), "ann"))
		usesAre(t, s, "gpu", 10)
	}},
}

// revisionIn is a revision of "<user>/<function>" for the workers of a group.
func revisionIn(group, function string) faena.Revision {
	owner, name, _ := strings.Cut(function, "/")
	rev := revision(owner, name)
	rev.Spec.Group = group
	return rev
}

func usesAre(t testing.TB, s faena.Documents, group string, limit int, want ...string) {
	t.Helper()
	var got []string
	for _, u := range must(s.GroupUses(t.Context(), group, limit))(t) {
		got = append(got, u.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("group %s is used by %q, want %q", group, got, want)
	}
}

func groupNames(list []faena.Group) (names []string) {
	for _, g := range list {
		names = append(names, g.Name)
	}
	return names
}
