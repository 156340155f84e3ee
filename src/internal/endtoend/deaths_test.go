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
	"faena.dev/faena/internal/endtoend/installation"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// victim is an activation whose worker was killed while it ran.
type victim struct {
	installation.Caller
	id     string
	worker *installation.Daemon
	at     time.Time // when
	left   []string  // its containers
}

// killWorker kills a worker of group default while it runs something. It takes half a minute until that is noticed: what comes of it
// is seen by testWorkerKilled.
func (i life) killWorker(t *testing.T) victim {
	ida := i.User(t, "ida", 5)
	ida.DeployHold(t, "idas")
	v := victim{Caller: ida, id: ida.Queue(t, "idas", "mid-run")}
	v.worker = i.Daemon(t, ida.Is(t, 20*time.Second, v.id, client.StateRunning).Worker)
	if v.left = faenatest.Engine(t).Containers(t, "faena.worker="+v.worker.Name); len(v.left) == 0 {
		t.Errorf("%s has no containers", v.worker.Name)
	}
	v.worker.Kill(t)
	v.at = time.Now()
	// For up to 5 s the servers may send it more, which would come again as late.
	consumer, err := i.NATS.JetStream(t).Consumer(t.Context(), "ACTIVATIONS-default", "workers")
	if err != nil {
		t.Fatal(err)
	}
	installation.Within(t, 20*time.Second, "nothing more is sent to the killed worker", func() error {
		info, err := consumer.Info(t.Context())
		if err == nil && info.NumWaiting > installation.Places {
			err = fmt.Errorf("%d are asked for", info.NumWaiting)
		}
		return err
	})
	return v
}

// testWorkerKilled sees to what a killed worker ran, and to the worker when it is back.
func (i life) testWorkerKilled(t *testing.T, v victim) {
	const limit = faena.AckWait + 10*time.Second
	a := v.Is(t, max(time.Until(v.at.Add(limit)), time.Second), v.id, client.StateLost)
	if took := a.EndedAt.Sub(v.at); a.Reason != string(faena.ReasonWorkerLost) || took > limit {
		t.Errorf("%v after its worker was killed it is %s %s", took, a.State, a.Reason)
	}
	t.Logf("lost %v after its worker was killed", a.EndedAt.Sub(v.at).Round(time.Millisecond))
	v.worker.Start(t)
	i.Serves(t, v.worker)
	installation.Within(t, time.Minute, "the containers of the life before are gone", func() error {
		now := faenatest.Engine(t).Containers(t, "faena.worker="+v.worker.Name)
		if slices.ContainsFunc(v.left, func(id string) bool { return slices.Contains(now, id) }) {
			return fmt.Errorf("there are %q", now)
		}
		return nil
	})
	id := v.Other().Queue(t, "idas", "again")
	v.Is(t, 20*time.Second, id, client.StateRunning)
	v.Finish(t, "idas", id)
}

// testLeaderKilled kills the API that leads while clients wait at it: the other one leads, and answers for what the dead one had
// taken.
func (i life) testLeaderKilled(t *testing.T) {
	leader := i.leads(t, 0, 0, "")
	hal := i.User(t, "hal", 5).At(leader)
	hal.DeployHold(t, "hals")
	const waiting = 3
	var wg sync.WaitGroup
	for n := range waiting {
		wg.Go(func() {
			if a := hal.Activate(t, "hals", fmt.Sprint("waits-", n)); a.Err == nil {
				t.Errorf("a call to the API that was killed was answered %d %q", a.Status, a.Body)
			}
		})
	}
	var taken []string
	installation.Within(t, 30*time.Second, "they run", func() error {
		list, err := hal.Other().History(t)
		taken = installation.IDs(list)
		if err == nil && (len(list) != waiting || slices.ContainsFunc(list, func(a client.Activation) bool { return a.State != client.StateRunning })) {
			err = fmt.Errorf("%d are there", len(list))
		}
		return err
	})
	dead := i.APIs[leader]
	dead.Kill(t)
	killed := time.Now()
	wg.Wait()
	hal.Other().Finish(t, "hals", taken...)
	for _, id := range taken {
		if got := hal.Other().Result(t, id); len(got) != len("waits-n") {
			t.Errorf("the result of %s is %q", id, got)
		}
	}
	usage, err := hal.Other().Usage(t)
	if err != nil || usage.Active != 0 {
		t.Errorf("the usage is %+v, %v", usage, err)
	}
	i.leads(t, hal.Other().API, 15*time.Second-time.Since(killed), dead.Name)
	t.Logf("another API led %v after the leader was killed", time.Since(killed).Round(100*time.Millisecond))
	one := hal.Other().Queue(t, "hals", "one-more")
	hal.Other().Finish(t, "hals", one)
	i.countersAre(t, "hal", 0, waiting+1, 0)
	dead.Start(t)
	i.Serves(t, dead)
}

// leads waits until an API says that one leads, and that it is not the one before, and returns which.
func (i life) leads(t *testing.T, api int, limit time.Duration, before string) (leader int) {
	t.Helper()
	installation.Within(t, limit, "another API leads", func() error {
		d, err := client.Read[client.Diagnosis](i.Admin(api).Get(t, "/v1/diagnosis"))
		if err != nil {
			return err
		}
		leader = slices.IndexFunc(i.APIs, func(a *installation.Daemon) bool { return a.Name == d.Leader && a.Name != before })
		if leader < 0 {
			return fmt.Errorf("it is %q", d.Leader)
		}
		return nil
	})
	return leader
}

// testDrain stops what works: an API answers what waits for it, a worker finishes what it runs. The APIs believe the gateway when they
// are back.
func (i life) testDrain(t *testing.T) {
	jan := i.User(t, "jan", 5)
	jan.DeployHold(t, "jans")
	answered := make(chan installation.Answer, 1)
	go func() { answered <- jan.Activate(t, "jans", "waits") }()
	var id string
	installation.Within(t, 20*time.Second, "it runs", func() error {
		list, err := jan.Other().History(t)
		if err == nil && (len(list) != 1 || list[0].State != client.StateRunning) {
			err = errors.New("it does not")
		}
		if err == nil {
			id = list[0].ActivationID
		}
		return err
	})
	told := time.Now()
	i.APIs[0].Terminate(t)
	a := <-answered
	if took := time.Since(told); a.Status != http.StatusAccepted || a.ID != id || a.Header.Get("Location") != "/v1/activations/"+id || took < installation.DrainAfter-100*time.Millisecond {
		t.Errorf("%v after the API was told to stop it answers %d %q: %+v, %v", took, a.Status, a.Header.Get("Location"), a.Problem, a.Err)
	}
	i.APIs[0].Wait(t)

	i.Believe(i.APIs[0])
	i.APIs[0].Start(t)

	running, err := jan.Other().Record(t, id)
	if err != nil {
		t.Fatal(err)
	}
	worker := i.Daemon(t, running.Worker)
	worker.Terminate(t)
	installation.Within(t, 10*time.Second, "it is known that the worker drains", func() error {
		list, err := client.Read[client.WorkerList](i.Admin(1).Get(t, "/v1/workers"))
		if err == nil && !slices.ContainsFunc(list.Items, func(w client.Worker) bool { return w.ID == worker.Name && w.Draining }) {
			err = fmt.Errorf("the workers are %+v", list.Items)
		}
		return err
	})
	i.Serves(t, i.APIs[0])
	i.APIs[1].Stop(t)
	i.Believe(i.APIs[1])
	i.APIs[1].Start(t)
	i.Serves(t, i.APIs[1])
	jan.Finish(t, "jans", id)
	worker.Wait(t)
	if a, err := jan.Record(t, id); err != nil || a.Worker != worker.Name || a.Attempt != 1 {
		t.Errorf("it ended as %+v, %v", a, err)
	}
	worker.Start(t)
	i.Serves(t, worker)
}
