package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/control"
	"faena.dev/faena/internal/faena"
)

const (
	nkey      = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
	recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
)

// apart makes the installation one of several processes, which may have more than one group.
func apart(o *control.Options) { o.SingleHost = false }

// An admin makes, changes, reads and removes groups.
func TestGroups_Life(t *testing.T) {
	s := start(t, apart).serve(t)
	s.worker(1, echo)
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
	var list []string
	for _, g := range decoded[GroupList](s.call(http.MethodGet, "/v1/groups", as("root")).is(http.StatusOK)).Items {
		list = append(list, fmt.Sprint(g.Name, " ", g.State, " ", g.Workers, " ", g.Ready, " ", g.Active))
	}
	if !slices.Equal(list, []string{"default ready 1 1 0", "gpu pending 0 0 0"}) {
		t.Errorf("the list is %q", list)
	}
	changed := decoded[Group](s.call(http.MethodPut, path, as("root"), body(fmt.Sprintf(`{"recipient":%q}`, recipient))).is(http.StatusOK).has("Location", ""))
	if changed.Nkey != "" || changed.Recipient != recipient || !changed.CreatedAt.Equal(made.CreatedAt) {
		t.Errorf("with the key for sealing alone it is %+v", changed)
	}
	s.call(http.MethodPut, "/v1/users/ann", as("root"), body(`{"groups":{"default":1,"gpu":1}}`)).is(http.StatusOK)
	if p := s.call(http.MethodDelete, path, as("root")).problem(http.StatusConflict, "group_in_use"); !strings.Contains(p.Detail, "user ann") {
		t.Errorf("it does not say who uses it: %s", p.Detail)
	}
	s.call(http.MethodPut, "/v1/users/ann", as("root"), body(`{"groups":{"default":1}}`)).is(http.StatusOK)
	s.call(http.MethodDelete, path, as("root")).is(http.StatusNoContent)
	s.call(http.MethodDelete, "/v1/groups/default", as("root")).problem(http.StatusConflict, "default_group")
	for _, path := range []string{path, "/v1/groups/*", "/v1/groups/g.pu", "/v1/groups/%3E", "/v1/groups/DEFAULT", "/v1/groups/a%20b", "/v1/groups/" + strings.Repeat("a", 64)} {
		for _, method := range []string{http.MethodGet, http.MethodDelete} {
			s.call(method, path, as("root")).problem(http.StatusNotFound, "group_not_found")
		}
	}
	s.deploy("ann", "tool") // the group that was always there still works
	s.activate(body("x")).is(http.StatusOK)
}

func TestGroups_Refused(t *testing.T) {
	s := start(t, apart).serve(t)
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

// An installation that is one process has the group that it has.
func TestGroups_Fixed(t *testing.T) {
	s := start(t).serve(t)
	for _, name := range []string{"gpu", group} {
		s.call(http.MethodPut, "/v1/groups/"+name, as("root"), body("{}")).problem(http.StatusConflict, "groups_fixed")
	}
}

// found is a diagnosis that was made before.
type found struct {
	faena.Diagnosis
	err error
}

func (f *found) Diagnose(context.Context) (faena.Diagnosis, error) { return f.Diagnosis, f.err }

// A diagnosis is answered whole, with lists that are never null and durations in milliseconds.
func TestDiagnosis(t *testing.T) {
	f := &found{}
	s := start(t).serve(t, func(s *site) { s.api.o.Diagnoser = f })
	get := func() string {
		t.Helper()
		return string(s.call(http.MethodGet, "/v1/diagnosis", as("root")).is(http.StatusOK).body)
	}
	if got, want := get(), `{"clocks":[],"documents":{"kind":""},"instance":"","leader":"","servers":[],"streams":[],"unreadable":[],"version":""}`+"\n"; got != want {
		t.Errorf("of nothing it is %s, want %s", got, want)
	}
	f.Diagnosis = faena.Diagnosis{Instance: "a1", Version: "1.2", Leader: "a2",
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
	f.err = faena.Unavailable(faena.ComponentQueue, "queue_unavailable", "The queue is away.", nil)
	s.call(http.MethodGet, "/v1/diagnosis", as("root")).problem(http.StatusServiceUnavailable, "queue_unavailable")
}

// What the use case finds is what the contract says.
func TestDiagnosis_Real(t *testing.T) {
	s := start(t).serve(t)
	s.eventually("an API leads", func() bool {
		return decoded[Diagnosis](s.call(http.MethodGet, "/v1/diagnosis", as("root")).is(http.StatusOK)).Leader == "test"
	})
	noError(t, s.store.Close())
	if d := decoded[Diagnosis](s.call(http.MethodGet, "/v1/diagnosis", as("root")).is(http.StatusOK)); d.Documents.Problem == "" || d.Instance != "test" {
		t.Errorf("without documents it is %+v", d)
	}
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
