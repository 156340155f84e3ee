package endtoend_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
)

// noticed is how soon a change at one API holds at the others.
const noticed = time.Second

// testFunctionChanges redeploys a function at one API with another image: a second later the other one runs that.
func (i *installation) testFunctionChanges(t *testing.T) {
	dan := i.user(t, "dan", 20)
	dan.deploy(t, "version", nil)
	for n := range 2 {
		dan.at(n).run(t, "version", "0") // both know the first revision from now on
	}
	var last string
	const rounds = 4
	for n := range rounds {
		here := dan.at(n % 2)
		word := fmt.Sprintf("v%d", n+2)
		image := i.push(t, "say", word)
		f := here.deploy(t, "version", func(s *client.Spec) { s.Image = image })
		changed := time.Now()
		for {
			last = here.other().queue(t, "version", "x") // the revision is chosen when it is accepted
			a, err := here.other().record(t, last)
			if err != nil {
				t.Fatal(err)
			}
			if a.Revision == f.Current {
				break
			}
			if late := time.Since(changed); late > noticed {
				t.Fatalf("%v after revision %d was made at %s the other API runs revision %d", late, f.Current, i.apis[here.api].name, a.Revision)
			}
		}
		dan.is(t, 20*time.Second, last, client.StateSucceeded)
		if got := dan.result(t, last); got != word+" x" {
			t.Errorf("revision %d writes %q", f.Current, got)
		}
	}
	if _, err := client.Read[struct{}](dan.delete(t, "/v1/functions/version")); err != nil {
		t.Fatal(err)
	}
	soon(t, "the function is gone at the other API", func() error {
		if a := dan.other().activate(t, "version", "x"); a.status != http.StatusNotFound {
			return fmt.Errorf("it answers %d", a.status)
		}
		return nil
	})
}

// testUserChanges changes users at one API, and looks at the other.
func (i *installation) testUserChanges(t *testing.T) {
	eve := i.user(t, "eve", 2)
	eve.deployHold(t, "eves")
	held := eve.queue(t, "eves", "one")
	second := eve.other().queue(t, "eves", "two")
	if _, err := client.Read[client.Activation](eve.delete(t, "/v1/activations/"+second)); err != nil {
		t.Fatal(err)
	}
	i.user(t, "eve", 1)
	soon(t, "the lower limit holds at the other API", func() error {
		a := eve.other().activate(t, "eves", "three", "Prefer", "respond-async")
		if a.status == http.StatusAccepted {
			if _, err := client.Read[client.Activation](eve.other().delete(t, "/v1/activations/"+a.id)); err != nil {
				t.Fatal(err)
			}
		}
		if a.status != http.StatusTooManyRequests {
			return fmt.Errorf("it answers %d", a.status)
		}
		return nil
	})
	eve.finish(t, "eves", held)

	fay := i.user(t, "fay", 2)
	fay.other().deployHold(t, "fays")
	fay.is(t, 20*time.Second, fay.queue(t, "fays", "one"), client.StateRunning)
	if _, err := client.Read[struct{}](i.admin(0).delete(t, "/v1/users/fay")); err != nil {
		t.Fatal(err)
	}
	i.ledger.forget("fay")
	soon(t, "the deleted user is not known at the other API", func() error {
		res, err := client.Stream(fay.other().get(t, "/v1/functions"))
		if err == nil {
			_ = res.Body.Close()
			return fmt.Errorf("it answers %d", res.StatusCode)
		}
		if f, ok := asFailure(err); !ok || f.Status != http.StatusUnauthorized {
			return err
		}
		return nil
	})
	if _, err := client.Read[client.User](i.admin(1).put(t, "/v1/users/fay", client.UserProfile{})); reason(err) == "" {
		t.Errorf("the name of a deleted user is given again: %v", err)
	}
}

// soon waits until a change is noticed.
func soon(t *testing.T, what string, cond func() error) {
	t.Helper()
	within(t, noticed, what, cond)
}
