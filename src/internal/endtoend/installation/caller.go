package installation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
)

// Caller is one user at one API: with his password, or as the gateway passes him on.
type Caller struct {
	I    *Installation
	API  int
	User string
}

// Admin is the first admin at an API, As anybody.
func (i *Installation) Admin(api int) Caller           { return i.As(api, AdminName) }
func (i *Installation) As(api int, user string) Caller { return Caller{i, api, user} }

// At is the same user at another API, Other at the other one of two.
func (c Caller) At(api int) Caller { return Caller{c.I, api, c.User} }
func (c Caller) Other() Caller     { return c.At(1 - c.API) }

// Get, Delete and Put make calls with paths below the API's address.
func (c Caller) Get(t testing.TB, path string) (*http.Response, error) {
	t.Helper()
	return c.Do(t, http.MethodGet, path, nil)
}

func (c Caller) Delete(t testing.TB, path string) (*http.Response, error) {
	t.Helper()
	return c.Do(t, http.MethodDelete, path, nil)
}

func (c Caller) Put(t testing.TB, path string, body any) (*http.Response, error) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return c.Do(t, http.MethodPut, path, text, "Content-Type", "application/json")
}

// Do makes a call. Headers are pairs.
func (c Caller) Do(t testing.TB, method, path string, body []byte, headers ...string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.I.APIs[c.API].URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if c.I.APIs[c.API].Believes {
		req.Header.Set("X-Consumer-Username", c.User)
	} else {
		req.SetBasicAuth(c.User, c.Password())
	}
	for k := 0; k+1 < len(headers); k += 2 {
		req.Header.Set(headers[k], headers[k+1])
	}
	return c.I.Gateway.Do(req)
}

// Password is the user's.
func (c Caller) Password() string {
	if c.User == AdminName {
		return c.I.Password
	}
	return "a-password-of-" + c.User
}

// User makes a user with a limit in group default, or changes the limit.
func (i *Installation) User(t testing.TB, name string, limit int) Caller {
	t.Helper()
	return i.Profile(t, 0, name, map[string]int{"default": limit})
}

// Profile makes or changes a user at an API.
func (i *Installation) Profile(t testing.TB, api int, name string, groups map[string]int) Caller {
	t.Helper()
	c, profile := i.As(api, name), client.UserProfile{Groups: groups}
	if !i.APIs[api].Believes {
		profile.Password = c.Password()
	}
	if _, err := client.Read[client.User](i.Admin(api).Put(t, "/v1/users/"+name, profile)); err != nil {
		t.Fatal(err)
	}
	return c
}

// Deploy deploys the function program with arguments; change, if any, changes the spec first.
func (c Caller) Deploy(t testing.TB, name string, change func(*client.Spec), args ...string) client.Function {
	t.Helper()
	f, err := client.Read[client.Function](c.Put(t, "/v1/functions/"+name, c.Spec(change, args...)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Spec is what Deploy deploys.
func (c Caller) Spec(change func(*client.Spec), args ...string) client.Spec {
	s := client.Spec{Image: c.I.Image, Args: args, MemoryBytes: 32 << 20, Registry: &client.Credentials{Username: Puller.Username, Password: Puller.Password}}
	if change != nil {
		change(&s)
	}
	return s
}

// Answer is what a call for an activation was answered with.
type Answer struct {
	Err     error // the connection broke, or there was none
	Status  int
	ID      string // of the activation, where there is one
	Body    string
	Problem client.Problem
	Header  http.Header
}

// Activate calls a function. What was accepted is noted for the count at the end.
func (c Caller) Activate(t testing.TB, name, parameter string, headers ...string) (a Answer) {
	t.Helper()
	defer func() { c.I.Ledger.Note(c.User, a) }()
	res, err := c.Do(t, http.MethodPost, "/v1/functions/"+name+"/activations", []byte(parameter), headers...)
	if err != nil {
		return Answer{Err: err}
	}
	defer func() { _ = res.Body.Close() }()
	a = Answer{Status: res.StatusCode, ID: res.Header.Get("Faena-Activation-Id"), Header: res.Header}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		a.Err = err
		return a
	}
	a.Body = string(text)
	if a.Status >= 300 {
		if err := json.Unmarshal(text, &a.Problem); err != nil {
			a.Err = fmt.Errorf("it answers %d with %.200q: %w", a.Status, text, err)
		}
		a.ID = a.Problem.ActivationID
	}
	return a
}

// Run is activate that must succeed, and returns the result.
func (c Caller) Run(t testing.TB, name, parameter string) (id, result string) {
	t.Helper()
	a := c.Activate(t, name, parameter)
	if a.Status != http.StatusOK {
		t.Fatalf("%s of %s answers %d at %s: %+v %v", name, c.User, a.Status, c.I.APIs[c.API].Name, a.Problem, a.Err)
	}
	return a.ID, a.Body
}

// Queue is activate that does not wait.
func (c Caller) Queue(t testing.TB, name, parameter string) (id string) {
	t.Helper()
	a := c.Activate(t, name, parameter, "Prefer", "respond-async")
	if a.Status != http.StatusAccepted || a.ID == "" {
		t.Fatalf("%s of %s answers %d at %s: %+v %v", name, c.User, a.Status, c.I.APIs[c.API].Name, a.Problem, a.Err)
	}
	return a.ID
}

// Record reads an activation.
func (c Caller) Record(t testing.TB, id string) (client.Activation, error) {
	t.Helper()
	return client.Read[client.Activation](c.Get(t, "/v1/activations/"+id))
}

// Result and Logs are the bytes of an activation's.
func (c Caller) Result(t testing.TB, id string) string {
	return c.bytes(t, "/v1/activations/"+id+"/result")
}
func (c Caller) Logs(t testing.TB, id string) string {
	return c.bytes(t, "/v1/activations/"+id+"/logs")
}

func (c Caller) bytes(t testing.TB, path string) string {
	t.Helper()
	res, err := client.Stream(c.Get(t, path))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Terminal reports whether an activation in this state has ended.
func Terminal(s client.State) bool { return s != client.StateQueued && s != client.StateRunning }

// Is waits until an activation is in a state.
func (c Caller) Is(t testing.TB, limit time.Duration, id string, want client.State) (a client.Activation) {
	t.Helper()
	Within(t, limit, "activation "+id+" is "+string(want), func() (err error) {
		a, err = c.Record(t, id)
		if err == nil && a.State != want {
			err = fmt.Errorf("it is %s %s %s", a.State, a.Reason, a.Message)
		}
		return err
	})
	return a
}

// Usage is what an API says that a user has and had.
func (c Caller) Usage(t testing.TB) (client.Usage, error) {
	t.Helper()
	return client.Read[client.Usage](c.Get(t, "/v1/users/"+c.User+"/usage"))
}

// Reason is the word of a problem document; "" where err is none.
func Reason(err error) string {
	if f, ok := AsFailure(err); ok {
		return f.Reason
	}
	return ""
}
