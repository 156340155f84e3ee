package endtoend_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/endtoend/installation"
	"faena.dev/faena/internal/faena"
)

const second = "gpu" // the name of the second group

// testGroup makes a second group as docs/operations.md says, uses it, and removes it.
func (i life) testGroup(t *testing.T) {
	keys := i.Keygen(t, "faena-worker", second)
	g, err := client.Read[client.Group](i.Admin(0).Do(t, http.MethodPut, "/v1/groups/"+second, []byte(keys.Text), "Content-Type", "application/json"))
	if err != nil || g.State != client.GroupStatePending {
		t.Fatalf("the group is %+v, %v", g, err)
	}
	gil := i.Profile(t, 1, "gil", map[string]int{faena.DefaultGroup: 5, second: 5})
	inGroup := func(s *client.Spec) { s.Group = second }
	_, err = client.Read[client.Function](gil.Put(t, "/v1/functions/render", gil.Spec(inGroup, "say", "rendered")))
	if f, ok := installation.AsFailure(err); !ok || f.Status != http.StatusUnprocessableEntity || !strings.Contains(fmt.Sprint(f.Errors), "pending") {
		t.Errorf("a function in a group that is pending gives %v", err)
	}
	i.NATS.Authorize(t, []byte(i.Run(t, "faena-api", "nats-config", "--socket", i.Socket(i.APIs[1].Name))))
	worker := i.NewWorker("3", second, second)
	worker.Start(t)
	i.Serves(t, worker)
	for n := range i.APIs {
		i.GroupIs(t, n, second, client.GroupStateReady)
	}

	gil.Deploy(t, "render", inGroup, "say", "rendered")
	gil.Other().Deploy(t, "plain", nil, "say", "plain")
	for n := range 4 {
		id, result := gil.At(n%2).Run(t, "render", "x")
		if a, err := gil.Record(t, id); err != nil || a.Worker != worker.Name || a.Group != second || result != "rendered x" {
			t.Errorf("in group %s it is %+v, %v with result %q", second, a, err, result)
		}
		id, _ = gil.At(n%2).Run(t, "plain", "x")
		if a, err := gil.Record(t, id); err != nil || a.Worker == worker.Name || a.Group != faena.DefaultGroup {
			t.Errorf("in the default group it is %+v, %v", a, err)
		}
	}
	_, err = client.Read[client.Function](i.As(0, "ann").Put(t, "/v1/functions/render", gil.Spec(inGroup, "say", "x")))
	if f, ok := installation.AsFailure(err); !ok || f.Status != http.StatusUnprocessableEntity {
		t.Errorf("who was not granted the group gets %v", err)
	}
	i.testIntruder(t, worker, gil)
	i.removeGroup(t, worker, gil)
}

// testIntruder starts a worker that says it is of the second group and has the keys of the default group: it can take nothing.
func (i life) testIntruder(t *testing.T, worker *installation.Daemon, gil installation.Caller) {
	intruder := i.NewWorker("4", second, faena.DefaultGroup)
	intruder.Start(t)
	worker.Stop(t)
	waiting := gil.Queue(t, "render", "y")
	installation.Within(t, 20*time.Second, "the intruder says what it lacks", func() error {
		status, r, err := installation.Readiness(t, intruder)
		if err == nil && (status != http.StatusServiceUnavailable || !contains(r.Missing, "FAENA_NATS_NKEY_FILE")) {
			err = fmt.Errorf("it answers %d: %q", status, r.Missing)
		}
		return err
	})
	if a, err := gil.Record(t, waiting); err != nil || a.State != client.StateQueued {
		t.Errorf("meanwhile what waits for the group is %s, %v", a.State, err)
	}
	intruder.Stop(t)
	worker.Start(t)
	if a := gil.Is(t, 30*time.Second, waiting, client.StateSucceeded); a.Worker != worker.Name {
		t.Errorf("it ran on %s", a.Worker)
	}
}

// removeGroup removes the group, once nobody uses it.
func (i life) removeGroup(t *testing.T, worker *installation.Daemon, gil installation.Caller) {
	worker.Terminate(t)
	remove := func(api int) error {
		_, err := client.Read[struct{}](i.Admin(api).Delete(t, "/v1/groups/"+second))
		return err
	}
	for _, user := range []string{"function render", "user gil"} {
		err := remove(0)
		if f, ok := installation.AsFailure(err); !ok || f.Status != http.StatusConflict || f.Reason != "group_in_use" || !strings.Contains(f.Detail, "gil") {
			t.Errorf("while it is used by %s its removal gives %v", user, err)
		}
		if user == "user gil" {
			i.Profile(t, 0, "gil", map[string]int{faena.DefaultGroup: 5})
		} else if _, err := client.Read[struct{}](gil.Delete(t, "/v1/functions/render")); err != nil {
			t.Fatal(err)
		}
	}
	worker.Wait(t)
	if err := remove(0); err != nil {
		t.Fatal(err)
	}
	for n := range i.APIs {
		list, err := client.Read[client.GroupList](i.Admin(n).Get(t, "/v1/groups"))
		if err != nil || slices.ContainsFunc(list.Items, func(g client.Group) bool { return g.Name == second }) {
			t.Errorf("%s lists %+v, %v", i.APIs[n].Name, list, err)
		}
	}
	names := i.NATS.JetStream(t).StreamNames(t.Context())
	for name := range names.Name() {
		if strings.HasSuffix(name, "-"+second) {
			t.Errorf("stream %s is left", name)
		}
	}
	if names.Err() != nil {
		t.Error(names.Err())
	}
}
