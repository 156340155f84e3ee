package httpapi

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"faena.dev/faena/internal/faena"
)

// tenancy is how a call about something of ann's is answered: to bob, who is another user, to root, who is an admin, and to ann; 0 is not
// asked, since it would take away what the others ask for.
type tenancy struct{ bob, root, ann int }

var (
	open    = tenancy{200, 200, 200} // to anybody, and nothing of anybody's is in it
	listed  = tenancy{200, 200, 200} // of the caller's own
	hidden  = tenancy{404, 404, 200} // does not exist for others, an admin included
	admins  = tenancy{403, 200, 403}
	changes = tenancy{403, 0, 403} // an admin's, and it changes something
)

// tenants says for every call of the contract who gets what of ann's. It is written by hand, apart from the table that the API itself uses:
// a route that is new fails here until somebody has decided. With a query it is a row more.
var tenants = map[string]tenancy{
	"GET /healthz":         open,
	"GET /readyz":          open,
	"GET /v1/openapi.yaml": open,

	"GET /v1/functions":                     listed,
	"GET /v1/functions/{name}":              hidden,
	"GET /v1/functions/{name}/revisions":    hidden,
	"POST /v1/functions/{name}/rollback":    hidden,
	"POST /v1/functions/{name}/activations": hidden,
	"DELETE /v1/functions/{name}":           {404, 404, 204},
	"PUT /v1/functions/{name}":              {201, 201, 201}, // one of the caller's own, of the same name; ann has removed hers

	"GET /v1/activations":                   listed,
	"GET /v1/activations?function=ann-s":    listed,
	"GET /v1/activations?cursor=ann's":      listed,
	"GET /v1/activations/{id}":              hidden,
	"GET /v1/activations/{id}/result":       hidden,
	"GET /v1/activations/{id}/logs":         hidden,
	"GET /v1/activations/{id}/logs?follow":  hidden,
	"DELETE /v1/activations/{id}":           hidden,
	"GET /v1/deadletters":                   listed,
	"GET /v1/deadletters?cursor=ann's":      listed,
	"GET /v1/deadletters?user=ann":          {403, 0, 200}, // an admin sees that it is there: TestDeadLetters_List
	"GET /v1/deadletters?user=*":            {403, 0, 403},
	"GET /v1/deadletters/{id}":              hidden,
	"GET /v1/deadletters/{id}?user=ann":     {403, 0, 200},
	"POST /v1/deadletters/{id}/redrive":     {404, 404, 202},
	"POST /v1/deadletters/redrive":          listed,
	"POST /v1/deadletters/redrive?user=ann": {403, 0, 200},
	"POST /v1/deadletters/redrive?user=*":   {403, 0, 403},
	"DELETE /v1/deadletters/{id}":           {404, 404, 404}, // ann has had it run again
	"DELETE /v1/deadletters/{id}?user=ann":  {403, 0, 404},
	"DELETE /v1/deadletters":                listed,
	"DELETE /v1/deadletters?user=ann":       {403, 0, 200},
	"GET /v1/users":                         admins,
	"GET /v1/users/{name}":                  admins,
	"GET /v1/users/{name}/usage":            {404, 200, 200},
	"PUT /v1/users/{name}/password":         {404, 0, 204},
	"PUT /v1/users/{name}":                  changes,
	"DELETE /v1/users/{name}":               changes,
	"GET /v1/groups":                        admins,
	"GET /v1/groups/{name}":                 {403, 404, 403}, // there is none of that name
	"PUT /v1/groups/{name}":                 changes,
	"DELETE /v1/groups/{name}":              changes,
	"GET /v1/diagnosis":                     admins,
	"GET /v1/workers":                       admins,
	"POST /v1/workers/{id}/drain":           changes,
	"POST /v1/workers/{id}/resume":          changes,
}

// TestTenants is every route for two users and an admin, with the names and ids of one of them.
func TestTenants(t *testing.T) {
	s := start(t).serve(t)
	var first sync.Once
	s.worker(2, func(j *job) (out []byte, reason faena.Reason) {
		j.say("logged by ann")
		out, reason = echo(j)
		first.Do(func() { reason = faena.ReasonExitNonzero }) // of what succeeds there is no dead letter
		return out, reason
	})
	s.deploy("ann", "ann-s")
	s.deploy("ann", "ann-s")
	const parameter = "what ann calls with"
	id := s.call(http.MethodPost, "/v1/functions/ann-s/activations", as("ann"), body(parameter)).is(http.StatusBadGateway).header.Get("Faena-Activation-Id")
	s.becomes(id, "failed")
	s.deadLetter("ann", id, func(d *faena.DeadLetter) { d.Function = "ann-s" })
	for _, o := range operations(t) {
		if _, ok := tenants[o.method+" "+o.template]; !ok {
			t.Errorf("%s %s has no row: say who gets what of another's", o.method, o.template)
		}
	}
	// What looks comes before what changes, and ann last, so that each finds what is asked about. To make one's own is last of all.
	order := []string{http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodPut}
	rows := slices.SortedFunc(maps.Keys(tenants), func(a, b string) int {
		if m := slices.Index(order, a[:strings.Index(a, " ")]) - slices.Index(order, b[:strings.Index(b, " ")]); m != 0 {
			return m
		}
		return strings.Compare(strings.ReplaceAll(a, "{", " "), strings.ReplaceAll(b, "{", " ")) // one before all of them
	})
	for _, user := range []string{"bob", "root", "ann"} {
		for _, row := range rows {
			want := map[string]int{"bob": tenants[row].bob, "root": tenants[row].root, "ann": tenants[row].ann}[user]
			if want == 0 {
				continue
			}
			method, target, _ := strings.Cut(row, " ")
			name := "ann-s"
			if strings.Contains(target, "/users/") {
				name = "ann"
			}
			target = strings.NewReplacer("{name}", name, "{id}", id, "ann's", cursor(id)).Replace(target)
			t.Run(user+" "+row, func(t *testing.T) {
				s := s.in(t)
				path, _, _ := strings.Cut(row[len(method)+1:], "?")
				a := s.call(method, target, as(user), s.bodyFor(operation{endpoint: endpoint{method, path}})).is(want)
				if user == "ann" {
					return
				}
				for _, mine := range []string{"ann-s", id, parameter, "logged by ann"} {
					if !strings.Contains(target, mine) && row != "PUT /v1/functions/{name}" && bytes.Contains(a.body, []byte(mine)) {
						t.Errorf("%s shows %s %q: %s", a.call, user, mine, clip(string(a.body)))
					}
				}
				for name, values := range a.header {
					if !strings.Contains(target, id) && strings.Contains(fmt.Sprint(values), id) {
						t.Errorf("%s shows %s the header %s", a.call, user, name)
					}
				}
			})
		}
		if user != "ann" { // nothing of hers has changed
			if f := decoded[Function](s.call(http.MethodGet, "/v1/functions/ann-s", as("ann")).is(http.StatusOK)); f.Current != 2 || f.Latest != 2 {
				t.Errorf("after %s ann's function is %+v", user, f)
			}
			if list := decoded[ActivationPage](s.call(http.MethodGet, "/v1/activations", as("ann")).is(http.StatusOK)); len(list.Items) != 1 {
				t.Errorf("after %s ann has the activations %+v", user, list.Items)
			}
			if list := s.deadLetters("", as("ann")); len(list) != 1 {
				t.Errorf("after %s ann has the dead letters %+v", user, list)
			}
		}
	}
}
