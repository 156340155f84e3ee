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
	"faena.dev/faena/internal/endtoend/installation"
)

// testCommandLine uses the installation as people do, and changes a password at one API: it holds at the other.
func (i life) testCommandLine(t *testing.T) {
	if r := i.TryFaena(t, "", "doctor"); r.Code != 0 {
		t.Errorf("with all there the doctor ends with %d: %s%s", r.Code, r.Out, r.Errs)
	}
	const old, changed = "a-password-of-meg", "another-one-of-meg"
	i.Faena(t, old, "users", "put", "meg", "--limit", "default=5", "--password-stdin")
	for n := range i.APIs {
		i.Login(t, n, "meg", old)
	}
	i.Faena(t, installation.Puller.Password, "deploy", "greet", "--profile", "meg-0", "--image", i.Image, "--arg", "say", "--arg", "hi", "--memory", "32MiB",
		"--registry-username", installation.Puller.Username, "--registry-password-stdin")
	if got := i.Faena(t, "", "invoke", "greet", "you", "--profile", "meg-1"); got != "hi you" {
		t.Errorf("the result is %q", got)
	}
	id := strings.TrimSpace(i.Faena(t, "", "invoke", "greet", "them", "--async", "--profile", "meg-1"))
	if got := i.Faena(t, "", "result", id, "--wait", "--profile", "meg-0"); got != "hi them" {
		t.Errorf("the result at the other API is %q", got)
	}
	i.Ledger.Note("meg", installation.Answer{Status: http.StatusAccepted, ID: id})
	i.Ledger.Note("meg", installation.Answer{Err: errors.New("its id was not printed")})

	i.Faena(t, changed, "users", "password", "meg", "--password-stdin")
	at := time.Now()
	for {
		asked := time.Now()
		_, err := client.Read[client.FunctionPage](i.As(1, "meg").Get(t, "/v1/functions"))
		if f, ok := installation.AsFailure(err); ok && f.Status == http.StatusUnauthorized {
			break
		}
		if asked.Sub(at) > noticed {
			t.Fatalf("%v after the password was changed the other API answers the old one with %v", asked.Sub(at), err)
		}
	}
	i.Login(t, 1, "meg", changed)
	i.Faena(t, old, "users", "password", "meg", "--password-stdin") // callers of this test know this one
}

// testDoctor sees that the doctor names a NATS server that is away.
func (i life) testDoctor(t *testing.T, away int) {
	address := strings.TrimPrefix(i.NATS.URLs()[away], "tls://")
	r := i.TryFaena(t, "", "doctor", "-o", "json")
	var found []finding
	if err := json.Unmarshal([]byte(r.Out), &found); err != nil {
		t.Fatalf("the doctor writes %q: %v", r.Out, err)
	}
	named := slices.ContainsFunc(found, func(f finding) bool { return !f.OK && strings.Contains(f.Check+f.Detail, address) })
	if r.Code == 0 || !named {
		t.Errorf("without NATS server %s the doctor ends with %d: %s", address, r.Code, r.Out)
	}
}

// finding is a line of the doctor's.
type finding struct {
	Check, Detail string
	OK            bool
}
