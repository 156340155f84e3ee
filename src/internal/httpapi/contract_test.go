package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/gorilla/mux"

	"faena.dev/faena/api"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// specification is the contract, parsed. Texts are not decoded before they are held against it.
var specification = sync.OnceValues(func() (*openapi3.T, error) {
	for _, text := range []string{"application/yaml", "text/event-stream"} {
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.PlainBodyDecoder)
	}
	return openapi3.NewLoader().LoadFromData(api.Specification)
})

func contract(t testing.TB) *openapi3.T {
	t.Helper()
	doc, err := specification()
	noError(t, err)
	return doc
}

// option changes a request of a test before it is sent.
type option func(*http.Request)

func as(user string) option {
	return func(r *http.Request) { r.SetBasicAuth(user, passwordOf(user)) }
}

func header(name, value string) option {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

func body(p string) option {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(p)), int64(len(p))
	}
}

// chunked is a body whose length is not said in advance.
func chunked(p string) option {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(p)), -1
	}
}

// until gives a request up when ctx ends.
func until(ctx context.Context) option {
	return func(r *http.Request) { *r = *r.WithContext(ctx) }
}

// reply is an answer that was read to its end.
type reply struct {
	t      testing.TB
	call   string
	status int
	header http.Header
	body   []byte
}

// in is the site in a subtest.
func (s *site) in(t testing.TB) *site {
	inner := *s
	inner.t = t
	return &inner
}

// request makes a request to the site. It is ended with the test.
func (s *site) request(method, path string, with ...option) *http.Request {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.scheme+"://"+s.address+path, nil)
	noError(s.t, err)
	for _, change := range with {
		change(r)
	}
	return r
}

// call sends a request and reads the answer, which must be what the contract says.
func (s *site) call(method, path string, with ...option) reply {
	s.t.Helper()
	r := s.request(method, path, with...)
	res, err := s.client.Do(r)
	noError(s.t, err)
	return s.read(r, res)
}

// background sends a request, and returns what waits for its answer.
func (s *site) background(method, path string, with ...option) (answer func() reply) {
	s.t.Helper()
	r := s.request(method, path, with...)
	type outcome struct {
		res *http.Response
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		res, err := s.client.Do(r)
		done <- outcome{res, err}
	}()
	return func() reply {
		s.t.Helper()
		o := <-done
		noError(s.t, o.err)
		return s.read(r, o.res)
	}
}

// eventually waits for what happens by itself.
func (s *site) eventually(what string, cond func() bool) {
	s.t.Helper()
	faenatest.Eventually(s.t, within, what, cond)
}

func (s *site) read(r *http.Request, res *http.Response) reply {
	s.t.Helper()
	defer func() { _ = res.Body.Close() }()
	p, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatalf("%s %s: read the answer: %v", r.Method, r.URL.Path, err)
	}
	a := reply{s.t, r.Method + " " + r.URL.RequestURI(), res.StatusCode, res.Header, p}
	s.keepsContract(r, a)
	return a
}

// keepsContract holds an answer against the specification: its status, headers and body, and what every answer has.
func (s *site) keepsContract(r *http.Request, a reply) {
	s.t.Helper()
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"} {
		if got := a.header.Get(name); got != want {
			s.t.Errorf("%s: %s is %q, want %q", a.call, name, got, want)
		}
	}
	if a.header.Get("X-Request-Id") == "" {
		s.t.Errorf("%s: the answer has no X-Request-Id", a.call)
	}
	probe := r.Clone(r.Context())
	if probe.Method == http.MethodHead {
		probe.Method = http.MethodGet
	}
	var match mux.RouteMatch
	if !s.api.router.Match(probe, &match) || match.MatchErr != nil {
		s.isProblem(r, a) // no operation of the contract
		return
	}
	template, err := match.Route.GetPathTemplate()
	noError(s.t, err)
	doc := contract(s.t)
	item := doc.Paths.Value(template)
	if item == nil || item.GetOperation(probe.Method) == nil {
		s.t.Errorf("%s: the contract has no %s %s", a.call, probe.Method, template)
		return
	}
	op := item.GetOperation(probe.Method)
	large := len(a.body) > faena.MaxInlineBytes && a.header.Get("Content-Type") == "application/octet-stream" // any bytes will do
	in := (&openapi3filter.ResponseValidationInput{Status: a.status, Header: a.header,
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r,
			Route: &routers.Route{Spec: doc, Path: template, PathItem: item, Method: probe.Method, Operation: op}},
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: r.Method == http.MethodHead || large},
	}).SetBodyBytes(a.body)
	if err := openapi3filter.ValidateResponse(context.Background(), in); err != nil {
		s.t.Errorf("%s: the answer breaks the contract: %v\n%s", a.call, err, clip(string(a.body)))
	}
	if a.status < http.StatusBadRequest {
		s.declared(a, op)
	}
}

// isProblem holds an answer against the schema of problem documents.
func (s *site) isProblem(r *http.Request, a reply) {
	s.t.Helper()
	if r.Method == http.MethodHead {
		return
	}
	var document any
	noError(s.t, json.Unmarshal(a.body, &document))
	if err := contract(s.t).Components.Schemas["Problem"].Value.VisitJSON(document); err != nil {
		s.t.Errorf("%s: the problem document breaks the contract: %v\n%s", a.call, err, clip(string(a.body)))
	}
}

// declared checks that a good answer has no status, header or body that the contract does not name.
func (s *site) declared(a reply, op *openapi3.Operation) {
	s.t.Helper()
	ref := op.Responses.Status(a.status)
	if ref == nil {
		s.t.Errorf("%s: the contract does not name the status %d", a.call, a.status)
		return
	}
	for name := range a.header {
		own := strings.HasPrefix(name, "Faena-") || name == "Location" || name == "Etag" || name == "Retry-After" || name == "Preference-Applied"
		for known := range ref.Value.Headers {
			own = own && http.CanonicalHeaderKey(known) != name
		}
		if own {
			s.t.Errorf("%s: the contract does not name the header %s of a %d", a.call, name, a.status)
		}
	}
	if len(ref.Value.Content) == 0 && len(a.body) > 0 {
		s.t.Errorf("%s: a %d has no body in the contract, here it has %q", a.call, a.status, clip(string(a.body)))
	}
}

// is checks the status, and shows what came instead.
func (a reply) is(status int) reply {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: the status is %d, want %d: %s", a.call, a.status, status, a.body)
	}
	return a
}

// has checks a header's only value; "" is none.
func (a reply) has(name, want string) reply {
	a.t.Helper()
	if got := strings.Join(a.header.Values(name), "|"); got != want {
		a.t.Errorf("%s: %s is %q, want %q", a.call, name, got, want)
	}
	return a
}

// problem checks that the answer is a whole problem document, and returns it.
func (a reply) problem(status int, reason string) (p Problem) {
	a.t.Helper()
	a.is(status).has("Content-Type", problemType)
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		a.t.Fatalf("%s: the problem document cannot be read: %v: %s", a.call, err, a.body)
	}
	if p.Reason != reason {
		a.t.Errorf("%s: the reason is %q, want %q: %s", a.call, p.Reason, reason, a.body)
	}
	if p.Status != status || p.Type != "urn:faena:problem:"+p.Reason || p.Title == "" || p.Detail == "" || !p.Component.Valid() {
		a.t.Errorf("%s: the problem document is not complete: %s", a.call, a.body)
	}
	if id := a.header.Get("X-Request-Id"); p.RequestID != id {
		a.t.Errorf("%s: the document's request id is %q, the header's %q", a.call, p.RequestID, id)
	}
	return p
}

// names checks which fields a problem document complains of.
func (p Problem) names(t testing.TB, want ...string) {
	t.Helper()
	var got []string
	for _, e := range p.Errors {
		if e.Message == "" {
			t.Errorf("the complaint of %s says nothing", e.Field)
		}
		got = append(got, e.Field)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the complaints are of %q, want %q", got, want)
	}
}

// decoded reads an answer's JSON.
func decoded[T any](a reply) (v T) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, &v); err != nil {
		a.t.Fatalf("%s: %v: %s", a.call, err, a.body)
	}
	return v
}
