package endtoend_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/endtoend/installation"
)

// noticed is how soon a change at one API holds at the others.
const noticed = time.Second

// testFunctionChanges redeploys a function at one API with another image: a second later the other one runs that.
func (i life) testFunctionChanges(t *testing.T) {
	dan := i.User(t, "dan", 20)
	dan.Deploy(t, "version", nil)
	for n := range 2 {
		dan.At(n).Run(t, "version", "0") // both know the first revision from now on
	}
	var last string
	const rounds = 4
	for n := range rounds {
		here := dan.At(n % 2)
		word := fmt.Sprintf("v%d", n+2)
		image := i.Push(t, "say", word)
		f := here.Deploy(t, "version", func(s *client.Spec) { s.Image = image })
		changed := time.Now()
		for {
			last = here.Other().Queue(t, "version", "x") // the revision is chosen when it is accepted
			a, err := here.Other().Record(t, last)
			if err != nil {
				t.Fatal(err)
			}
			if a.Revision == f.Current {
				break
			}
			if late := time.Since(changed); late > noticed {
				t.Fatalf("%v after revision %d was made at %s the other API runs revision %d", late, f.Current, i.APIs[here.API].Name, a.Revision)
			}
		}
		dan.Is(t, 20*time.Second, last, client.StateSucceeded)
		if got := dan.Result(t, last); got != word+" x" {
			t.Errorf("revision %d writes %q", f.Current, got)
		}
	}
	if _, err := client.Read[struct{}](dan.Delete(t, "/v1/functions/version")); err != nil {
		t.Fatal(err)
	}
	soon(t, "the function is gone at the other API", func() error {
		if a := dan.Other().Activate(t, "version", "x"); a.Status != http.StatusNotFound {
			return fmt.Errorf("it answers %d", a.Status)
		}
		return nil
	})
}

// testUserChanges changes users at one API, and looks at the other.
func (i life) testUserChanges(t *testing.T) {
	eve := i.User(t, "eve", 2)
	eve.DeployHold(t, "eves")
	held := eve.Queue(t, "eves", "one")
	second := eve.Other().Queue(t, "eves", "two")
	if _, err := client.Read[client.Activation](eve.Delete(t, "/v1/activations/"+second)); err != nil {
		t.Fatal(err)
	}
	i.User(t, "eve", 1)
	soon(t, "the lower limit holds at the other API", func() error {
		id := eve.Other().Queue(t, "eves", "three")
		third, err := eve.Other().Record(t, id)
		if err != nil {
			return err
		}
		if _, err := client.Read[client.Activation](eve.Other().Delete(t, "/v1/activations/"+id)); err != nil {
			t.Fatal(err)
		}
		if !third.Backlogged {
			return fmt.Errorf("it is %s, and not in the backlog", third.State)
		}
		return nil
	})
	eve.Finish(t, "eves", held)

	fay := i.User(t, "fay", 2)
	fay.Other().DeployHold(t, "fays")
	fay.Is(t, 20*time.Second, fay.Queue(t, "fays", "one"), client.StateRunning)
	if _, err := client.Read[struct{}](i.Admin(0).Delete(t, "/v1/users/fay")); err != nil {
		t.Fatal(err)
	}
	i.Ledger.Forget("fay")
	soon(t, "the deleted user is not known at the other API", func() error {
		res, err := client.Stream(fay.Other().Get(t, "/v1/functions"))
		if err == nil {
			_ = res.Body.Close()
			return fmt.Errorf("it answers %d", res.StatusCode)
		}
		if f, ok := installation.AsFailure(err); !ok || f.Status != http.StatusUnauthorized {
			return err
		}
		return nil
	})
	if _, err := client.Read[client.User](i.Admin(1).Put(t, "/v1/users/fay", client.UserProfile{})); installation.Reason(err) == "" {
		t.Errorf("the name of a deleted user is given again: %v", err)
	}
}

// soon waits until a change is noticed.
func soon(t *testing.T, what string, cond func() error) {
	t.Helper()
	installation.Within(t, noticed, what, cond)
}
