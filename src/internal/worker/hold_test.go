package worker_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/wiring"
	"faena.dev/faena/internal/worker"
)

// TestWorker_Fence: a run that cannot be confirmed is killed before anybody else may start it, and its worker says nothing more
// of it.
func TestWorker_Fence(t *testing.T) {
	t.Parallel()
	s := start(t, 2*time.Second)
	h := s.quick("fence", worker.Every{Tick: 50 * time.Millisecond, Progress: 200 * time.Millisecond, Fence: time.Second})
	id := s.send(s.function("f", nil, "tick", "100000", "10"), "")
	running := s.is(id, faena.StateRunning)
	c := h.containers()
	if len(c) != 1 || processes(t, c[0]) != 2 {
		t.Fatalf("it runs in %v", c)
	}
	s.server.Shutdown()
	stopped := time.Now()
	faenatest.Eventually(t, patience, "its container is gone", func() bool { return len(h.containers()) == 0 })
	if took := time.Since(stopped); took > 10*time.Second {
		t.Errorf("it was killed %v after the last confirmation", took)
	}
	if !h.log.has("an activation was killed and given up") || !h.log.has("reason=fenced") {
		t.Error("the worker does not say that it has given it up")
	}

	server, err := natsbus.StartServer(natsbus.ServerOptions{Dir: s.dir + "/nats", MaxStore: maxStore})
	s.check(err)
	t.Cleanup(server.Shutdown)
	s.server = server
	s.bus = s.connect("api", 2*time.Second)
	s.check(s.bus.Declare(t.Context())) // the bucket of heartbeats is in memory
	if r := s.record(id); r.State != faena.StateRunning || r.Worker != running.Worker || r.Log.Size != 0 {
		t.Errorf("the fenced worker has changed the record: %+v", r)
	}
	s.quick("heir", worker.Every{Tick: 50 * time.Millisecond, Progress: 200 * time.Millisecond})
	if r := s.ended(id); r.State != faena.StateLost || r.Reason != faena.ReasonWorkerLost || r.Worker != h.id || r.Attempt != 1 {
		t.Errorf("who got the message then settled %+v", r)
	}
	s.quiet()
}

// TestWorker_Superseded: a worker that finds another one in the record kills its run and neither settles nor acknowledges.
func TestWorker_Superseded(t *testing.T) {
	t.Parallel()
	s := start(t, 2*time.Second)
	h := s.quick("superseded", worker.Every{Tick: 50 * time.Millisecond, Progress: 200 * time.Millisecond})
	id := s.send(s.function("f", nil, "tick", "100000", "10"), "")
	s.is(id, faena.StateRunning)
	s.change(id, func(r *faena.Record) { r.Worker, r.Attempt = "another", 2 })
	faenatest.Eventually(t, patience, "its container is gone", func() bool { return len(h.containers()) == 0 })
	if !h.log.has("reason=superseded") {
		t.Error("the worker does not say that it has given it up")
	}
	// The other one does not exist: the message comes again, which it would not had it been acknowledged.
	if r := s.ended(id); r.Reason != faena.ReasonWorkerLost || r.Worker != "another" || r.Attempt != 2 || r.Log.Size != 0 {
		t.Errorf("%+v", r)
	}
	s.quiet()
}

// TestWorker_LateResult: who ends after another one was named throws its result away, objects included.
func TestWorker_LateResult(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("late", func(o *wiring.WorkerOptions) { o.Pool.Places = 1 })
	rev := s.function("f", func(r *faena.Revision) { r.Spec.Input = faena.InputStdin }, "cat")
	s.says("warm", rev, "warm")
	s.quiet()
	d, c := faenatest.Engine(t), h.containers()
	d.Post(t, "/containers/"+c[0]+"/pause", nil, nil)
	id := s.send(rev, strings.Repeat("x", faena.MaxInlineBytes+1))
	s.is(id, faena.StateRunning)
	s.change(id, func(r *faena.Record) { r.Worker, r.Attempt = "another", 2 })
	want := s.record(id)
	d.Post(t, "/containers/"+c[0]+"/unpause", nil, nil)
	faenatest.Eventually(t, patience, "it has ended here", func() bool { return h.log.has("an activation was settled by somebody else") })
	h.idle()
	if _, err := s.bus.Object(t.Context(), group, "out."+id+".1"); !faena.IsKind(err, faena.KindNotFound) {
		t.Errorf("the object of the lost attempt: %v", err)
	}
	if n, err := s.bus.QueueDepth(t.Context(), group); err != nil || n != 1 || !reflect.DeepEqual(s.record(id), want) {
		t.Errorf("%d messages are in the stream, %v; the record is %+v", n, err, s.record(id))
	}
}

// TestWorker_Duplicate: a message that comes again to the worker that runs it is not run twice.
func TestWorker_Duplicate(t *testing.T) {
	t.Parallel()
	s := start(t, time.Second) // less than what the worker confirms within
	h := s.run("duplicate")
	r := s.call(s.function("f", nil, "sleep", "2500"), "")
	if r.State != faena.StateSucceeded || r.Attempt != 1 || r.Timings.RunUS < 2_400_000 {
		t.Errorf("%+v", r)
	}
	if n := len(h.containers()); n != 1 {
		t.Errorf("it ran in %d containers", n)
	}
	s.quiet()
}

// TestWorker_TakenForLost: a holder that does not confirm in time is lost for the next one, whatever it does then.
func TestWorker_TakenForLost(t *testing.T) {
	t.Parallel()
	s := start(t, time.Second)
	one := func(o *wiring.WorkerOptions) { o.Pool.Places = 1 }
	h := s.run("holder", one)
	id := s.send(s.function("f", nil, "sleep", "20000"), "") // the heir has that long to come
	s.is(id, faena.StateRunning)
	s.run("heir", one)
	r := s.ended(id)
	if r.Reason != faena.ReasonWorkerLost || r.Worker != h.id || r.Attempt != 1 {
		t.Errorf("%+v", r)
	}
	s.quiet()
	h.idle()
	if now := s.record(id); !reflect.DeepEqual(now, r) {
		t.Errorf("%+v, then %+v", r, now)
	}
}
