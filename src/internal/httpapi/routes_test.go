package httpapi

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/mux"

	"faena.dev/faena/api"
)

// operation is a call of the contract.
type operation struct {
	endpoint
	open bool // without authentication
}

// path is the operation's path with names in it that nothing has.
func (o operation) path() string {
	return strings.NewReplacer("{name}", "nobody", "{id}", "0198c5a1-7f0e-7cc3-98c4-dc0c0c07398f").Replace(o.template)
}

// operations are all calls of the contract.
func operations(t testing.TB) (list []operation) {
	t.Helper()
	doc := contract(t)
	for template, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			list = append(list, operation{endpoint{method, template}, op.Security != nil && len(*op.Security) == 0})
		}
	}
	slices.SortFunc(list, func(a, b operation) int { return strings.Compare(a.template+a.method, b.template+b.method) })
	if len(list) < 20 {
		t.Fatalf("only %d calls were found in the contract", len(list))
	}
	return list
}

func TestRoutes_SpecificationIsValid(t *testing.T) {
	t.Parallel()
	if err := contract(t).Validate(context.Background()); err != nil { // examples included
		t.Error(err)
	}
}

// The routes that are served are those of the contract, each with a rule that says who may use it.
func TestRoutes_AreThoseOfTheSpecification(t *testing.T) {
	t.Parallel()
	served := make(map[endpoint]int)
	a := New(Options{})
	noError(t, a.router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		template, err := route.GetPathTemplate()
		if err != nil {
			return nil // the subrouter itself
		}
		methods, err := route.GetMethods()
		if err != nil {
			return fmt.Errorf("%s takes any method", template)
		}
		for _, method := range methods {
			served[endpoint{method, template}]++
		}
		return nil
	}))
	ruled := maps.Clone(rules)
	for _, o := range operations(t) {
		if served[o.endpoint] != 1 {
			t.Errorf("%s %s of the contract is served by %d routes, want 1", o.method, o.template, served[o.endpoint])
		}
		delete(served, o.endpoint)
		if rule, ok := ruled[o.endpoint]; ok == o.open || ok && rule == nobody {
			t.Errorf("%s %s: open is %v, the rule is %d", o.method, o.template, o.open, rule)
		}
		delete(ruled, o.endpoint)
	}
	if len(served) > 0 || len(ruled) > 0 {
		t.Errorf("the contract does not have the routes %v and the rules %v", served, ruled)
	}
	open := slices.DeleteFunc(operations(t), func(o operation) bool { return !o.open })
	if fmt.Sprint(open) != "[{{GET /healthz} true} {{GET /readyz} true} {{GET /v1/openapi.yaml} true}]" {
		t.Errorf("without authentication are %v", open)
	}
}

// from makes a client's connections come from an address of the loopback network, so that the failures of one case do
// not throttle the next.
func from(address string) *http.Client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
}

func TestRoutes_AskWhoCalls(t *testing.T) {
	s := start(t).serve(t)
	s.call(http.MethodGet, "/v1/functions", as("ann")).is(http.StatusOK) // so that her password is remembered
	strangers := []struct {
		name string
		with option
		all  bool // on every route; a user that is not known costs a hash
	}{
		{"nobody", func(*http.Request) {}, true},
		{"wrong password", func(r *http.Request) { r.SetBasicAuth("ann", passwordOf("bob")) }, true},
		{"no password", func(r *http.Request) { r.SetBasicAuth("ann", "") }, false},
		{"unknown user", func(r *http.Request) { r.SetBasicAuth("carl", passwordOf("carl")) }, false},
		{"another case", func(r *http.Request) { r.SetBasicAuth("Ann", passwordOf("ann")) }, false},
		{"name with a NUL", func(r *http.Request) { r.SetBasicAuth("ann\x00", passwordOf("ann")) }, false},
		{"bearer", header("Authorization", "Bearer "+passwordOf("ann")), true},
		{"not base64", header("Authorization", "Basic !!!"), true},
		{"a gateway's header", header("X-Consumer-Username", "root"), true},
		{"credentials in the URL", func(r *http.Request) { r.URL.RawQuery = "user=ann&password=" + passwordOf("ann") }, true},
	}
	for i, stranger := range strangers {
		t.Run(stranger.name, func(t *testing.T) {
			asked := 0
			for _, o := range operations(t) {
				if o.open || asked > 0 && !stranger.all {
					continue
				}
				asked++
				s := *s
				s.t, s.client = t, from(fmt.Sprintf("127.1.%d.%d", i, asked))
				a := s.call(o.method, o.path(), body("{}"), stranger.with)
				p := a.has("WWW-Authenticate", `Basic realm="faena", charset="UTF-8"`).problem(http.StatusUnauthorized, "unauthenticated")
				if p.Retryable || p.Component != ComponentCaller {
					t.Errorf("%s: retryable is %v, component %s", a.call, p.Retryable, p.Component)
				}
				s.client.CloseIdleConnections()
			}
		})
	}
}

func TestRoutes_OpenOnes(t *testing.T) {
	s := start(t).serve(t)
	s.worker(1, echo)
	s.call(http.MethodGet, "/healthz").is(http.StatusOK)
	ready := decoded[Readiness](s.call(http.MethodGet, "/readyz").is(http.StatusOK))
	if !ready.Ready || ready.Missing == nil {
		t.Errorf("it is not ready, or missing is null: %+v", ready)
	}
	spec := s.call(http.MethodGet, "/v1/openapi.yaml").is(http.StatusOK).has("Content-Type", "application/yaml")
	if string(spec.body) != string(api.Specification) {
		t.Error("the specification is not the one of the source")
	}
	// Credentials that are wrong do not matter where none are asked for.
	s.call(http.MethodGet, "/healthz", func(r *http.Request) { r.SetBasicAuth("ann", "wrong") }).is(http.StatusOK)
}
