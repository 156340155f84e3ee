package kills_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/endtoend/installation"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natstest"
)

var every = flag.Bool("every", false, "go through the whole table, which takes minutes")

const (
	// most is the number of lanes where all cases are gone through: groups in which workers are killed, side by side, each with one worker.
	most = 3
	// idle is the group whose worker is stopped while calls wait.
	idle = "idle"

	// back is how soon all is settled that a killed worker held which is started again at once, and alone where nobody starts it.
	back  = 15 * time.Second
	alone = faena.AckWait + 10*time.Second
	// gone is how long containers of a killed worker may be there after it is back.
	gone = time.Minute
)

// table is the installation with all that its cases share. Cases may run at once: each has a user of its own.
type table struct {
	*installation.Installation
	t     *testing.T // that it lives as long as
	image string
	runs  *runs
	relay *relay  // of the victim, from its second life on
	late  []*call // of the lane of APIs: what is looked at when the others are over
	users atomic.Int64

	mu   sync.Mutex
	ends []end
	left map[string]string // containers of killed workers, and whose
}

// end is how an activation has ended.
type end struct {
	call *call
	last client.Activation
}

func lanes() int {
	if *every {
		return most
	}
	return 1
}

func lane(n int) string { return fmt.Sprint("lane", n+1) }

func build(t *testing.T) *table {
	x := &table{t: t, runs: listen(t), left: make(map[string]string)}
	var groups []string
	for n := range lanes() {
		groups = append(groups, lane(n))
	}
	x.Installation = installation.Install(t, installation.Options{Failpoints: true, Places: 4, Workers: min(lanes(), 2), Groups: append(groups, idle),
		API:    []string{"FAENA_GROUP_MAX_STORE=256MiB", "FAENA_ASYNC_START_WITHIN=1h", "FAENA_RETENTION=3h"},
		Worker: []string{"FAENA_WORKER_ALLOW=" + strings.Join(gateways(x.runs.port), ",")},
		Servers: func(i *installation.Installation, authorization []byte) installation.Servers {
			return natstest.Start(t, natstest.Options{TLS: true, CA: i.CA, Authorization: authorization})
		}})
	program, err := os.ReadFile(faenatest.CProgram(t, filepath.Join("testdata", "reporter.c")))
	if err != nil {
		t.Fatal(err)
	}
	image := faenatest.Image(t, faenatest.ImageSpec{Bare: true, Entrypoint: []string{installation.FunctionPath},
		Files: []faenatest.File{{Path: installation.FunctionPath, Data: program}}})
	x.image = faenatest.Push(t, x.Registry, "reporter", image, &installation.Puller)
	for n, setting := range x.APIs[victim].Env {
		if address, ok := strings.CutPrefix(setting, "FAENA_NATS_URLS=tls://"); ok {
			x.relay = startRelay(t, address)
			x.APIs[victim].Env[n] = "FAENA_NATS_URLS=tls://" + x.relay.address
		}
	}
	for _, d := range x.All {
		x.Serves(t, d)
	}
	return x
}

// gateways are where the ledger, which is on this host, may be reached by containers: the addresses that the engine may give the
// host on their bridge, out of its own pools.
func gateways(port int) (all []string) {
	for n := 17; n < 32; n++ {
		all = append(all, fmt.Sprintf("172.%d.0.1:%d", n, port))
	}
	for n := 0; n < 256; n += 16 {
		all = append(all, fmt.Sprintf("192.168.%d.1:%d", n, port))
	}
	return all
}

// user makes a user with functions in a group, at an API that is not killed meanwhile.
func (x *table) user(t testing.TB, group string, limit int, functions ...string) installation.Caller {
	t.Helper()
	who := x.As(1, fmt.Sprint("user-", x.users.Add(1)))
	x.change(t, who, who.User+" is made", func(who installation.Caller) error {
		profile := client.UserProfile{Groups: map[string]int{group: limit}, Password: who.Password()}
		_, err := client.Read[client.User](x.Admin(who.API).Put(t, "/v1/users/"+who.User, profile))
		return err
	})
	for _, f := range functions {
		spec := who.Spec(func(s *client.Spec) {
			s.Image, s.Group, s.Input, s.TimeoutMs = x.image, group, client.InputStdin, (2 * time.Minute).Milliseconds()
			switch f {
			case twice:
				s.Retries, s.RetryDelayMs = 1, 100
			case later:
				s.Retries, s.RetryDelayMs, s.RetryMaxDelayMs = 1, 61_000, 61_000
			}
		}, strconv.Itoa(x.runs.port), "stdin")
		x.change(t, who, f+" is deployed", func(who installation.Caller) error {
			_, err := client.Read[client.Function](who.Put(t, "/v1/functions/"+f, spec))
			return err
		})
	}
	return who
}

// change makes a change at whichever API lives.
func (x *table) change(t testing.TB, who installation.Caller, what string, fn func(installation.Caller) error) {
	t.Helper()
	installation.Within(t, 30*time.Second, what, func() error {
		_, err := ask(who, func(who installation.Caller) (struct{}, error) { return struct{}{}, fn(who) })
		return err
	})
}

// worker is the one of a lane.
func (x *table) worker(t testing.TB, group string) *installation.Daemon {
	t.Helper()
	return x.Daemon(t, x.WorkerID(group))
}

// forget is for what was removed from the history.
func (x *table) forget(c *call) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ends = slices.DeleteFunc(x.ends, func(e end) bool { return e.call == c })
}

// note takes down the containers that a killed worker has left.
func (x *table) note(t testing.TB, d *installation.Daemon) {
	t.Helper()
	left := faenatest.Engine(t).Containers(t, "faena.worker="+d.Name)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range left {
		x.left[id] = d.Name
	}
}

func TestKills(t *testing.T) {
	x := build(t)
	t.Run("Cases", func(t *testing.T) {
		for n := range lanes() {
			t.Run(lane(n), func(t *testing.T) { t.Parallel(); x.testWorkers(t, n) })
		}
		t.Run("apis", func(t *testing.T) { t.Parallel(); x.testAPIs(t) })
	})
	x.finish(t)
}

// finish sees that nothing has changed or is left, once all cases are over.
func (x *table) finish(t *testing.T) {
	t.Run("Finish", func(t *testing.T) {
		for _, e := range x.ends {
			if n := len(x.runs.list(e.call.name)); n > e.call.most() {
				t.Errorf("%s ran %d times", e.call.name, n)
			}
			for n := range x.APIs {
				if e.last.State == "" {
					continue
				}
				a, err := e.call.who.At(n).Record(t, e.last.ActivationID)
				if err != nil || a.State != e.last.State || a.Reason != e.last.Reason || a.Attempt != e.last.Attempt {
					t.Errorf("%s has ended as %s %s, attempt %d, and is %s %s, attempt %d, %v", e.call.name, e.last.State, e.last.Reason, e.last.Attempt,
						a.State, a.Reason, a.Attempt, err)
				}
			}
		}
		installation.Within(t, gone, "the containers of killed workers are gone", func() error {
			for _, worker := range slices.Compact(slices.Sorted(maps.Values(x.left))) {
				for _, id := range faenatest.Engine(t).Containers(t, "faena.worker="+worker) {
					if x.left[id] != "" {
						return fmt.Errorf("%s of %s is there", id, worker)
					}
				}
			}
			return nil
		})
		x.letters(t)
		x.Count(t)
	})
}

// letters sees that there is a dead letter of each asynchronous activation which its worker has lost or which has used up its
// attempts, and of nothing else.
func (x *table) letters(t *testing.T) {
	t.Helper()
	want, users := make(map[string]string), make(map[string]installation.Caller)
	for _, e := range x.ends {
		users[e.call.who.User] = e.call.who
		died := e.last.State == client.StateLost && e.last.StartedAt != nil || e.last.State == client.StateFailed
		if e.call.async && died && !e.call.redriven {
			want[e.last.ActivationID] = e.call.name
		}
	}
	for _, who := range users {
		page, err := client.Read[client.DeadLetterPage](who.Get(t, "/v1/deadletters?limit=100"))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range page.Items {
			if want[l.ActivationID] == "" {
				t.Errorf("there is a dead letter that nobody expects: %+v", l)
			}
			delete(want, l.ActivationID)
		}
	}
	if len(want) > 0 {
		t.Errorf("these have no dead letter: %q", want)
	}
}

func TestMain(m *testing.M) { os.Exit(faenatest.Run(m, most+1)) }
