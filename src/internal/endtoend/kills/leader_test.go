package kills_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/endtoend/installation"
	"faena.dev/faena/internal/faena"
)

// leads is how long it takes until another API leads where the leader is killed, and has looked round.
const leads = faena.LeaseTTL + 10*time.Second

// armBoth arms a failpoint of the leader, whichever API that is.
func (x *table) armBoth(t *testing.T, point string) {
	t.Helper()
	for _, d := range x.APIs {
		d.Tell(t, "arm %s=kill", point)
	}
}

// leaderDied waits until an API has killed itself, and starts it again.
func (x *table) leaderDied(t *testing.T, within time.Duration) {
	t.Helper()
	dead := installation.FirstDied(t, within, x.APIs...)
	for _, d := range x.APIs {
		if d != dead {
			d.Tell(t, "clear")
		}
	}
	x.revive(t, dead)
}

// testRelease kills the leader while it releases what waits for its user's only slot: it runs once.
func (x *table) testRelease(t *testing.T, point string) {
	who := x.user(t, faena.DefaultGroup, 1, plain)
	first := x.start(t, call{who: who, function: plain, async: true, held: true})
	x.runsOnce(t, first)
	waits := x.start(t, call{who: who, function: plain, async: true})
	waits.wait(t)
	after := x.start(t, call{who: who, function: plain, async: true})
	after.wait(t)
	x.armBoth(t, point)
	first.release()
	x.leaderDied(t, leads)
	x.settled(t, leads+tells, first, waits, after)
}

// testCounter kills the leader between two counters of a user.
func (x *table) testCounter(t *testing.T, point string) {
	who := x.user(t, faena.DefaultGroup, 5, plain)
	x.armBoth(t, point)
	c := x.start(t, call{who: who, function: plain, async: true})
	x.leaderDied(t, leads)
	x.settled(t, tells, c)
	kv, err := x.JetStream(t).KeyValue(t.Context(), "users")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"active": "0", "completed": "1", "failed": "0"} {
		installation.Within(t, leads+time.Minute, "the counter "+name+" is right", func() error {
			e, err := kv.Get(t.Context(), who.User+".activations."+name)
			if err == nil && string(e.Value()) != want {
				err = fmt.Errorf("it is %s", e.Value())
			}
			return err
		})
	}
}

// testMessageBack has the queue bring back a message whose activation has ended, in a group without a worker: the leader removes it,
// and is killed then.
func (x *table) testMessageBack(t *testing.T, point string) {
	who := x.user(t, idle, 1, plain)
	x.worker(t, idle).Stop(t)
	c, message := x.cancelled(t, who)
	x.armBoth(t, point)
	x.bringBack(t, message)
	x.leaderDied(t, time.Minute+leads) // the leader looks round the less often the longer that takes
	x.free(t, c)
	x.worker(t, idle).Start(t)
}

// testLost kills the leader when it has settled what has no message: testAPI has left one behind, a minute ago.
func (x *table) testLost(t *testing.T, point string) {
	who := x.user(t, faena.DefaultGroup, 5, plain).At(victim)
	x.APIs[victim].Tell(t, "arm api/record-created=kill")
	c := x.start(t, call{who: who, function: plain, async: true, keyless: true, mayLose: true, unstarted: true})
	x.revive(t, x.died(t, victim))
	c.wait(t)
	x.armBoth(t, point)
	x.leaderDied(t, time.Minute+leads)
	installation.Within(t, time.Minute+leads, "what has no message is lost", func() error {
		list, err := who.At(other).History(t)
		if err == nil && (len(list) != 1 || list[0].State != client.StateLost) {
			err = fmt.Errorf("there are %+v", list)
		}
		return err
	})
}

// testLease kills the leader, and the other API when it has just become it.
func (x *table) testLease(t *testing.T, point string) {
	leader := x.leader(t)
	next := x.APIs[1-leader]
	next.Tell(t, "arm %s=kill", point)
	x.APIs[leader].Kill(t)
	next.Died(t, leads)
	x.revive(t, x.APIs[leader])
	x.revive(t, next)
	x.leader(t)
}

func (x *table) leader(t *testing.T) (leader int) {
	t.Helper()
	installation.Within(t, leads, "an API leads", func() error {
		d, err := ask(x.Admin(other), func(who installation.Caller) (client.Diagnosis, error) {
			return client.Read[client.Diagnosis](who.Get(t, "/v1/diagnosis"))
		})
		if err != nil {
			return err
		}
		leader = slices.IndexFunc(x.APIs, func(a *installation.Daemon) bool { return a.Name == d.Leader })
		if leader < 0 {
			return fmt.Errorf("it is %q", d.Leader)
		}
		return nil
	})
	return leader
}

// testPrune kills the leader when it has removed an old activation from the history, and not yet its result.
func (x *table) testPrune(t *testing.T, point string) {
	who := x.user(t, faena.DefaultGroup, 5, plain).At(victim)
	x.APIs[victim].Tell(t, "clock -6h")
	c := x.start(t, call{who: who, function: plain, async: true, size: large})
	c.wait(t)
	x.APIs[victim].Tell(t, "clock 0s")
	x.settled(t, tells, c)
	x.armBoth(t, point)
	x.leaderDied(t, time.Minute+leads)
	installation.Within(t, time.Minute+leads, "it is gone", func() error {
		_, err := who.Record(t, c.answer.ID)
		if f, ok := installation.AsFailure(err); ok && f.Status == 410 {
			return nil
		}
		return fmt.Errorf("%v", err)
	})
	x.Ledger.Forget(who.User)
	x.forget(c)
}

// testAbandoned kills an API that does not know whether the queue has what it was given: the queue has it, and the answer does not come.
func (x *table) testAbandoned(t *testing.T, point string) {
	who := x.user(t, faena.DefaultGroup, 5, plain).At(victim)
	x.settled(t, tells, x.start(t, call{who: who, function: plain}))
	x.APIs[victim].Tell(t, "arm api/record-created=delay:1s")
	x.APIs[victim].Tell(t, "arm %s=kill", point)
	c := x.start(t, call{who: who, function: plain, async: true, keyless: true})
	installation.Within(t, tells, "its record is there", func() error {
		list, err := who.At(other).History(t)
		if err == nil && len(list) < 2 {
			err = errors.New("it is not")
		}
		return err
	})
	release := x.relay.hold()
	x.APIs[victim].Died(t, 30*time.Second)
	release()
	x.revive(t, x.APIs[victim])
	x.settled(t, tells, c)
	installation.Within(t, time.Minute+leads, "what nobody was told of has ended", func() error {
		list, err := who.History(t)
		if err == nil && slices.ContainsFunc(list, func(a client.Activation) bool { return !installation.Terminal(a.State) }) {
			err = fmt.Errorf("there are %+v", list)
		}
		return err
	})
}
