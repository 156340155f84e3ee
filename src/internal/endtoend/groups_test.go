package endtoend_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
)

const second = "gpu" // the name of the second group

// testGroup makes a second group as docs/operations.md says, uses it, and removes it.
func (i *installation) testGroup(t *testing.T) {
	keys := i.keygen(t, "faena-worker", second)
	g, err := client.Read[client.Group](i.admin(0).do(t, http.MethodPut, "/v1/groups/"+second, []byte(keys.text), "Content-Type", "application/json"))
	if err != nil || g.State != client.GroupStatePending {
		t.Fatalf("the group is %+v, %v", g, err)
	}
	gil := i.profile(t, 1, "gil", map[string]int{faena.DefaultGroup: 5, second: 5})
	inGroup := func(s *client.Spec) { s.Group = second }
	_, err = client.Read[client.Function](gil.put(t, "/v1/functions/render", gil.spec(inGroup, "say", "rendered")))
	if f, ok := asFailure(err); !ok || f.Status != http.StatusUnprocessableEntity || !strings.Contains(fmt.Sprint(f.Errors), "pending") {
		t.Errorf("a function in a group that is pending gives %v", err)
	}
	i.nats.Authorize(t, []byte(i.run(t, "faena-api", "nats-config", "--socket", i.socket(i.apis[1].name))))
	worker := i.newWorker("3", second, second)
	worker.start(t)
	i.serves(t, worker)
	for n := range i.apis {
		i.groupIs(t, n, second, client.GroupStateReady)
	}

	gil.deploy(t, "render", inGroup, "say", "rendered")
	gil.other().deploy(t, "plain", nil, "say", "plain")
	for n := range 4 {
		id, result := gil.at(n%2).run(t, "render", "x")
		if a, err := gil.record(t, id); err != nil || a.Worker != worker.name || a.Group != second || result != "rendered x" {
			t.Errorf("in group %s it is %+v, %v with result %q", second, a, err, result)
		}
		id, _ = gil.at(n%2).run(t, "plain", "x")
		if a, err := gil.record(t, id); err != nil || a.Worker == worker.name || a.Group != faena.DefaultGroup {
			t.Errorf("in the default group it is %+v, %v", a, err)
		}
	}
	_, err = client.Read[client.Function](i.as(0, "ann").put(t, "/v1/functions/render", gil.spec(inGroup, "say", "x")))
	if f, ok := asFailure(err); !ok || f.Status != http.StatusUnprocessableEntity {
		t.Errorf("who was not granted the group gets %v", err)
	}
	i.testIntruder(t, worker, gil)
	i.removeGroup(t, worker, gil)
}

// testIntruder starts a worker that says it is of the second group and has the keys of the default group: it can take nothing.
func (i *installation) testIntruder(t *testing.T, worker *daemon, gil caller) {
	intruder := i.newWorker("4", second, faena.DefaultGroup)
	intruder.start(t)
	worker.stop(t)
	waiting := gil.queue(t, "render", "y")
	within(t, 20*time.Second, "the intruder says what it lacks", func() error {
		status, r, err := readiness(t, intruder)
		if err == nil && (status != http.StatusServiceUnavailable || !contains(r.Missing, "FAENA_NATS_NKEY_FILE")) {
			err = fmt.Errorf("it answers %d: %q", status, r.Missing)
		}
		return err
	})
	if a, err := gil.record(t, waiting); err != nil || a.State != client.StateQueued {
		t.Errorf("meanwhile what waits for the group is %s, %v", a.State, err)
	}
	intruder.stop(t)
	worker.start(t)
	if a := gil.is(t, 30*time.Second, waiting, client.StateSucceeded); a.Worker != worker.name {
		t.Errorf("it ran on %s", a.Worker)
	}
}

// removeGroup removes the group, once nobody uses it.
func (i *installation) removeGroup(t *testing.T, worker *daemon, gil caller) {
	worker.terminate(t)
	remove := func(api int) error {
		_, err := client.Read[struct{}](i.admin(api).delete(t, "/v1/groups/"+second))
		return err
	}
	for _, user := range []string{"function render", "user gil"} {
		err := remove(0)
		if f, ok := asFailure(err); !ok || f.Status != http.StatusConflict || f.Reason != "group_in_use" || !strings.Contains(f.Detail, "gil") {
			t.Errorf("while it is used by %s its removal gives %v", user, err)
		}
		if user == "user gil" {
			i.profile(t, 0, "gil", map[string]int{faena.DefaultGroup: 5})
		} else if _, err := client.Read[struct{}](gil.delete(t, "/v1/functions/render")); err != nil {
			t.Fatal(err)
		}
	}
	worker.wait(t)
	if err := remove(0); err != nil {
		t.Fatal(err)
	}
	for n := range i.apis {
		list, err := client.Read[client.GroupList](i.admin(n).get(t, "/v1/groups"))
		if err != nil || slices.ContainsFunc(list.Items, func(g client.Group) bool { return g.Name == second }) {
			t.Errorf("%s lists %+v, %v", i.apis[n].name, list, err)
		}
	}
	names := i.nats.JetStream(t).StreamNames(t.Context())
	for name := range names.Name() {
		if strings.HasSuffix(name, "-"+second) {
			t.Errorf("stream %s is left", name)
		}
	}
	if names.Err() != nil {
		t.Error(names.Err())
	}
}
