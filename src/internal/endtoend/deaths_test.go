package endtoend_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// victim is an activation whose worker was killed while it ran.
type victim struct {
	caller
	id     string
	worker *daemon
	at     time.Time // when
	left   []string  // its containers
}

// killWorker kills a worker of group default while it runs something. It takes half a minute until that is noticed: what comes of it
// is seen by testWorkerKilled.
func (i *installation) killWorker(t *testing.T) victim {
	ida := i.user(t, "ida", 5)
	ida.deployHold(t, "idas")
	v := victim{caller: ida, id: ida.queue(t, "idas", "mid-run")}
	v.worker = i.daemon(t, ida.is(t, 20*time.Second, v.id, client.StateRunning).Worker)
	if v.left = faenatest.Engine(t).Containers(t, "faena.worker="+v.worker.name); len(v.left) == 0 {
		t.Errorf("%s has no containers", v.worker.name)
	}
	v.worker.kill(t)
	v.at = time.Now()
	// For up to 5 s the servers may send it more, which would come again as late.
	consumer, err := i.nats.JetStream(t).Consumer(t.Context(), "ACTIVATIONS-default", "workers")
	if err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "nothing more is sent to the killed worker", func() error {
		info, err := consumer.Info(t.Context())
		if err == nil && info.NumWaiting > places {
			err = fmt.Errorf("%d are asked for", info.NumWaiting)
		}
		return err
	})
	return v
}

// daemon finds a daemon by its name.
func (i *installation) daemon(t *testing.T, name string) *daemon {
	t.Helper()
	at := slices.IndexFunc(i.all, func(d *daemon) bool { return d.name == name })
	if at < 0 {
		t.Fatalf("there is no %q", name)
	}
	return i.all[at]
}

// testWorkerKilled sees to what a killed worker ran, and to the worker when it is back.
func (i *installation) testWorkerKilled(t *testing.T, v victim) {
	const limit = faena.AckWait + 10*time.Second
	a := v.is(t, max(time.Until(v.at.Add(limit)), time.Second), v.id, client.StateLost)
	if took := a.EndedAt.Sub(v.at); a.Reason != string(faena.ReasonWorkerLost) || took > limit {
		t.Errorf("%v after its worker was killed it is %s %s", took, a.State, a.Reason)
	}
	t.Logf("lost %v after its worker was killed", a.EndedAt.Sub(v.at).Round(time.Millisecond))
	v.worker.start(t)
	i.serves(t, v.worker)
	within(t, time.Minute, "the containers of the life before are gone", func() error {
		now := faenatest.Engine(t).Containers(t, "faena.worker="+v.worker.name)
		if slices.ContainsFunc(v.left, func(id string) bool { return slices.Contains(now, id) }) {
			return fmt.Errorf("there are %q", now)
		}
		return nil
	})
	id := v.other().queue(t, "idas", "again")
	v.is(t, 20*time.Second, id, client.StateRunning)
	v.finish(t, "idas", id)
}

// testLeaderKilled kills the API that leads while clients wait at it: the other one leads, and answers for what the dead one had
// taken.
func (i *installation) testLeaderKilled(t *testing.T) {
	leader := i.leads(t, 0, 0, "")
	hal := i.user(t, "hal", 5).at(leader)
	hal.deployHold(t, "hals")
	const waiting = 3
	var wg sync.WaitGroup
	for n := range waiting {
		wg.Go(func() {
			if a := hal.activate(t, "hals", fmt.Sprint("waits-", n)); a.err == nil {
				t.Errorf("a call to the API that was killed was answered %d %q", a.status, a.body)
			}
		})
	}
	var taken []string
	within(t, 30*time.Second, "they run", func() error {
		list, err := hal.other().history(t)
		taken = ids(list)
		if err == nil && (len(list) != waiting || slices.ContainsFunc(list, func(a client.Activation) bool { return a.State != client.StateRunning })) {
			err = fmt.Errorf("%d are there", len(list))
		}
		return err
	})
	dead := i.apis[leader]
	dead.kill(t)
	killed := time.Now()
	wg.Wait()
	hal.other().finish(t, "hals", taken...)
	for _, id := range taken {
		if got := hal.other().result(t, id); len(got) != len("waits-n") {
			t.Errorf("the result of %s is %q", id, got)
		}
	}
	usage, err := hal.other().usage(t)
	if err != nil || usage.Active != 0 {
		t.Errorf("the usage is %+v, %v", usage, err)
	}
	i.leads(t, hal.other().api, 15*time.Second-time.Since(killed), dead.name)
	t.Logf("another API led %v after the leader was killed", time.Since(killed).Round(100*time.Millisecond))
	one := hal.other().queue(t, "hals", "one-more")
	hal.other().finish(t, "hals", one)
	i.countersAre(t, "hal", 0, waiting+1, 0)
	dead.start(t)
	i.serves(t, dead)
}

// leads waits until an API says that one leads, and that it is not the one before, and returns which.
func (i *installation) leads(t *testing.T, api int, limit time.Duration, before string) (leader int) {
	t.Helper()
	within(t, limit, "another API leads", func() error {
		d, err := client.Read[client.Diagnosis](i.admin(api).get(t, "/v1/diagnosis"))
		if err != nil {
			return err
		}
		leader = slices.IndexFunc(i.apis, func(a *daemon) bool { return a.name == d.Leader && a.name != before })
		if leader < 0 {
			return fmt.Errorf("it is %q", d.Leader)
		}
		return nil
	})
	return leader
}

// testDrain stops what works: an API answers what waits for it, a worker finishes what it runs. The APIs believe the gateway when they
// are back.
func (i *installation) testDrain(t *testing.T) {
	jan := i.user(t, "jan", 5)
	jan.deployHold(t, "jans")
	answered := make(chan answer, 1)
	go func() { answered <- jan.activate(t, "jans", "waits") }()
	var id string
	within(t, 20*time.Second, "it runs", func() error {
		list, err := jan.other().history(t)
		if err == nil && (len(list) != 1 || list[0].State != client.StateRunning) {
			err = errors.New("it does not")
		}
		if err == nil {
			id = list[0].ActivationID
		}
		return err
	})
	told := time.Now()
	i.apis[0].terminate(t)
	a := <-answered
	if took := time.Since(told); a.status != http.StatusAccepted || a.id != id || a.header.Get("Location") != "/v1/activations/"+id || took < drainAfter-100*time.Millisecond {
		t.Errorf("%v after the API was told to stop it answers %d %q: %+v, %v", took, a.status, a.header.Get("Location"), a.problem, a.err)
	}
	i.apis[0].wait(t)

	i.believe(i.apis[0])
	i.apis[0].start(t)

	running, err := jan.other().record(t, id)
	if err != nil {
		t.Fatal(err)
	}
	worker := i.daemon(t, running.Worker)
	worker.terminate(t)
	within(t, 10*time.Second, "it is known that the worker drains", func() error {
		list, err := client.Read[client.WorkerList](i.admin(1).get(t, "/v1/workers"))
		if err == nil && !slices.ContainsFunc(list.Items, func(w client.Worker) bool { return w.ID == worker.name && w.Draining }) {
			err = fmt.Errorf("the workers are %+v", list.Items)
		}
		return err
	})
	i.serves(t, i.apis[0])
	i.apis[1].stop(t)
	i.believe(i.apis[1])
	i.apis[1].start(t)
	i.serves(t, i.apis[1])
	jan.finish(t, "jans", id)
	worker.wait(t)
	if a, err := jan.record(t, id); err != nil || a.Worker != worker.name || a.Attempt != 1 {
		t.Errorf("it ended as %+v, %v", a, err)
	}
	worker.start(t)
	i.serves(t, worker)
}
