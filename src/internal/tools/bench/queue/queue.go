// Package queue measures a long queue: very many activations are accepted while there is no worker, and one worker then
// runs them all. API, worker and NATS server are processes of their own, so that the memory of each is known.
package queue

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/tools/bench/installation"
)

const (
	// mostSlots is the highest limit that a user may have, and ofOne what of it calls may use that do not wait: a fifth is left free.
	mostSlots = 1000
	ofOne     = 800
	// fewSlots is the limit of those whose calls are to wait in the backlog.
	fewSlots = 20
	// ParameterBytes is the size of each activation's parameter.
	ParameterBytes = 2 << 10
	// function is the name of every user's function.
	function = "tally"
	// callers is how many calls there are at once.
	callers = 8
	// drainFor bounds the wait for the end of all, and stillFor the time in which nothing ends.
	drainFor = 20 * time.Minute
	stillFor = time.Minute
	// lookEvery is the pause between two looks at what is left.
	lookEvery = 250 * time.Millisecond
)

// The names of what is looked at in NATS, as an operator would. Each stream holds one message that keeps its files and is
// no activation.
const (
	queueStream   = "ACTIVATIONS-default"
	recordsStream = "KV_activations-default"
	backlogStream = "BACKLOG-default"
	anchors       = 1
)

//go:embed testdata/tally.c
var tally []byte

// Options are one run.
type Options struct {
	N            int                  // activations
	Users        int                  // of how many users; 0: of so many that all have a slot. What has none waits in the backlog
	Hold         time.Duration        // how long they stay queued before there is a worker: then it is seen what they take
	Installation installation.Options // one NATS server, and the documents in the API's own file
	Say          func(format string, args ...any)
}

// Result is what was measured. Nothing of it is judged yet.
type Result struct {
	N, Users         int
	Queued, Drained  time.Duration
	Held             time.Duration
	QueueBytes       uint64 // of the messages in the queue and in the backlog when all were there
	InBacklog        int    // of them in the backlog
	RecordBytes      uint64 // of their records
	Lost             int    // accepted, and without a record that says that it succeeded
	Repeated         int    // records that were claimed more than once, or runs that the function has counted beyond one for each
	Settled          int    // what the worker itself says that it has ended
	Abandoned        int    // what it has begun and given up
	Deliveries       uint64 // how often the server has given a message to the worker
	LeftQueued, Live int    // messages in the queue, and records in the bucket, at the end
	Containers       int    // that the function has run in

	// Memory while the queue is filled, while it is held, and while it is drained, by part.
	Filling, Holding, Draining map[string]*Course
}

// run is one measurement under way.
type run struct {
	o        Options
	i        *installation.Installation
	client   *installation.Client
	users    []installation.User
	accepted [callers][]activation
	r        *Result
}

// activation is one that was accepted.
type activation struct{ user, id string }

// Measure makes one run. An error is of the measurement, not of what was measured.
func Measure(ctx context.Context, o Options) (_ *Result, err error) {
	o.Installation.Servers = 1
	i, err := installation.Start(ctx, o.Installation, 1, 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, i.Close(ctx)) }()
	m := &run{o: o, i: i, client: i.Client(), r: &Result{N: o.N}}
	defer m.client.Close()
	for _, step := range []func(context.Context) error{m.prepare, m.fill, m.hold, m.drain, m.count} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return m.r, nil
}

// prepare makes as many users as are needed, each with the function. A function may only be made where a worker was
// there once; then there is none.
func (m *run) prepare(ctx context.Context) error {
	bin, err := m.i.Build(ctx, tally, function)
	if err != nil {
		return err
	}
	image, err := m.i.Push(ctx, bin)
	if err != nil {
		return err
	}
	limit := fewSlots
	m.r.Users = m.o.Users
	if m.r.Users == 0 {
		m.r.Users, limit = (m.o.N+ofOne-1)/ofOne, mostSlots
	}
	for k := range m.r.Users {
		who, err := m.i.NewUser(ctx, m.client, fmt.Sprintf("bench-%03d", k), limit)
		if err != nil {
			return err
		}
		spec := map[string]any{"writable_root": true, "memory_bytes": 32 << 20}
		if err := m.i.Deploy(ctx, m.client, who, function, image, spec); err != nil {
			return err
		}
		m.users = append(m.users, who)
	}
	m.o.Say("%d users are there", len(m.users))
	return m.i.SetWorkers(ctx, 0)
}

// fill queues all, one user's after the other's, so that any part of the queue is of all of them.
func (m *run) fill(ctx context.Context) error {
	var taken, done atomic.Int64
	w := watch(ctx, m.parts(), func(context.Context) (float64, error) { return float64(done.Load()) / float64(m.o.N), nil })
	began := time.Now()
	group, calls := errgroup.WithContext(ctx)
	for k := range callers {
		group.Go(func() error {
			parameter := bytes.Repeat([]byte("x"), ParameterBytes)
			for n := int(taken.Add(1)); n <= m.o.N; n = int(taken.Add(1)) {
				who := m.users[n%len(m.users)]
				id, err := m.client.Queue(calls, who, function, parameter)
				if err != nil {
					return err
				}
				m.accepted[k] = append(m.accepted[k], activation{who.Name, id})
				done.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	m.r.Queued = time.Since(began)
	m.r.Filling = w.courses
	if err := errors.Join(err, w.stop()); err != nil {
		return err
	}
	queue, records, err := m.streams(ctx)
	if err != nil {
		return err
	}
	backlog, err := m.i.Stream(ctx, backlogStream)
	if err != nil {
		return err
	}
	m.r.InBacklog = int(backlog.Messages)
	m.r.QueueBytes, m.r.RecordBytes = queue.Bytes+backlog.Bytes, records.Bytes
	m.o.Say("%d activations were queued in %v", m.o.N, m.r.Queued.Round(time.Second))
	return nil
}

// hold lets time pass. For some half a minute the NATS server keeps in memory what it has written.
func (m *run) hold(ctx context.Context) error {
	began := time.Now()
	w := watch(ctx, m.parts(), func(context.Context) (float64, error) {
		return float64(time.Since(began)) / float64(max(m.o.Hold, 1)), nil
	})
	select {
	case <-time.After(m.o.Hold):
	case <-w.ended: // with an error
	case <-ctx.Done():
	}
	m.r.Holding = w.courses
	return errors.Join(ctx.Err(), w.stop())
}

// drain starts one worker and waits until nothing is left, or nothing happens any more.
func (m *run) drain(ctx context.Context) error {
	began := time.Now()
	if err := m.i.SetWorkers(ctx, 1); err != nil {
		return err
	}
	left, changed, said := 0, began, began
	over := make(chan struct{})
	end := sync.OnceFunc(func() { close(over) })
	w := watch(ctx, m.parts(), func(ctx context.Context) (float64, error) {
		queue, records, err := m.streams(ctx)
		if err != nil {
			return 0, err
		}
		now := time.Now()
		m.r.LeftQueued, m.r.Live, m.r.Deliveries = int(queue.Messages)-anchors, int(records.Messages)-anchors, queue.Delivered
		if n := m.r.LeftQueued + m.r.Live; n != left {
			left, changed, m.r.Drained = n, now, now.Sub(began)
		}
		if left == 0 || now.Sub(changed) > stillFor || now.Sub(began) > drainFor {
			end()
		}
		if now.Sub(said) > 10*time.Second {
			said = now
			m.o.Say("%d are queued or run, %d have a live record", m.r.LeftQueued, m.r.Live)
		}
		if m.o.Users > 0 { // most are in the backlog
			return 1 - float64(m.r.Live)/float64(m.o.N), nil
		}
		return 1 - float64(m.r.LeftQueued)/float64(m.o.N), nil
	})
	select {
	case <-over:
	case <-w.ended: // with an error
	case <-ctx.Done():
	}
	m.r.Draining = w.courses
	return errors.Join(ctx.Err(), w.stop())
}

// parts are the processes of whose memory a course is taken.
func (m *run) parts() map[string]*installation.Process {
	p := map[string]*installation.Process{api: m.i.APIs()[0], nats: m.i.Servers()[0]}
	for _, w := range m.i.Workers() {
		p[worker] = w
	}
	return p
}

func (m *run) streams(ctx context.Context) (queue, records installation.Stream, err error) {
	if queue, err = m.i.Stream(ctx, queueStream); err != nil {
		return
	}
	records, err = m.i.Stream(ctx, recordsStream)
	return
}
