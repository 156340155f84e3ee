package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"faena.dev/faena/internal/faena"
)

// with logs in by a password that is not the user's first.
func with(user, password string) option {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

// An admin makes, changes and removes users; passwords are never shown, and the old one is refused at once.
func TestUsers_Life(t *testing.T) {
	s := start(t).serve(t)
	const path = "/v1/users/jorgeSD"
	made := s.call(http.MethodPut, path, as("root"), body(`{"password":"the-first-one","groups":{"default":4}}`)).is(http.StatusCreated).has("Location", path)
	if u := decoded[User](made); u.Name != "jorgeSD" || u.Role != "user" || u.Groups[group] != 4 || u.CreatedAt.IsZero() || strings.Contains(string(made.body), "argon2") {
		t.Errorf("the user is %s", made.body)
	}
	if u := decoded[Usage](s.call(http.MethodGet, path+"/usage", with("jorgeSD", "the-first-one")).is(http.StatusOK)); u != (Usage{Limit: 4}) {
		t.Errorf("the usage is %+v", u)
	}
	changed := s.call(http.MethodPut, path, as("root"), body(`{"role":"admin"}`)).is(http.StatusOK).has("Location", "")
	if u := decoded[User](changed); u.Role != "admin" || u.Groups[group] != faena.DefaultSlots || !u.CreatedAt.Equal(decoded[User](made).CreatedAt) {
		t.Errorf("changed it is %s", changed.body)
	}
	s.call(http.MethodGet, "/v1/workers", with("jorgeSD", "the-first-one")).is(http.StatusOK) // the password is kept
	s.call(http.MethodPut, path+"/password", with("jorgeSD", "the-first-one"), body(`{"password":"the-second-one"}`)).is(http.StatusNoContent)
	s.call(http.MethodGet, path, with("jorgeSD", "the-first-one")).problem(http.StatusUnauthorized, "unauthenticated")
	s.call(http.MethodPut, path+"/password", as("root"), body(`{"password":"the-third-one"}`)).is(http.StatusNoContent)
	s.call(http.MethodGet, path, with("jorgeSD", "the-second-one")).problem(http.StatusUnauthorized, "unauthenticated")
	if u := decoded[User](s.call(http.MethodGet, path, with("jorgeSD", "the-third-one")).is(http.StatusOK)); u.Name != "jorgeSD" {
		t.Errorf("the user is %+v", u)
	}
	for _, name := range []string{"JORGEsd", "jorgesd"} {
		s.call(http.MethodPut, "/v1/users/"+name, as("root"), body(`{"password":"the-first-one"}`)).problem(http.StatusConflict, "name_taken")
	}
	s.call(http.MethodDelete, path, as("root")).is(http.StatusNoContent)
	s.call(http.MethodGet, path, as("root")).problem(http.StatusNotFound, "user_not_found")
	s.call(http.MethodDelete, path, as("root")).problem(http.StatusNotFound, "user_not_found")
	s.call(http.MethodPut, path+"/password", as("root"), body(`{"password":"the-third-one"}`)).problem(http.StatusNotFound, "user_not_found")
	s.call(http.MethodGet, path+"/usage", with("jorgeSD", "the-third-one")).problem(http.StatusUnauthorized, "unauthenticated")
	s.call(http.MethodPut, path, as("root"), body(`{"password":"the-first-one"}`)).problem(http.StatusConflict, "name_taken")
}

func TestUsers_Refused(t *testing.T) {
	s := start(t).serve(t)
	for _, c := range []struct {
		name, path, body string
		status           int
		field            string
	}{
		{"no JSON", "/v1/users/carl", `{`, 400, ""},
		{"nothing", "/v1/users/carl", ``, 400, ""},
		{"unknown field", "/v1/users/carl", `{"limit":5}`, 422, "limit"},
		{"role", "/v1/users/carl", `{"role":"root"}`, 422, "role"},
		{"unknown group", "/v1/users/carl", `{"groups":{"gpu":5}}`, 422, "groups.gpu"},
		{"limit of 0", "/v1/users/carl", `{"groups":{"default":0}}`, 422, "groups.default"},
		{"limit too high", "/v1/users/carl", `{"groups":{"default":1001}}`, 422, "groups.default"},
		{"limit that is none", "/v1/users/carl", `{"groups":{"default":"5"}}`, 422, "groups.default"},
		{"short password", "/v1/users/carl", `{"password":"1234567"}`, 422, "password"},
		{"long password", "/v1/users/carl", fmt.Sprintf(`{"password":%q}`, strings.Repeat("a", 129)), 422, "password"},
		{"colon in the password", "/v1/users/carl", `{"password":"pass:word"}`, 422, "password"},
		{"white space in the password", "/v1/users/carl", `{"password":"pass word"}`, 422, "password"},
		{"name with a dot", "/v1/users/carl.s", `{}`, 422, "name"},
		{"long name", "/v1/users/" + strings.Repeat("a", 64), `{}`, 422, "name"},
		{"wildcard", "/v1/users/*", `{}`, 422, "name"},
		{"empty password", "/v1/users/ann/password", `{}`, 422, "password"},
		{"null password", "/v1/users/ann/password", `{"password":null}`, 422, "password"},
		{"short new password", "/v1/users/ann/password", `{"password":"short"}`, 422, "password"},
		{"number for a password", "/v1/users/ann/password", `{"password":12345678}`, 422, "password"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			a := s.call(http.MethodPut, c.path, as("root"), body(c.body))
			if c.status == http.StatusBadRequest {
				a.problem(c.status, "malformed")
				return
			}
			a.problem(c.status, "invalid").names(t, c.field)
		})
	}
	var names []string
	for _, u := range decoded[UserPage](s.call(http.MethodGet, "/v1/users", as("root")).is(http.StatusOK)).Items {
		names = append(names, u.Name)
	}
	if !slices.Equal(names, []string{"ann", "bob", "root"}) {
		t.Errorf("there are the users %q", names)
	}
	s.call(http.MethodGet, "/v1/functions", as("ann")).is(http.StatusOK)
}

// A limit that changes holds from the next call on, and nothing that is active is lost.
func TestUsers_LimitChanges(t *testing.T) {
	s := start(t).serve(t)
	g := newGate()
	s.deploy("ann", "tool")
	limit := func(n int) {
		t.Helper()
		s.call(http.MethodPut, "/v1/users/ann", as("root"), body(fmt.Sprintf(`{"groups":{"default":%d}}`, n))).is(http.StatusOK)
	}
	var ids []string
	limit(3)
	for range 3 {
		ids = append(ids, s.accepted("x"))
	}
	s.activate(header("Prefer", "respond-async")).problem(http.StatusTooManyRequests, "limit_reached")
	limit(4)
	ids = append(ids, s.accepted("x"))
	limit(1)
	s.activate(header("Prefer", "respond-async")).problem(http.StatusTooManyRequests, "limit_reached")
	if u := s.usage(); u.Active != 4 || u.Limit != 1 {
		t.Errorf("the usage is %+v, want 4 active of 1", u)
	}
	s.worker(4, g.run)
	close(g.open)
	for _, id := range ids {
		s.becomes(id, "succeeded")
	}
	s.activate().is(http.StatusOK)
	s.eventually("all is counted", func() bool { return s.usage() == Usage{Completed: 5, Limit: 1} })
}

func TestUsers_Lists(t *testing.T) {
	s := start(t).serve(t)
	names := []string{"ann", "bob", "root"}
	for _, name := range []string{"Zoe", "carl", "dora"} {
		s.user(name, faena.RoleUser, 1)
		names = append(names, name)
	}
	slices.Sort(names)
	for _, size := range []int{1, 2, 5, 6, 7} {
		var got []string
		for _, u := range all[User](s, "/v1/users?", size, as("root")) {
			got = append(got, u.Name)
		}
		if !slices.Equal(got, names) {
			t.Errorf("in pages of %d there are %q, want %q", size, got, names)
		}
	}
	if a := s.call(http.MethodGet, "/v1/workers", as("root")).is(http.StatusOK); string(a.body) != `{"items":[]}`+"\n" {
		t.Errorf("without a worker the list is %s", a.body)
	}
	s.worker(3, echo)
	list := decoded[WorkerList](s.call(http.MethodGet, "/v1/workers", as("root")).is(http.StatusOK)).Items
	if len(list) != 1 || list[0].ID != "w1" || list[0].Places != 3 || !list[0].Ready || list[0].Group != group || list[0].SeenAt.IsZero() {
		t.Errorf("the workers are %+v", list)
	}
}

// Whoever fails too often is told when to try again, whether his next password is right or not; others are not kept out.
func TestUsers_TooManyFailures(t *testing.T) {
	s := start(t).serve(t)
	s.call(http.MethodGet, "/v1/functions", as("bob")).is(http.StatusOK)
	var a reply
	for range 30 {
		if a = s.call(http.MethodGet, "/v1/functions", with("ann", "a-wrong-guess")); a.status != http.StatusUnauthorized {
			break
		}
	}
	p := a.problem(http.StatusTooManyRequests, "too_many_failures")
	if a.header.Get("Retry-After") == "" || !p.Retryable {
		t.Errorf("Retry-After is %q: %s", a.header.Get("Retry-After"), a.body)
	}
	s.call(http.MethodGet, "/v1/functions", as("ann")).is(http.StatusTooManyRequests)
	s.call(http.MethodGet, "/v1/functions", as("bob")).is(http.StatusOK)
}
