package httpapi

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	nkey      = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
	recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
)

// book is the groups of an installation, and what its doctor finds. The use cases are tested where they are; here it
// matters what comes to them and how their outcomes are answered.
type book struct {
	mu     sync.Mutex
	groups map[string]faena.GroupState
	users  map[string]string // of a group
	most   int
	found  faena.Diagnosis
	err    error // of everything
}

func newBook() *book {
	b := &book{groups: make(map[string]faena.GroupState), users: make(map[string]string), most: faena.MaxGroups}
	now := time.Now().UTC()
	b.groups[group] = faena.GroupState{Group: faena.Group{Name: group, ConnectedAt: &now, CreatedAt: now, UpdatedAt: now}, Workers: 2, Ready: 1, Active: 7}
	return b
}

func (b *book) Groups(context.Context) (list []faena.GroupState, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(b.groups)) {
		list = append(list, b.groups[name])
	}
	return list, b.err
}

func (b *book) Group(_ context.Context, name string) (faena.GroupState, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g, ok := b.groups[name]
	if !ok {
		return g, faena.NotFound("group", name)
	}
	return g, b.err
}

func (b *book) PutGroup(_ context.Context, g faena.Group) (created bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := g.Validate(); err != nil {
		return false, err
	}
	was, ok := b.groups[g.Name]
	if !ok && len(b.groups) >= b.most {
		return false, &faena.Error{Kind: faena.KindConflict, Reason: "groups_full", Component: faena.ComponentCaller, Message: "There are as many groups as there may be."}
	}
	g.CreatedAt, g.UpdatedAt, g.ConnectedAt = was.CreatedAt, time.Now().UTC(), was.ConnectedAt
	if !ok {
		g.CreatedAt = g.UpdatedAt
	}
	was.Group = g
	b.groups[g.Name] = was
	return !ok, b.err
}

func (b *book) DeleteGroup(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.groups[name]; !ok {
		return faena.NotFound("group", name)
	}
	if name == group {
		return &faena.Error{Kind: faena.KindConflict, Reason: "default_group", Component: faena.ComponentCaller, Message: "The group default stays."}
	}
	if by := b.users[name]; by != "" {
		return &faena.Error{Kind: faena.KindConflict, Reason: "group_in_use", Component: faena.ComponentCaller, Message: "The group is used by " + by + "."}
	}
	delete(b.groups, name)
	return b.err
}

func (b *book) Diagnose(context.Context) (faena.Diagnosis, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.found, b.err
}

// An admin makes, changes, reads and removes groups.
func TestGroups_Life(t *testing.T) {
	s := start(t).serve(t)
	const path = "/v1/groups/gpu"
	keys := fmt.Sprintf(`{"nkey":%q,"recipient":%q}`, nkey, recipient)
	made := decoded[Group](s.call(http.MethodPut, path, as("root"), body(keys)).is(http.StatusCreated).has("Location", path))
	want := Group{Name: "gpu", Nkey: nkey, Recipient: recipient, State: GroupStatePending, CreatedAt: made.CreatedAt, UpdatedAt: made.UpdatedAt}
	if made != want || made.CreatedAt.IsZero() {
		t.Errorf("made it is %+v", made)
	}
	if got := decoded[Group](s.call(http.MethodGet, path, as("root")).is(http.StatusOK)); got != made {
		t.Errorf("read it is %+v", got)
	}
	var names []string
	for _, g := range decoded[GroupList](s.call(http.MethodGet, "/v1/groups", as("root")).is(http.StatusOK)).Items {
		names = append(names, fmt.Sprint(g.Name, " ", g.State, " ", g.Workers, " ", g.Ready, " ", g.Active))
	}
	if !slices.Equal(names, []string{"default ready 2 1 7", "gpu pending 0 0 0"}) {
		t.Errorf("the list is %q", names)
	}
	changed := decoded[Group](s.call(http.MethodPut, path, as("root"), body(fmt.Sprintf(`{"recipient":%q}`, recipient))).is(http.StatusOK).has("Location", ""))
	if changed.Nkey != "" || changed.Recipient != recipient || !changed.CreatedAt.Equal(made.CreatedAt) {
		t.Errorf("with the key for sealing alone it is %+v", changed)
	}
	s.groups.users["gpu"] = "user ann"
	p := s.call(http.MethodDelete, path, as("root")).problem(http.StatusConflict, "group_in_use")
	if !strings.Contains(p.Detail, "user ann") {
		t.Errorf("it does not say who uses it: %s", p.Detail)
	}
	delete(s.groups.users, "gpu")
	s.call(http.MethodDelete, path, as("root")).is(http.StatusNoContent)
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		s.call(method, path, as("root")).problem(http.StatusNotFound, "group_not_found")
	}
	s.call(http.MethodDelete, "/v1/groups/default", as("root")).problem(http.StatusConflict, "default_group")
	s.groups.most = 1
	s.call(http.MethodPut, path, as("root"), body(keys)).problem(http.StatusConflict, "groups_full")
}

func TestGroups_Refused(t *testing.T) {
	s := start(t).serve(t)
	for _, c := range []struct {
		name, path, body string
		status           int
		fields           []string
	}{
		{"no JSON", "/v1/groups/gpu", `{`, 400, nil},
		{"nothing", "/v1/groups/gpu", ``, 400, nil},
		{"twice", "/v1/groups/gpu", `{"nkey":"","nkey":""}`, 400, []string{"nkey"}},
		{"unknown field", "/v1/groups/gpu", `{"seed":"S"}`, 422, []string{"seed"}},
		{"a name in it", "/v1/groups/gpu", `{"name":"gpu"}`, 422, []string{"name"}},
		{"null", "/v1/groups/gpu", `{"nkey":null}`, 422, []string{"nkey"}},
		{"a number", "/v1/groups/gpu", `{"recipient":1}`, 422, []string{"recipient"}},
		{"keys that are none", "/v1/groups/gpu", `{"nkey":"x","recipient":"y"}`, 422, []string{"nkey", "recipient"}},
		{"an nkey of an account", "/v1/groups/gpu", `{"nkey":"A` + nkey[1:] + `"}`, 422, []string{"nkey"}},
		{"name with a dot", "/v1/groups/g.pu", `{}`, 422, []string{"name"}},
		{"wildcard", "/v1/groups/*", `{}`, 422, []string{"name"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.in(t).call(http.MethodPut, c.path, as("root"), body(c.body))
			reason := "invalid"
			if c.status == http.StatusBadRequest {
				reason = "malformed"
			}
			a.problem(c.status, reason).names(t, c.fields...)
		})
	}
	if list := decoded[GroupList](s.call(http.MethodGet, "/v1/groups", as("root")).is(http.StatusOK)).Items; len(list) != 1 {
		t.Errorf("the groups are %+v", list)
	}
}

// A diagnosis is answered whole, with lists that are never null and durations in milliseconds.
func TestDiagnosis(t *testing.T) {
	s := start(t).serve(t)
	get := func() string {
		t.Helper()
		return string(s.call(http.MethodGet, "/v1/diagnosis", as("root")).is(http.StatusOK).body)
	}
	if got, want := get(), `{"clocks":[],"documents":{"kind":""},"instance":"","leader":"","servers":[],"streams":[],"unreadable":[],"version":""}`+"\n"; got != want {
		t.Errorf("of nothing it is %s, want %s", got, want)
	}
	s.groups.found = faena.Diagnosis{Instance: "a1", Version: "1.2", Leader: "a2",
		Servers:    []faena.QueueServer{{Address: "n1:4222", Name: "n1", Version: "2.15.2"}, {Address: "n2:4222", Problem: "It is away."}},
		Streams:    []faena.StreamHealth{{Name: "S", Group: "gpu", Replicas: 1, Wanted: 3, Leader: "n1", Behind: []string{"n2"}, Problem: "Few copies."}},
		Documents:  faena.DocumentsHealth{Kind: "mongodb", Problem: "It is away.", Warning: "It is alone."},
		Clocks:     []faena.ClockDifference{{Of: "api a1", Ahead: -1500 * time.Millisecond}},
		Unreadable: []faena.Unreadable{{Where: "queue", Group: "gpu", User: "ann", ID: "id-1", Schema: 7, Problem: "It is of the future.", Sequence: 9}},
	}
	want := `{"clocks":[{"ahead_ms":-1500,"of":"api a1"}],"documents":{"kind":"mongodb","problem":"It is away.","warning":"It is alone."},` +
		`"instance":"a1","leader":"a2","servers":[{"address":"n1:4222","name":"n1","version":"2.15.2"},{"address":"n2:4222","problem":"It is away."}],` +
		`"streams":[{"behind":["n2"],"group":"gpu","leader":"n1","name":"S","problem":"Few copies.","replicas":1,"wanted":3}],` +
		`"unreadable":[{"activation_id":"id-1","group":"gpu","problem":"It is of the future.","schema":7,"sequence":9,"user":"ann","where":"queue"}],"version":"1.2"}` + "\n"
	if got := get(); got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
	s.groups.err = faena.Unavailable(faena.ComponentQueue, "queue_unavailable", "The queue is away.", nil)
	s.call(http.MethodGet, "/v1/diagnosis", as("root")).problem(http.StatusServiceUnavailable, "queue_unavailable")
}

// An API that is made without these use cases says so.
func TestGroups_NotOffered(t *testing.T) {
	s := start(t).serve(t, func(s *site) {
		s.api.Close()
		o := s.api.o
		o.Groups, o.Diagnoser = nil, nil
		s.api = New(o)
		s.server = s.api.Server()
	})
	for _, o := range operations(t) {
		if strings.HasPrefix(o.template, "/v1/groups") || o.template == "/v1/diagnosis" {
			s.call(o.method, o.path(), as("root"), body("{}")).problem(http.StatusServiceUnavailable, "not_offered")
		}
	}
}
