package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"faena.dev/faena/internal/faena"
)

// A change is made only on the version that its caller has seen.
func TestFunctions_ETag(t *testing.T) {
	s := start(t).serve(t)
	const path = "/v1/functions/tool"
	s.call(http.MethodPut, path, as("ann"), s.put(""), header("If-Match", "*")).problem(http.StatusPreconditionFailed, "precondition_failed")
	s.nothingDeployed("ann")
	made := s.call(http.MethodPut, path, as("ann"), s.put(""), header("If-None-Match", "*")).is(http.StatusCreated).has("Location", path)
	first := made.header.Get("ETag")
	changed := s.call(http.MethodPut, path, as("ann"), s.put(`"warm":1`), header("If-Match", first)).is(http.StatusOK).has("Location", "")
	second := changed.header.Get("ETag")
	if first == "" || second == "" || first == second {
		t.Fatalf("the ETags are %s and %s", first, second)
	}
	for name, c := range map[string]struct {
		method, path string
		with         []option
	}{
		"put over a change":        {"PUT", path, []option{s.put(""), header("If-Match", first)}},
		"put over what is there":   {"PUT", path, []option{s.put(""), header("If-None-Match", "*")}},
		"put with no ETag of ours": {"PUT", path, []option{s.put(""), header("If-Match", `"x"`)}},
		"roll back over a change":  {"POST", path + "/rollback", []option{header("If-Match", first)}},
		"delete over a change":     {"DELETE", path, []option{header("If-Match", first)}},
		"delete over a weak ETag":  {"DELETE", path, []option{header("If-Match", `W/`+second)}}, // a weak one never matches
	} {
		t.Run(name, func(t *testing.T) {
			p := s.in(t).call(c.method, c.path, append(c.with, as("ann"))...).problem(http.StatusPreconditionFailed, "precondition_failed")
			if p.Retryable || p.Component != ComponentCaller {
				t.Errorf("retryable is %v, component %s", p.Retryable, p.Component)
			}
		})
	}
	got := s.call(http.MethodGet, path, as("ann")).is(http.StatusOK).has("ETag", second)
	if f := decoded[Function](got); f.Current != 2 || f.Latest != 2 || f.Revision.Spec.Warm != 1 {
		t.Errorf("the function is %+v", f)
	}
	for given, status := range map[string]int{second: 304, "W/" + second: 304, `"x", ` + second: 304, "*": 304, first: 200, `"x"`: 200} {
		a := s.call(http.MethodGet, path, as("ann"), header("If-None-Match", given)).is(status).has("ETag", second)
		if status == http.StatusNotModified && len(a.body) > 0 {
			t.Errorf("a 304 has the body %q", a.body)
		}
	}
	s.call(http.MethodGet, path, as("ann"), header("If-None-Match", `"x"`), header("If-None-Match", second)).is(http.StatusNotModified)
	s.call(http.MethodDelete, path, as("ann"), header("If-Match", second)).is(http.StatusNoContent)
	s.call(http.MethodGet, path, as("ann")).problem(http.StatusNotFound, "function_not_found")
	s.call(http.MethodDelete, path, as("ann"), header("If-Match", "*")).problem(http.StatusNotFound, "function_not_found")
	s.call(http.MethodDelete, path, as("ann")).problem(http.StatusNotFound, "function_not_found")
	again := s.call(http.MethodPut, path, as("ann"), s.put("")).is(http.StatusCreated).header.Get("ETag")
	if again == first || again == second {
		t.Error("a function that was made again has an ETag of the one before")
	}
}

// A rollback is what the next call runs, and a change like every other.
func TestFunctions_Rollback(t *testing.T) {
	s := start(t).serve(t)
	s.worker(1, func(j *job) ([]byte, faena.Reason) { return fmt.Append(nil, j.record.Revision), "" })
	const path = "/v1/functions/tool"
	s.call(http.MethodPut, path, as("ann"), s.put("")).is(http.StatusCreated)
	s.call(http.MethodPost, path+"/rollback", as("ann")).problem(http.StatusConflict, "no_earlier_revision")
	for warm := range 3 {
		s.call(http.MethodPut, path, as("ann"), s.put(fmt.Sprintf(`"warm":%d`, warm))).is(http.StatusOK)
	}
	runs := func(want string) {
		t.Helper()
		if a := s.activate().is(http.StatusOK); string(a.body) != want {
			t.Errorf("revision %s ran, want %s", a.body, want)
		}
	}
	runs("4")
	back := s.call(http.MethodPost, path+"/rollback", as("ann")).is(http.StatusOK)
	if f := decoded[Function](back); f.Current != 3 || f.Latest != 4 || f.Revision.Revision != 3 || f.Revision.Spec.Warm != 1 {
		t.Errorf("without a number it is %+v", f)
	}
	s.call(http.MethodGet, path, as("ann")).is(http.StatusOK).has("ETag", back.header.Get("ETag"))
	runs("3")
	to := s.call(http.MethodPost, path+"/rollback", as("ann"), body(`{"revision":1}`), header("If-Match", back.header.Get("ETag"))).is(http.StatusOK)
	if f := decoded[Function](to); f.Current != 1 || to.header.Get("ETag") == back.header.Get("ETag") {
		t.Errorf("with a number it is %+v, ETag %s", f, to.header.Get("ETag"))
	}
	runs("1")
	s.call(http.MethodPost, path+"/rollback", as("ann"), body(`{"revision":9}`)).problem(http.StatusNotFound, "revision_not_found")
	s.call(http.MethodPost, path+"/rollback", as("ann")).problem(http.StatusConflict, "no_earlier_revision")
	runs("1")
	s.call(http.MethodPost, path+"/rollback", as("ann"), body(`{"revision":4}`)).is(http.StatusOK) // forwards, too
	runs("4")
	if f := decoded[Function](s.call(http.MethodPut, path, as("ann"), s.put("")).is(http.StatusOK)); f.Current != 5 {
		t.Errorf("the next revision is %d, want 5", f.Current)
	}
}

// all reads a list to its end in pages of a size, and checks that each is full but the last.
func all[T any](s *site, path string, size int, with ...option) (items []T) {
	s.t.Helper()
	for next := ""; ; {
		p := decoded[struct {
			Items []T    `json:"items"`
			Next  string `json:"next"`
		}](s.call(http.MethodGet, fmt.Sprintf("%s&limit=%d&cursor=%s", path, size, next), with...).is(http.StatusOK))
		items = append(items, p.Items...)
		if p.Next == "" {
			return items
		}
		if len(p.Items) != size {
			s.t.Fatalf("%s: a page of %d items that is not the last has %d", path, size, len(p.Items))
		}
		next = p.Next
	}
}

// Lists come in order and in pages, each item once, whatever the size of a page.
func TestFunctions_Lists(t *testing.T) {
	s := start(t).serve(t)
	var names []string
	for i := range 7 {
		names = append(names, fmt.Sprintf("tool-%d", i))
		s.deploy("ann", names[i])
		s.deploy("bob", "other-"+names[i])
	}
	for range 6 {
		s.deploy("ann", "tool-0")
	}
	for _, size := range []int{1, 2, 3, 6, 7, 8, 200} {
		var got []string
		for _, f := range all[FunctionHead](s, "/v1/functions?", size, as("ann")) {
			got = append(got, f.Name)
		}
		if !slices.Equal(got, names) {
			t.Errorf("in pages of %d the functions are %q, want %q", size, got, names)
		}
		var numbers []int
		for _, r := range all[Revision](s, "/v1/functions/tool-0/revisions?", size, as("ann")) {
			numbers = append(numbers, r.Revision)
		}
		if !slices.Equal(numbers, []int{7, 6, 5, 4, 3, 2, 1}) {
			t.Errorf("in pages of %d the revisions are %v", size, numbers)
		}
	}
	s.call(http.MethodGet, "/v1/functions/none/revisions", as("ann")).problem(http.StatusNotFound, "function_not_found")
	if a := s.call(http.MethodGet, "/v1/functions", as("root")).is(http.StatusOK); string(a.body) != `{"items":[]}`+"\n" {
		t.Errorf("an empty list is %s", a.body)
	}
}
