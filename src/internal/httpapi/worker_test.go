package httpapi

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
)

// run is what a worker of these tests does with a job: its result, or why it failed.
type run func(j *job) (result []byte, reason faena.Reason)

// echo is a function that gives back its parameter.
func echo(j *job) ([]byte, faena.Reason) { return j.parameter, "" }

// job is an activation that runs.
type job struct {
	context.Context // ends when the activation is cancelled
	w               *worker
	record          faena.Record
	parameter       []byte
	change          func(*faena.Record) // of the terminal record
}

// say adds to the log, and sends it on.
func (j *job) say(text string) {
	j.w.mu.Lock()
	defer j.w.mu.Unlock()
	log := j.w.logs[j.record.ID]
	for piece := range slices.Chunk([]byte(text), 64<<10) {
		if err := j.w.bus.PublishLog(group, j.record.User, j.record.ID, int64(len(log)), piece); err != nil {
			j.w.p.t.Error(err)
		}
		log = append(log, piece...)
	}
	j.w.logs[j.record.ID] = log
}

// worker takes activations from the queue and settles them as a worker does, but runs no container.
type worker struct {
	p    *platform
	bus  *natsbus.Bus
	run  atomic.Pointer[run]
	mu   sync.Mutex
	jobs map[string]context.CancelFunc
	logs map[string][]byte
}

// worker starts a worker with a number of places until the test ends.
func (p *platform) worker(places int, fn run) *worker {
	p.t.Helper()
	w := &worker{p: p, bus: p.connect(), jobs: make(map[string]context.CancelFunc), logs: make(map[string][]byte)}
	w.does(fn)
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.t.Context()))
	deliveries, err := w.bus.Deliveries(group)
	noError(p.t, err)
	stopCancels, err := w.bus.Cancels(group, w.cancel)
	noError(p.t, err)
	stopLogs, err := w.bus.ServeLogs(group, w.logSoFar)
	noError(p.t, err)
	beat := func() error {
		now := time.Now().UTC()
		return w.bus.Heartbeat(ctx, faena.Worker{Schema: faena.SchemaVersion, ID: "w1", Group: group, Host: "here", Version: "test", Places: places,
			MemoryBytes: 1 << 30, MilliCPUs: 2000, StartedAt: now, SeenAt: now})
	}
	noError(p.t, beat())
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(5 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				_ = beat() // the next one may come through
			}
		}
	})
	for range places {
		wg.Go(func() {
			for ctx.Err() == nil {
				if d, err := deliveries.Next(ctx); err == nil {
					w.take(context.WithoutCancel(ctx), d)
				}
			}
		})
	}
	p.t.Cleanup(func() {
		cancel()
		w.mu.Lock()
		for _, stop := range w.jobs {
			stop()
		}
		w.mu.Unlock()
		stopCancels()
		stopLogs()
		_ = deliveries.Close() // the server may be gone
		wg.Wait()
	})
	return w
}

// does says what the worker does with the jobs to come.
func (w *worker) does(fn run) { w.run.Store(&fn) }

func (w *worker) cancel(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if stop := w.jobs[id]; stop != nil {
		stop()
	}
}

func (w *worker) logSoFar(id string) (int64, []byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	log, ok := w.logs[id]
	return 0, bytes.Clone(log), ok
}

// take runs one delivery: claim, run, settle, acknowledge, announce.
func (w *worker) take(ctx context.Context, d natsbus.Delivery) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	j := &job{w: w}
	claimed := w.change(ctx, d.Message, func(r *faena.Record) error {
		if r.State != faena.StateQueued {
			return errors.New("it has ended")
		}
		return r.Claim("w1", d.Sequence, time.Now().UTC())
	})
	if claimed == nil {
		_ = d.DoubleAck(ctx)
		return
	}
	j.record = *claimed
	if j.parameter = d.Message.Parameter.Inline; d.Message.Parameter.Object != "" {
		w.persists(ctx, func() (err error) {
			j.parameter, err = w.bus.Object(ctx, group, d.Message.Parameter.Object)
			return err
		})
	}
	var stop context.CancelFunc
	j.Context, stop = context.WithCancel(ctx)
	defer stop()
	w.mu.Lock()
	w.jobs[j.record.ID], w.logs[j.record.ID] = stop, []byte{}
	w.mu.Unlock()
	result, reason := (*w.run.Load())(j)
	w.mu.Lock()
	delete(w.jobs, j.record.ID)
	log := w.logs[j.record.ID]
	w.mu.Unlock()
	ended := w.change(ctx, d.Message, func(r *faena.Record) error {
		r.Result, r.Log = w.blob(ctx, "out."+r.ID, result), w.blob(ctx, "log."+r.ID, log)
		r.Warm, r.Timings = true, faena.Timings{RunUS: 1234}
		end := r.Succeed
		if reason != "" {
			end = func(now time.Time) error { return r.Fail(reason, "It failed: "+string(reason)+".", now) }
		}
		err := end(time.Now().UTC())
		if j.change != nil {
			j.change(r)
		}
		return err
	})
	_ = d.DoubleAck(ctx)
	if ended != nil {
		_ = w.bus.Complete(ctx, ended)
	}
}

// change changes a message's record by compare-and-set; nil where that cannot be.
func (w *worker) change(ctx context.Context, m *faena.Message, fn func(*faena.Record) error) *faena.Record {
	for ctx.Err() == nil {
		r, rev, err := w.bus.Record(ctx, group, m.Revision.User, m.ID)
		if err != nil || fn(r) != nil {
			return nil
		}
		if _, err = w.bus.UpdateRecord(ctx, r, rev); err == nil {
			return r
		}
		if !errors.Is(err, faena.ErrStale) {
			return nil
		}
	}
	return nil
}

// blob stores what a function wrote: in the record, or as an object where it is large.
func (w *worker) blob(ctx context.Context, name string, p []byte) faena.Blob {
	b := faena.Blob{Size: int64(len(p)), Inline: p}
	if len(p) > faena.MaxInlineBytes {
		b.Inline, b.Object = nil, name
		w.persists(ctx, func() error { return w.bus.PutObject(ctx, group, name, p) })
	}
	return b
}

// persists tries again until ctx ends: a machine that is busy with other tests answers late.
func (w *worker) persists(ctx context.Context, try func() error) {
	err := try()
	for err != nil && ctx.Err() == nil {
		err = try()
	}
	if err != nil {
		w.p.t.Error(err)
	}
}

// gate is a function that runs until it is opened or cancelled; running gets each id that has started.
type gate struct {
	open    chan struct{}
	running chan string
}

func newGate() *gate { return &gate{open: make(chan struct{}), running: make(chan string, 100)} }

func (g *gate) run(j *job) ([]byte, faena.Reason) {
	g.running <- j.record.ID
	select {
	case <-g.open:
		return j.parameter, ""
	case <-j.Done():
		return nil, faena.ReasonCancelled
	}
}
