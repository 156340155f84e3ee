package endtoend_test

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

// caller is one user at one API: with his password, or as the gateway passes him on.
type caller struct {
	i    *installation
	api  int
	user string
}

func (i *installation) admin(api int) caller           { return i.as(api, adminName) }
func (i *installation) as(api int, user string) caller { return caller{i, api, user} }
func (c caller) at(api int) caller                     { return caller{c.i, api, c.user} }
func (c caller) other() caller                         { return c.at(1 - c.api) }
func (c caller) get(t *testing.T, path string) (*http.Response, error) {
	t.Helper()
	return c.do(t, http.MethodGet, path, nil)
}

func (c caller) delete(t *testing.T, path string) (*http.Response, error) {
	t.Helper()
	return c.do(t, http.MethodDelete, path, nil)
}

func (c caller) put(t *testing.T, path string, body any) (*http.Response, error) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return c.do(t, http.MethodPut, path, text, "Content-Type", "application/json")
}

// do makes a call. Headers are pairs.
func (c caller) do(t *testing.T, method, path string, body []byte, headers ...string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.i.apis[c.api].url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if c.i.apis[c.api].believes {
		req.Header.Set("X-Consumer-Username", c.user)
	} else {
		req.SetBasicAuth(c.user, c.password())
	}
	for k := 0; k+1 < len(headers); k += 2 {
		req.Header.Set(headers[k], headers[k+1])
	}
	return c.i.gateway.Do(req)
}

func (c caller) password() string {
	if c.user == adminName {
		return c.i.password
	}
	return "a-password-of-" + c.user
}

// user makes a user with a limit in group default, or changes the limit.
func (i *installation) user(t *testing.T, name string, limit int) caller {
	t.Helper()
	return i.profile(t, 0, name, map[string]int{"default": limit})
}

// profile makes or changes a user at an API.
func (i *installation) profile(t *testing.T, api int, name string, groups map[string]int) caller {
	t.Helper()
	c, profile := i.as(api, name), client.UserProfile{Groups: groups}
	if !i.apis[api].believes {
		profile.Password = c.password()
	}
	if _, err := client.Read[client.User](i.admin(api).put(t, "/v1/users/"+name, profile)); err != nil {
		t.Fatal(err)
	}
	return c
}

// deploy deploys the function program with arguments; change, if any, changes the spec first.
func (c caller) deploy(t *testing.T, name string, change func(*client.Spec), args ...string) client.Function {
	t.Helper()
	f, err := client.Read[client.Function](c.put(t, "/v1/functions/"+name, c.spec(change, args...)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (c caller) spec(change func(*client.Spec), args ...string) client.Spec {
	s := client.Spec{Image: c.i.image, Args: args, MemoryBytes: 32 << 20, Registry: &client.Credentials{Username: puller.Username, Password: puller.Password}}
	if change != nil {
		change(&s)
	}
	return s
}

// answer is what a call for an activation was answered with.
type answer struct {
	err     error // the connection broke, or there was none
	status  int
	id      string // of the activation, where there is one
	body    string
	problem client.Problem
	header  http.Header
}

// activate calls a function. What was accepted is noted for the count at the end.
func (c caller) activate(t *testing.T, name, parameter string, headers ...string) (a answer) {
	t.Helper()
	defer func() { c.i.ledger.note(c.user, a) }()
	res, err := c.do(t, http.MethodPost, "/v1/functions/"+name+"/activations", []byte(parameter), headers...)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = res.Body.Close() }()
	a = answer{status: res.StatusCode, id: res.Header.Get("Faena-Activation-Id"), header: res.Header}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		a.err = err
		return a
	}
	a.body = string(text)
	if a.status >= 300 {
		if err := json.Unmarshal(text, &a.problem); err != nil {
			a.err = fmt.Errorf("it answers %d with %.200q: %w", a.status, text, err)
		}
		a.id = a.problem.ActivationID
	}
	return a
}

// run is activate that must succeed, and returns the result.
func (c caller) run(t *testing.T, name, parameter string) (id, result string) {
	t.Helper()
	a := c.activate(t, name, parameter)
	if a.status != http.StatusOK {
		t.Fatalf("%s of %s answers %d at %s: %+v %v", name, c.user, a.status, c.i.apis[c.api].name, a.problem, a.err)
	}
	return a.id, a.body
}

// queue is activate that does not wait.
func (c caller) queue(t *testing.T, name, parameter string) (id string) {
	t.Helper()
	a := c.activate(t, name, parameter, "Prefer", "respond-async")
	if a.status != http.StatusAccepted || a.id == "" {
		t.Fatalf("%s of %s answers %d at %s: %+v %v", name, c.user, a.status, c.i.apis[c.api].name, a.problem, a.err)
	}
	return a.id
}

// record reads an activation.
func (c caller) record(t *testing.T, id string) (client.Activation, error) {
	t.Helper()
	return client.Read[client.Activation](c.get(t, "/v1/activations/"+id))
}

func (c caller) result(t *testing.T, id string) string {
	return c.bytes(t, "/v1/activations/"+id+"/result")
}
func (c caller) logs(t *testing.T, id string) string {
	return c.bytes(t, "/v1/activations/"+id+"/logs")
}

func (c caller) bytes(t *testing.T, path string) string {
	t.Helper()
	res, err := client.Stream(c.get(t, path))
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

func terminal(s client.State) bool { return s != client.StateQueued && s != client.StateRunning }

// is waits until an activation is in a state.
func (c caller) is(t *testing.T, limit time.Duration, id string, want client.State) (a client.Activation) {
	t.Helper()
	within(t, limit, "activation "+id+" is "+string(want), func() (err error) {
		a, err = c.record(t, id)
		if err == nil && a.State != want {
			err = fmt.Errorf("it is %s %s %s", a.State, a.Reason, a.Message)
		}
		return err
	})
	return a
}

// usage is what an API says that a user has and had.
func (c caller) usage(t *testing.T) (client.Usage, error) {
	t.Helper()
	return client.Read[client.Usage](c.get(t, "/v1/users/"+c.user+"/usage"))
}

// reason is the word of a problem document; "" where err is none.
func reason(err error) string {
	if f, ok := asFailure(err); ok {
		return f.Reason
	}
	return ""
}
