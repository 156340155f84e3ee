package kills_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/endtoend/installation"
	"faena.dev/faena/internal/faena"
)

// workerCase kills a worker at a failpoint that one call brings it to.
type workerCase struct {
	point string
	call  call // but for who
	short bool // it is gone through without -every too
	// open: the worker had let go of the message, and the queue did not know that yet, or had given it to the same worker again, which
	// did not know that yet. Nobody can tell that it is nobody's: it comes again when AckWait is over.
	open bool
}

var workerCases = []workerCase{
	{point: "worker/confirmed", call: call{function: twice, held: true}},
	{point: "worker/before-nak", call: call{function: twice, fails: 1}},
	{point: "worker/nak-sent", call: call{function: twice, async: true, fails: 1}, open: true},
	{point: "worker/nak-noted", call: call{function: twice, async: true, fails: 1}, open: true},
	{point: "worker/acknowledged", call: call{function: plain}}, // its client is told when its API looks again
	{point: "worker/announced", call: call{function: plain}},
	{point: "worker/delivered", call: call{function: plain}},
	{point: "worker/prepared", call: call{function: plain, async: true}},
	{point: "worker/container-created", call: call{function: plain}},
	{point: "worker/record-running", call: call{function: plain, async: true, mayLose: true, unstarted: true}, short: true},
	{point: "worker/record-running", call: call{function: twice}},
	{point: "worker/start-sent", call: call{function: plain, mayLose: true}},
	{point: "worker/start-sent", call: call{function: twice, async: true}, short: true},
	{point: "worker/ran", call: call{function: plain, async: true, mayLose: true}},
	{point: "worker/ran", call: call{function: twice, size: large}},
	{point: "bus/chunks-stored", call: call{function: twice, async: true, size: large}},
	{point: "worker/object-stored", call: call{function: plain, size: large, mayLose: true}},
	{point: "worker/object-stored", call: call{function: twice, async: true, size: large}},
	{point: "worker/record-ended", call: call{function: plain, async: true}, short: true},
	{point: "worker/record-requeued", call: call{function: twice, async: true, fails: 1}},
	{point: "worker/dead-parameter-stored", call: call{function: twice, async: true, size: large, fails: 2, mayLose: true, mayFail: true}},
	{point: "worker/dead-letter-written", call: call{function: twice, async: true, fails: 2, mayLose: true, mayFail: true}},
}

// testWorkers goes through the cases of workers that are this lane's.
func (x *table) testWorkers(t *testing.T, n int) {
	var slow []*call
	if n == 0 && *every {
		for _, point := range []string{"worker/requeued-acknowledged", "worker/record-requeued"} {
			t.Run(point+" later", func(t *testing.T) { slow = append(slow, x.testLater(t, lane(n), point)) })
		}
	}
	for k, c := range workerCases {
		if k%lanes() == n && (*every || c.short) {
			t.Run(fmt.Sprint(c.point, " ", c.call.function), func(t *testing.T) { x.testWorker(t, lane(n), c) })
		}
	}
	if !*every {
		return
	}
	switch n {
	case 0:
		x.settled(t, 75*time.Second, slow...)
	case 1:
		t.Run("worker/before-hand-back", func(t *testing.T) { x.testHandBack(t, lane(n)) })
		t.Run("worker/before-drop", func(t *testing.T) { x.testDrop(t, lane(n)) })
	case 2:
		t.Run("NoneComesBack", x.testAlone)
	}
}

// testWorker kills the worker of a lane, and starts it again at once. Beside the call that comes to the failpoint it runs another
// one, without retries, which is lost with it.
func (x *table) testWorker(t *testing.T, group string, c workerCase) {
	who, worker := x.user(t, group, 5, plain, twice), x.worker(t, group)
	beside := x.start(t, call{who: who, function: plain, async: true, held: true, mayLose: true})
	x.runsOnce(t, beside)
	worker.Tell(t, "arm %s=kill", c.point)
	c.call.who = who
	this := x.start(t, c.call)
	killed := x.workerDied(t, worker)
	this.release()
	worker.Start(t)
	x.ended(t, back-time.Since(killed), beside)
	limit := back
	if c.open {
		limit = alone
	}
	x.settledSince(t, killed, limit, this)
	beside.release()
}

// workerDied waits for a worker that kills itself, notes its containers, and returns when it was.
func (x *table) workerDied(t testing.TB, d *installation.Daemon) time.Time {
	t.Helper()
	d.Died(t, 30*time.Second)
	now := time.Now()
	x.note(t, d)
	return now
}

// testLater kills a worker that puts, or has just put, an activation into the backlog, for a retry that is some time off.
func (x *table) testLater(t *testing.T, group, point string) *call {
	who, worker := x.user(t, group, 5, later), x.worker(t, group)
	worker.Tell(t, "arm %s=kill", point)
	c := x.start(t, call{who: who, function: later, async: true, fails: 1, mayLose: true}) // by the cases that follow
	killed := x.workerDied(t, worker)
	worker.Start(t)
	x.freeSince(t, killed, back, c)
	return c
}

// testHandBack kills a worker while it runs something, and its next life before it has handed that back.
func (x *table) testHandBack(t *testing.T, group string) {
	who, worker := x.user(t, group, 5, plain, twice), x.worker(t, group)
	once := x.start(t, call{who: who, function: plain, held: true, mayLose: true})
	again := x.start(t, call{who: who, function: twice, async: true, held: true})
	x.runsOnce(t, once)
	x.runsOnce(t, again)
	worker.Kill(t)
	x.note(t, worker)
	again.release()
	worker.Failpoints = "worker/before-hand-back=kill"
	worker.Start(t)
	killed := x.workerDied(t, worker)
	worker.Start(t)
	x.settledSince(t, killed, back, once, again)
	once.release()
}

// testDrop has the queue bring back a message whose activation has ended, and kills the worker that is about to drop it.
func (x *table) testDrop(t *testing.T, group string) {
	who, worker := x.user(t, group, 5, plain), x.worker(t, group)
	worker.Stop(t)
	c, message := x.cancelled(t, who)
	worker.Failpoints = "worker/before-drop=kill"
	worker.Start(t)
	x.Serves(t, worker) // otherwise the leader may be first to drop it
	x.bringBack(t, message)
	killed := x.workerDied(t, worker)
	worker.Start(t)
	x.freeSince(t, killed, back, c)
}

// cancelled makes a call in a group without a worker and cancels it. It returns the message that it had.
func (x *table) cancelled(t *testing.T, who installation.Caller) (*call, *jetstream.RawStreamMsg) {
	t.Helper()
	c := x.start(t, call{who: who, function: plain, async: true, cancel: true, unstarted: true})
	c.wait(t)
	a, err := ask(who, func(who installation.Caller) (client.Activation, error) { return who.Record(t, c.answer.ID) })
	if err != nil {
		t.Fatal(err)
	}
	stream, err := x.JetStream(t).Stream(t.Context(), "ACTIVATIONS-"+a.Group)
	if err != nil {
		t.Fatal(err)
	}
	message, err := stream.GetLastMsgForSubject(t.Context(), "Activations."+a.Group+"."+who.User+".0")
	if err != nil {
		t.Fatal(err)
	}
	x.change(t, who, c.name+" is cancelled", func(who installation.Caller) error {
		_, err := client.Read[client.Activation](who.Delete(t, "/v1/activations/"+c.answer.ID))
		return err
	})
	x.settled(t, back, c)
	bucket, err := x.JetStream(t).Stream(t.Context(), "KV_activations-"+a.Group)
	if err != nil {
		t.Fatal(err)
	}
	installation.Within(t, installation.Recorded, c.name+" is recorded", func() error {
		info, err := bucket.Info(t.Context(), jetstream.WithSubjectFilter("$KV.activations-"+a.Group+"."+who.User+".>"))
		if err == nil && len(info.State.Subjects) > 0 {
			err = fmt.Errorf("the bucket has %v", info.State.Subjects)
		}
		return err
	})
	return c, message
}

// bringBack puts a message into the queue once more, as a server does that was killed before it had written down its removal.
func (x *table) bringBack(t *testing.T, m *jetstream.RawStreamMsg) {
	t.Helper()
	again := &nats.Msg{Subject: m.Subject, Data: m.Data, Header: m.Header}
	again.Header.Set(nats.MsgIdHdr, m.Header.Get(nats.MsgIdHdr)+"9") // otherwise the stream takes it for the same publication
	if _, err := x.JetStream(t).PublishMsg(context.WithoutCancel(t.Context()), again); err != nil {
		t.Fatal(err)
	}
}

// testAlone kills one of two workers, and does not start it: the other one settles what it held.
func (x *table) testAlone(t *testing.T) {
	who := x.user(t, faena.DefaultGroup, 5, plain, twice)
	other := x.Workers[1]
	other.Stop(t) // so that the first one takes both
	once := x.start(t, call{who: who, function: plain, async: true, held: true, mayLose: true})
	again := x.start(t, call{who: who, function: twice, held: true})
	x.runsOnce(t, once)
	x.runsOnce(t, again)
	other.Start(t)
	x.Serves(t, other)
	x.Workers[0].Kill(t)
	killed := time.Now()
	x.note(t, x.Workers[0])
	again.release()
	x.settledSince(t, killed, alone, once, again)
	once.release()
	x.Workers[0].Start(t)
}
