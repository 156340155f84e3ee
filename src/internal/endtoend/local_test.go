package endtoend_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
)

// testCommandLine uses the installation as people do, and changes a password at one API: it holds at the other.
func (i *installation) testCommandLine(t *testing.T) {
	if r := i.tryFaena(t, "", "doctor"); r.code != 0 {
		t.Errorf("with all there the doctor ends with %d: %s%s", r.code, r.out, r.errs)
	}
	const old, changed = "a-password-of-meg", "another-one-of-meg"
	i.faena(t, old, "users", "put", "meg", "--limit", "default=5", "--password-stdin")
	for n := range i.apis {
		i.login(t, n, "meg", old)
	}
	i.faena(t, puller.Password, "deploy", "greet", "--profile", "meg-0", "--image", i.image, "--arg", "say", "--arg", "hi", "--memory", "32MiB",
		"--registry-username", puller.Username, "--registry-password-stdin")
	if got := i.faena(t, "", "invoke", "greet", "you", "--profile", "meg-1"); got != "hi you" {
		t.Errorf("the result is %q", got)
	}
	id := strings.TrimSpace(i.faena(t, "", "invoke", "greet", "them", "--async", "--profile", "meg-1"))
	if got := i.faena(t, "", "result", id, "--wait", "--profile", "meg-0"); got != "hi them" {
		t.Errorf("the result at the other API is %q", got)
	}
	i.ledger.note("meg", answer{status: http.StatusAccepted, id: id})
	i.ledger.note("meg", answer{err: errors.New("its id was not printed")})

	i.faena(t, changed, "users", "password", "meg", "--password-stdin")
	at := time.Now()
	for {
		asked := time.Now()
		_, err := client.Read[client.FunctionPage](i.as(1, "meg").get(t, "/v1/functions"))
		if f, ok := asFailure(err); ok && f.Status == http.StatusUnauthorized {
			break
		}
		if asked.Sub(at) > noticed {
			t.Fatalf("%v after the password was changed the other API answers the old one with %v", asked.Sub(at), err)
		}
	}
	i.login(t, 1, "meg", changed)
	i.faena(t, old, "users", "password", "meg", "--password-stdin") // callers of this test know this one
}

// testDoctor sees that the doctor names a NATS server that is away.
func (i *installation) testDoctor(t *testing.T, away int) {
	address := strings.TrimPrefix(i.nats.URLs()[away], "tls://")
	r := i.tryFaena(t, "", "doctor", "-o", "json")
	var found []finding
	if err := json.Unmarshal([]byte(r.out), &found); err != nil {
		t.Fatalf("the doctor writes %q: %v", r.out, err)
	}
	named := slices.ContainsFunc(found, func(f finding) bool { return !f.OK && strings.Contains(f.Check+f.Detail, address) })
	if r.code == 0 || !named {
		t.Errorf("without NATS server %s the doctor ends with %d: %s", address, r.code, r.out)
	}
}

// finding is a line of the doctor's.
type finding struct {
	Check, Detail string
	OK            bool
}
