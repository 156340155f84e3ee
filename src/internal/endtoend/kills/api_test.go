package kills_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/endtoend/installation"
	"faena.dev/faena/internal/faena"
)

const (
	// victim is the API that is killed where a call says which, and other the one that lives meanwhile.
	victim = 0
	other  = 1
	// tells is how soon what an API held that is started again at once has ended, and is seen to have.
	tells = 20 * time.Second
)

// apiCase kills an API at a failpoint that one call brings it to.
type apiCase struct {
	point string
	call  call // but for who
	short bool // it is gone through without -every too
	// late: the key stands for an activation that is nowhere, or has no message, until that is certain.
	late bool
}

var apiCases = []apiCase{
	{point: "api/record-created", call: call{function: plain, async: true}, late: true}, // its client comes again with the key
	{point: "api/key-claimed", call: call{function: plain}, late: true},
	{point: "bus/chunks-stored", call: call{function: plain, async: true, size: large}, late: true},
	{point: "api/parameter-stored", call: call{function: twice, size: large}, late: true},
	{point: "api/published", call: call{function: plain}, short: true},
	{point: "api/published", call: call{function: twice, async: true}},
	{point: "api/published", call: call{function: plain, async: true, keyless: true}},
	{point: "api/before-answer", call: call{function: plain}},
	{point: "api/before-answer", call: call{function: twice, keyless: true}},
}

// testAPIs goes through the cases of APIs, one after the other.
func (x *table) testAPIs(t *testing.T) {
	for _, c := range apiCases {
		if *every || c.short {
			t.Run(fmt.Sprint(c.point, " ", c.call.function), func(t *testing.T) {
				if this := x.testAPI(t, c); c.late {
					x.late = append(x.late, this)
				} else {
					x.settled(t, tells, this)
				}
			})
		}
	}
	if *every {
		t.Run("recorder/filed", func(t *testing.T) { x.late = append(x.late, x.testFiled(t)) })
	}
	short := map[string]bool{"recorder/inserted": true, "leader/released": true}
	for _, c := range []struct {
		point string
		test  func(*testing.T, string)
	}{
		{"api/slot-changed", x.testSlotTaken},
		{"api/record-forgotten", x.testSlotTaken},
		{"api/cancel-asked", x.testCancelRunning},
		{"api/queued-ended", x.testCancelQueued},
		{"api/message-dropped", x.testCancelQueued},
		{"api/redriven", x.testRedrive},
		{"recorder/before-insert", x.testRecorder},
		{"recorder/inserted", x.testRecorder},
		{"recorder/messages-dropped", x.testRecorder},
		{"recorder/before-purge", x.testRecorder},
		{"recorder/record-purged", x.testRecorder},
		{"leader/slot-assigned", x.testRelease},
		{"leader/released", x.testRelease},
		{"leader/backlog-deleted", x.testRelease},
		{"leader/counter-written", x.testCounter},
		{"leader/message-deleted", x.testMessageBack},
		{"leader/lost-recorded", x.testLost},
		{"leader/lease-taken", x.testLease},
		{"leader/history-removed", x.testPrune},
		{"api/abandoned", x.testAbandoned},
	} {
		if *every || short[c.point] {
			t.Run(c.point, func(t *testing.T) { c.test(t, c.point) })
		}
	}
	x.settled(t, callWithin, x.late...)
}

// testAPI kills the API that a call has come to, and starts it again. The client, whose connection breaks, calls the other one.
func (x *table) testAPI(t *testing.T, c apiCase) *call {
	c.call.who = x.user(t, faena.DefaultGroup, 5, plain, twice).At(victim)
	x.APIs[victim].Tell(t, "arm %s=kill", c.point)
	this := x.start(t, c.call)
	x.revive(t, x.died(t, victim))
	return this
}

// died waits until an API has killed itself.
func (x *table) died(t testing.TB, api int) *installation.Daemon {
	t.Helper()
	x.APIs[api].Died(t, 30*time.Second)
	return x.APIs[api]
}

// revive starts an API again and waits until it serves.
func (x *table) revive(t testing.TB, d *installation.Daemon) {
	t.Helper()
	d.Start(t)
	x.Serves(t, d)
}

// testSlotTaken calls at an API that believes a slot to be free which the other one has given away: with another slot it takes that,
// without it takes its record back.
func (x *table) testSlotTaken(t *testing.T, point string) {
	limit := map[string]int{"api/slot-changed": 2, "api/record-forgotten": 1}[point]
	who := x.user(t, faena.DefaultGroup, limit, plain)
	first := x.start(t, call{who: who.At(victim), function: plain})
	x.settled(t, tells, first)
	holds := x.start(t, call{who: who.At(other), function: plain, held: true})
	x.runsOnce(t, holds)
	x.APIs[victim].Tell(t, "arm %s=kill", point)
	this := x.start(t, call{who: who.At(victim), function: plain, keyless: limit == 1, mayLose: true, unstarted: limit == 1})
	x.revive(t, x.died(t, victim))
	holds.release()
	x.ended(t, tells, holds)
	if limit == 1 {
		x.settled(t, tells, this)
	} else { // what stands in no slot is lost when that is certain
		x.late = append(x.late, this)
	}
}

// testCancelRunning kills an API between the mark in the record and the word to the worker, which finds the mark by itself.
func (x *table) testCancelRunning(t *testing.T, point string) {
	who := x.user(t, faena.DefaultGroup, 5, plain)
	c := x.start(t, call{who: who, function: plain, held: true, cancel: true})
	x.runsOnce(t, c)
	x.cancelAtVictim(t, c, point)
	x.settled(t, tells, c)
	c.release()
}

// cancelAtVictim cancels what a call has made at the API which kills itself for that.
func (x *table) cancelAtVictim(t *testing.T, c *call, point string) {
	t.Helper()
	var id string
	installation.Within(t, tells, c.name+" is there", func() error {
		list, err := c.who.History(t)
		if err == nil && len(list) != 1 {
			err = fmt.Errorf("there are %d", len(list))
		}
		if err == nil {
			id = list[0].ActivationID
		}
		return err
	})
	x.APIs[victim].Tell(t, "arm %s=kill", point)
	if _, err := client.Read[client.Activation](c.who.At(victim).Delete(t, "/v1/activations/"+id)); err == nil {
		t.Error("an API that was to be killed at it answers a cancellation")
	}
	x.revive(t, x.died(t, victim))
}

// testCancelQueued kills an API that has ended what waits, and not yet freed its slot: the worker does that, as soon as there is one. The
// recorder would too, but the killed API may have been given the record to keep, and then nobody else is for a minute.
func (x *table) testCancelQueued(t *testing.T, point string) {
	who := x.user(t, idle, 1, plain)
	x.worker(t, idle).Stop(t)
	start := sync.OnceFunc(func() { x.worker(t, idle).Start(t) })
	defer start()
	c := x.start(t, call{who: who, function: plain, async: true, cancel: true, unstarted: true})
	c.wait(t)
	x.cancelAtVictim(t, c, point)
	x.ended(t, tells, c)
	start()
	x.free(t, c)
	x.settled(t, tells, x.start(t, call{who: who, function: plain, async: true})) // his only slot is free
}

// testRedrive kills an API that has made an activation of a dead letter, and not yet removed that. The same request at the other one
// makes no second one.
func (x *table) testRedrive(t *testing.T, point string) {
	who := x.user(t, faena.DefaultGroup, 5, twice)
	c := x.start(t, call{who: who, function: twice, async: true, fails: 2, mayFail: true, redriven: true})
	x.settled(t, tells, c)
	path := "/v1/deadletters/" + c.answer.ID + "/redrive"
	redrive := func(api int) error {
		_, err := client.Read[client.Activation](who.At(api).Do(t, "POST", path, nil))
		return err
	}
	x.APIs[victim].Tell(t, "arm %s=kill", point)
	if err := redrive(victim); err == nil {
		t.Error("an API that was to be killed at it answers")
	}
	x.revive(t, x.died(t, victim))
	for n := range 3 {
		if err := redrive(n % 2); err != nil && installation.Reason(err) != "dead_letter_not_found" {
			t.Errorf("once more: %v", err)
		}
	}
	installation.Within(t, tells, "it has run once more", func() error {
		list, err := who.History(t)
		made := slices.DeleteFunc(list, func(a client.Activation) bool { return a.RedrivenFrom != c.answer.ID })
		if err == nil && (len(made) != 1 || made[0].State != client.StateSucceeded) {
			err = fmt.Errorf("there are %+v", made)
		}
		if err == nil {
			x.Ledger.Note(who.User, installation.Answer{Status: 202, ID: made[0].ActivationID})
		}
		return err
	})
	if n := len(x.runs.list(c.name)); n != 3 {
		t.Errorf("it ran %d times", n)
	}
	c.redrives = 1
	x.free(t, c)
}

// testRecorder kills an API while it moves records to the history. It shares them with the other one: it is called until it has some.
func (x *table) testRecorder(t *testing.T, point string) {
	who := x.user(t, faena.DefaultGroup, 5, plain)
	x.APIs[victim].Tell(t, "arm %s=kill", point)
	var made []*call
	dead := make(chan struct{})
	go func() {
		defer close(dead)
		x.died(t, victim)
	}()
	for living := true; living; {
		c := x.start(t, call{who: who, function: plain, async: true, size: len(made) % 2 * large})
		c.wait(t)
		made = append(made, c)
		select {
		case <-dead:
			living = false
		case <-time.After(300 * time.Millisecond):
		}
	}
	x.revive(t, x.APIs[victim])
	x.settled(t, tells, made...)
}

// testFiled kills an API that has put an activation into the backlog, for a retry that is some time off, and has not said so.
func (x *table) testFiled(t *testing.T) *call {
	who := x.user(t, faena.DefaultGroup, 5, later)
	x.armBoth(t, "recorder/filed")
	c := x.start(t, call{who: who, function: later, async: true, fails: 1})
	x.leaderDied(t, tells)
	return c
}
