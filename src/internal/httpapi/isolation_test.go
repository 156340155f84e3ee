package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"faena.dev/faena/internal/faena"
)

// bodyFor is a body that is right for a call of the contract.
func (p *platform) bodyFor(o operation) option {
	switch o.endpoint {
	case endpoint{http.MethodPut, "/v1/functions/{name}"}:
		return p.put("")
	case endpoint{http.MethodPut, "/v1/users/{name}/password"}:
		return body(`{"password":"a-new-password"}`)
	}
	return body("{}")
}

// Somebody else's function or activation does not exist, on every route that names one, also for an admin; the answer is
// the same as for one that nobody has.
func TestIsolation_OthersThingsDoNotExist(t *testing.T) {
	s := start(t).serve(t)
	g := newGate()
	w := s.worker(2, func(j *job) ([]byte, faena.Reason) { return []byte("secret of ann"), faena.ReasonExitNonzero })
	s.deploy("ann", "tool")
	s.deploy("ann", "tool")
	ended := s.activate(body("secret of ann")).is(http.StatusBadGateway).header.Get("Faena-Activation-Id")
	s.becomes(ended, "failed")
	w.does(g.run)
	s.activate(body("x"), header("Prefer", "respond-async")).is(http.StatusAccepted)
	running := <-g.running
	for _, id := range []string{ended, running} {
		s.deadLetter("ann", id)
	}
	things := map[string]string{"a function": "tool", "an ended activation": ended, "a running activation": running}
	tried := 0
	for thing, name := range things {
		for _, o := range operations(t) {
			of := "{id}"
			if thing == "a function" {
				of = "{name}"
			}
			// A PUT makes a function of the caller's own.
			if !strings.Contains(o.template, of) || rules[o.endpoint] != anyUser || o.method == http.MethodPut {
				continue
			}
			tried++
			for _, user := range []string{"bob", "root"} {
				t.Run(fmt.Sprintf("%s %s of %s for %s", o.method, o.template, thing, user), func(t *testing.T) {
					s := s.in(t)
					reason := "activation_not_found"
					switch {
					case of == "{name}":
						reason = "function_not_found"
					case strings.Contains(o.template, "/deadletters/"):
						reason = "dead_letter_not_found"
					}
					theirs := s.call(o.method, strings.Replace(o.template, of, name, 1), as(user), s.bodyFor(o), header("X-Request-Id", "same"))
					theirs.problem(http.StatusNotFound, reason)
					nobodys := s.call(o.method, o.path(), as(user), s.bodyFor(o), header("X-Request-Id", "same")).is(http.StatusNotFound)
					want := strings.NewReplacer("nobody", name, "0198c5a1-7f0e-7cc3-98c4-dc0c0c07398f", name).Replace(string(nobodys.body))
					if string(theirs.body) != want {
						t.Errorf("theirs: %s\nnobody's: %s", theirs.body, nobodys.body)
					}
				})
			}
		}
	}
	if tried != 5+7+7 {
		t.Errorf("%d calls were tried, want 5 of functions and twice 4 of activations and 3 of dead letters", tried)
	}
	if list := s.deadLetters("", as("ann")); len(list) != 2 {
		t.Errorf("ann has the dead letters %+v", list)
	}
	if rec := s.becomes(running, "running"); rec.CancelRequested {
		t.Error("somebody else could cancel it")
	}
	for _, user := range []string{"bob", "root"} {
		s.nothingDeployed(user)
		if list := decoded[ActivationPage](s.call(http.MethodGet, "/v1/activations?function=tool", as(user)).is(http.StatusOK)); len(list.Items) > 0 {
			t.Errorf("%s sees %+v", user, list.Items)
		}
	}
	// A function of the same name is another one, with its own revisions.
	s.call(http.MethodPut, "/v1/functions/tool", as("bob"), s.put("")).is(http.StatusCreated)
	s.call(http.MethodDelete, "/v1/functions/tool", as("bob")).is(http.StatusNoContent)
	if f := decoded[Function](s.call(http.MethodGet, "/v1/functions/tool", as("ann")).is(http.StatusOK)); f.Current != 2 {
		t.Errorf("ann's function is %+v", f)
	}
	close(g.open)
	s.becomes(running, "succeeded")
}

// A user may do what is an admin's on no route, and what is his own alone.
func TestIsolation_Roles(t *testing.T) {
	s := start(t).serve(t)
	admins, own := 0, 0
	for _, o := range operations(t) {
		t.Run(o.method+" "+o.template, func(t *testing.T) {
			s := s.in(t)
			switch rules[o.endpoint] {
			case adminOnly:
				admins++
				for _, name := range []string{"root", "bob", "nobody"} { // his own profile, too
					p := s.call(o.method, strings.Replace(o.template, "{name}", name, 1), as("bob"), s.bodyFor(o)).problem(http.StatusForbidden, "forbidden")
					if p.Retryable || p.Component != ComponentCaller {
						t.Errorf("retryable is %v, component %s", p.Retryable, p.Component)
					}
				}
			case adminOrSelf:
				own++
				for _, name := range []string{"ann", "root", "nobody", "BOB"} { // whether there is such a user is not told
					s.call(o.method, strings.Replace(o.template, "{name}", name, 1), as("bob"), s.bodyFor(o)).problem(http.StatusNotFound, "user_not_found")
				}
			}
		})
	}
	if admins != 12 || own != 2 {
		t.Errorf("%d calls are an admin's and %d one's own, want 12 and 2", admins, own)
	}
	for _, user := range []string{"ann", "bob", "root"} { // nothing has changed: each has still the same password
		s.call(http.MethodGet, "/v1/users/"+user+"/usage", as(user)).is(http.StatusOK)
	}
	s.call(http.MethodGet, "/v1/users/nobody", as("root")).problem(http.StatusNotFound, "user_not_found")
	s.call(http.MethodGet, "/v1/users/bob/usage", as("root")).is(http.StatusOK)
}

// A role that is taken away is gone at once.
func TestIsolation_RoleIsTakenAway(t *testing.T) {
	s := start(t).serve(t)
	s.user("eve", faena.RoleAdmin, 1)
	s.call(http.MethodGet, "/v1/users", as("eve")).is(http.StatusOK)
	s.call(http.MethodPut, "/v1/users/eve", as("root"), body(`{"role":"user"}`)).is(http.StatusOK)
	s.call(http.MethodGet, "/v1/users", as("eve")).problem(http.StatusForbidden, "forbidden")
	s.call(http.MethodDelete, "/v1/users/eve", as("root")).is(http.StatusNoContent)
	s.call(http.MethodGet, "/v1/functions", as("eve")).problem(http.StatusUnauthorized, "unauthenticated")
}

// What a browser sends for another site is refused, although it knows the credentials; a program is no browser.
func TestIsolation_OtherSites(t *testing.T) {
	s := start(t).serve(t)
	s.deploy("ann", "tool")
	for name, with := range map[string][]option{
		"Sec-Fetch-Site": {header("Sec-Fetch-Site", "cross-site")},
		"Origin":         {header("Origin", "https://elsewhere.example")},
	} {
		t.Run(name, func(t *testing.T) {
			s.in(t).call(http.MethodDelete, "/v1/functions/tool", append(with, as("ann"))...).problem(http.StatusForbidden, "cross_origin")
		})
	}
	s.call(http.MethodDelete, "/v1/functions/tool", as("ann"), header("Origin", "http://"+s.address)).is(http.StatusNoContent)
}
