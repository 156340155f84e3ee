package faenatest

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"faena.dev/faena/internal/faena"
)

var anyHead faena.Condition

// add stores a revision and returns the function's head.
func add(t testing.TB, s faena.Documents, rev faena.Revision) faena.Function {
	t.Helper()
	f, _, err := s.AddRevision(t.Context(), rev, anyHead)
	ok(t, err)
	return f
}

var functionClauses = []clause{
	{"TheFirstRevisionMakesTheFunction", func(t *testing.T, s faena.Documents) {
		f, created, err := s.AddRevision(t.Context(), revision("ann", "resize"), anyHead)
		ok(t, err)
		if !created || f.User != "ann" || f.Name != "resize" || f.Current != 1 || f.Latest != 1 || f.Schema != faena.SchemaVersion {
			t.Errorf("created is %v, the head %+v", created, f)
		}
		if f.CreatedAt.IsZero() || f.UpdatedAt.Before(f.CreatedAt) {
			t.Errorf("made at %v, changed at %v", f.CreatedAt, f.UpdatedAt)
		}
		same(t, must(s.Function(t.Context(), "ann", "resize"))(t), f)
		want := revision("ann", "resize")
		want.Number = 1
		same(t, must(s.Revision(t.Context(), "ann", "resize", 1))(t), want)
	}},
	{"TheNextRevisionBecomesCurrent", func(t *testing.T, s faena.Documents) {
		first := add(t, s, revision("ann", "resize"))
		next := revision("ann", "resize")
		next.Digest = "sha256:60"
		f, created, err := s.AddRevision(t.Context(), next, anyHead)
		ok(t, err)
		if created || f.Current != 2 || f.Latest != 2 {
			t.Errorf("created is %v, the head %+v", created, f)
		}
		if !f.CreatedAt.Equal(first.CreatedAt) || f.ETag() == first.ETag() || f.Version <= first.Version {
			t.Errorf("the head went from %+v to %+v", first, f)
		}
		if r := must(s.Revision(t.Context(), "ann", "resize", 1))(t); r.Digest != "sha256:5e" {
			t.Error("an earlier revision has changed")
		}
		if r := must(s.Revision(t.Context(), "ann", "resize", 2))(t); r.Digest != "sha256:60" {
			t.Error("the new revision is not the one that was given")
		}
	}},
	{"SetCurrentGoesBackAndForth", func(t *testing.T, s faena.Documents) {
		add(t, s, revision("ann", "resize"))
		before := add(t, s, revision("ann", "resize"))
		f := must(s.SetCurrent(t.Context(), "ann", "resize", 1, anyHead))(t)
		if f.Current != 1 || f.Latest != 2 || f.ETag() == before.ETag() {
			t.Errorf("the head is %+v", f)
		}
		same(t, must(s.Function(t.Context(), "ann", "resize"))(t), f)
		if f := must(s.SetCurrent(t.Context(), "ann", "resize", 2, anyHead))(t); f.Current != 2 {
			t.Errorf("the head is %+v", f)
		}
	}},
	{"ANumberIsNeverGivenTwice", func(t *testing.T, s faena.Documents) {
		add(t, s, revision("ann", "resize"))
		add(t, s, revision("ann", "resize"))
		must(s.SetCurrent(t.Context(), "ann", "resize", 1, anyHead))(t)
		if f := add(t, s, revision("ann", "resize")); f.Current != 3 || f.Latest != 3 {
			t.Errorf("the head is %+v", f)
		}
	}},
	{"WhatIsAbsentIsNotFound", func(t *testing.T, s faena.Documents) {
		add(t, s, revision("ann", "resize"))
		for _, name := range []string{"resiz", "resizer", ""} {
			_, err := s.Function(t.Context(), "ann", name)
			kind(t, err, faena.KindNotFound)
			_, err = s.SetCurrent(t.Context(), "ann", name, 1, anyHead)
			kind(t, err, faena.KindNotFound)
			kind(t, s.DeleteFunction(t.Context(), "ann", name, anyHead), faena.KindNotFound)
		}
		for _, number := range []int{0, 2, -1} {
			_, err := s.Revision(t.Context(), "ann", "resize", number)
			kind(t, err, faena.KindNotFound)
			_, err = s.SetCurrent(t.Context(), "ann", "resize", number, anyHead)
			kind(t, err, faena.KindNotFound)
		}
		_, err := s.Function(t.Context(), "bob", "resize")
		kind(t, err, faena.KindNotFound)
	}},
	{"ListsAreInOrderOfNameAndOfOneUser", func(t *testing.T, s faena.Documents) {
		names := []string{"a", "a-1", "a1", "b", "resize"}
		for _, owner := range []string{"an", "ann", "ann-b", "ann_b", "anna", "Ann2"} {
			for _, name := range names {
				add(t, s, revision(owner, name))
			}
		}
		list := must(s.Functions(t.Context(), "ann", "", 100))(t)
		if got := functionNames(list); !slices.Equal(got, names) || list[0].User != "ann" || list[4].User != "ann" {
			t.Errorf("the list is %v", list)
		}
		var paged []string
		for after := ""; ; after = paged[len(paged)-1] {
			page := functionNames(must(s.Functions(t.Context(), "ann", after, 2))(t))
			if len(page) > 2 {
				t.Fatalf("a page of 2 has %d", len(page))
			}
			if paged = append(paged, page...); len(page) < 2 {
				break
			}
		}
		if !slices.Equal(paged, names) {
			t.Errorf("page by page the list is %v", paged)
		}
		if got := functionNames(must(s.Functions(t.Context(), "ann", "a-0", 2))(t)); !slices.Equal(got, []string{"a-1", "a1"}) {
			t.Errorf("after a name that is not there come %v", got)
		}
		if got := must(s.Functions(t.Context(), "nobody", "", 10))(t); len(got) != 0 {
			t.Errorf("of nobody there are %v", got)
		}
	}},
	{"RevisionsAreNewestFirst", func(t *testing.T, s faena.Documents) {
		for range 12 {
			add(t, s, revision("ann", "resize"))
		}
		add(t, s, revision("ann", "resize-2"))
		for _, c := range []struct {
			below, limit int
			want         []int
		}{
			{0, 3, []int{12, 11, 10}},
			{10, 3, []int{9, 8, 7}},
			{3, 10, []int{2, 1}},
			{1, 10, nil},
			{100, 1, []int{12}},
		} {
			var got []int
			for _, r := range must(s.Revisions(t.Context(), "ann", "resize", c.below, c.limit))(t) {
				got = append(got, r.Number)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("below %d, at most %d: %v, want %v", c.below, c.limit, got, c.want)
			}
		}
		if got := must(s.Revisions(t.Context(), "ann", "res", 0, 10))(t); len(got) != 0 {
			t.Errorf("a function that is not there has %v", got)
		}
	}},
	{"DeleteTakesTheRevisionsAlong", func(t *testing.T, s faena.Documents) {
		add(t, s, revision("ann", "resize"))
		add(t, s, revision("ann", "resize"))
		add(t, s, revision("ann", "resize-2"))
		ok(t, s.DeleteFunction(t.Context(), "ann", "resize", anyHead))
		_, err := s.Function(t.Context(), "ann", "resize")
		kind(t, err, faena.KindNotFound)
		_, err = s.Revision(t.Context(), "ann", "resize", 1)
		kind(t, err, faena.KindNotFound)
		if got := must(s.Revisions(t.Context(), "ann", "resize", 0, 10))(t); len(got) != 0 {
			t.Errorf("%d revisions are left", len(got))
		}
		must(s.Revision(t.Context(), "ann", "resize-2", 1))(t)
	}},
	{"AFunctionMadeAgainHasAnotherETag", func(t *testing.T, s faena.Documents) {
		seen := map[string]bool{}
		for range 20 { // some of them within one millisecond
			f := add(t, s, revision("ann", "resize"))
			if f.Current != 1 || f.Latest != 1 {
				t.Fatalf("the head is %+v", f)
			}
			if seen[f.ETag()] {
				t.Fatalf("the ETag %s was there before", f.ETag())
			}
			seen[f.ETag()] = true
			ok(t, s.DeleteFunction(t.Context(), "ann", "resize", anyHead))
		}
	}},
	{"ParallelRevisionsGetNumbersOfTheirOwn", func(t *testing.T, s faena.Documents) {
		var mu sync.Mutex
		var numbers []int
		made := 0
		together(16, func(int) {
			f, created, err := s.AddRevision(t.Context(), revision("ann", "resize"), anyHead)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			numbers = append(numbers, f.Current)
			if created {
				made++
			}
		})
		slices.Sort(numbers)
		if want := upTo(16); !slices.Equal(numbers, want) || made != 1 {
			t.Errorf("the numbers are %v, made %d times", numbers, made)
		}
		if f := must(s.Function(t.Context(), "ann", "resize"))(t); f.Latest != 16 {
			t.Errorf("the head is %+v", f)
		}
		if list := must(s.Revisions(t.Context(), "ann", "resize", 0, 100))(t); len(list) != 16 {
			t.Errorf("there are %d revisions", len(list))
		}
	}},
	{"WhatIsReturnedIsACopy", func(t *testing.T, s faena.Documents) {
		rev := revision("ann", "resize")
		add(t, s, rev)
		rev.Spec.Env["LEVEL"] = "9" // the caller's own
		got := must(s.Revision(t.Context(), "ann", "resize", 1))(t)
		got.Spec.Env["LEVEL"], got.Config.Entrypoint[0], got.Sealed[0] = "8", "/bin/false", 'X'
		want := revision("ann", "resize")
		want.Number = 1
		same(t, must(s.Revision(t.Context(), "ann", "resize", 1))(t), want)
	}},
}

// conditionClauses are about what must hold of a head before it is changed.
var conditionClauses = []clause{
	{"IfMatch", func(t *testing.T, s faena.Documents) {
		old := add(t, s, revision("ann", "resize")).ETag()
		now := add(t, s, revision("ann", "resize")).ETag()
		for _, etag := range []string{old, `"nonsense"`, now[1 : len(now)-1]} {
			refuses(t, s, "resize", faena.Condition{IfMatch: etag})
		}
		f, _, err := s.AddRevision(t.Context(), revision("ann", "resize"), faena.Condition{IfMatch: now})
		ok(t, err)
		f = must(s.SetCurrent(t.Context(), "ann", "resize", 1, faena.Condition{IfMatch: f.ETag()}))(t)
		ok(t, s.DeleteFunction(t.Context(), "ann", "resize", faena.Condition{IfMatch: f.ETag()}))
	}},
	{"IfMatchAny", func(t *testing.T, s faena.Documents) {
		star := faena.Condition{IfMatch: "*"}
		_, _, err := s.AddRevision(t.Context(), revision("ann", "resize"), star)
		kind(t, err, faena.KindPrecondition)
		_, err = s.Function(t.Context(), "ann", "resize")
		kind(t, err, faena.KindNotFound)
		add(t, s, revision("ann", "resize"))
		_, _, err = s.AddRevision(t.Context(), revision("ann", "resize"), star)
		ok(t, err)
		must(s.SetCurrent(t.Context(), "ann", "resize", 1, star))(t)
		ok(t, s.DeleteFunction(t.Context(), "ann", "resize", star))
	}},
	{"IfMatchOfWhatIsAbsent", func(t *testing.T, s faena.Documents) {
		_, _, err := s.AddRevision(t.Context(), revision("ann", "resize"), faena.Condition{IfMatch: `"x.1"`})
		kind(t, err, faena.KindPrecondition)
		_, err = s.Revision(t.Context(), "ann", "resize", 1)
		kind(t, err, faena.KindNotFound)
	}},
	{"IfNoneMatch", func(t *testing.T, s faena.Documents) {
		none := faena.Condition{IfNoneMatch: true}
		_, created, err := s.AddRevision(t.Context(), revision("ann", "resize"), none)
		ok(t, err)
		if !created {
			t.Error("the function is not new")
		}
		_, _, err = s.AddRevision(t.Context(), revision("ann", "resize"), none)
		kind(t, err, faena.KindPrecondition)
		if f := must(s.Function(t.Context(), "ann", "resize"))(t); f.Latest != 1 {
			t.Errorf("the head is %+v", f)
		}
	}},
	{"OneOfManyWithTheSameETagWins", func(t *testing.T, s faena.Documents) {
		etag := add(t, s, revision("ann", "resize")).ETag()
		var won atomic.Int64
		together(8, func(int) {
			_, _, err := s.AddRevision(t.Context(), revision("ann", "resize"), faena.Condition{IfMatch: etag})
			if err == nil {
				won.Add(1)
				return
			}
			kind(t, err, faena.KindPrecondition)
		})
		if f := must(s.Function(t.Context(), "ann", "resize"))(t); won.Load() != 1 || f.Latest != 2 {
			t.Errorf("%d won, the head is %+v", won.Load(), f)
		}
	}},
	{"OneOfManyThatMakeItWins", func(t *testing.T, s faena.Documents) {
		var won atomic.Int64
		together(8, func(int) {
			_, created, err := s.AddRevision(t.Context(), revision("ann", "resize"), faena.Condition{IfNoneMatch: true})
			if err == nil && created {
				won.Add(1)
				return
			}
			kind(t, err, faena.KindPrecondition)
		})
		if won.Load() != 1 {
			t.Errorf("%d made it", won.Load())
		}
	}},
}

// refuses checks that no change of ann's function is made under a condition.
func refuses(t testing.TB, s faena.Documents, name string, c faena.Condition) {
	t.Helper()
	before := must(s.Function(t.Context(), "ann", name))(t)
	_, _, err := s.AddRevision(t.Context(), revision("ann", name), c)
	kind(t, err, faena.KindPrecondition)
	_, err = s.SetCurrent(t.Context(), "ann", name, 1, c)
	kind(t, err, faena.KindPrecondition)
	kind(t, s.DeleteFunction(t.Context(), "ann", name, c), faena.KindPrecondition)
	same(t, must(s.Function(t.Context(), "ann", name))(t), before)
}

func functionNames(list []faena.Function) (names []string) {
	for _, f := range list {
		names = append(names, f.Name)
	}
	return names
}

// together runs fn n times at once and waits.
func together(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

// upTo is 1 to n.
func upTo(n int) (list []int) {
	for i := range n {
		list = append(list, i+1)
	}
	return list
}
