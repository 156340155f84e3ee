package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
)

// Options is what a worker is made of. Fields without a stated default are required.
type Options struct {
	ID      string // unique among the workers; a token of a NATS subject
	Group   string // default faena.DefaultGroup
	Host    string // for people
	Version string // for people

	StateDir string // lock file, sockets of containers, list of pulled images; short, a socket's path must fit
	InitPath string // faena-init on this host, mounted into every container
	Network  string // of the containers; made by the wiring
	// CheckNetwork says what is wrong with that network, or with the rules for its packets: nothing is claimed then. It puts right what
	// it can. Default: nothing is ever wrong.
	CheckNetwork func(context.Context) error
	// Unfiltered is why functions reach whatever this host reaches; "" where packet rules keep them from it. It stands in the heartbeat
	// and in the record of every activation.
	Unfiltered string
	// Advise tells of the engine and its settings, for the heartbeat; containers is how many this worker may have. Default: nothing is said.
	Advise func(ctx context.Context, containers int) (faena.Engine, error)

	Capacity     Capacity
	IdleTTL      time.Duration // of an idle container; default 10 min
	Starts       int           // containers started at once; default 2
	Capabilities []string      // that the operator lets specs ask for; default none

	Disk       DiskOptions
	Bus        Bus
	Deliveries Deliveries
	Engine     Engine
	Registries Registries       // default: every registry
	Opener     Opener           // default: sealed credentials cannot be opened
	Observer   Observer         // default: nobody
	Pulse      Pulse            // default: nobody
	ServerNow  func() time.Time // the messaging server's clock; default this host's
	Logger     *slog.Logger     // default slog.Default
}

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.ID == "" || o.StateDir == "" || o.InitPath == "":
		return o, errors.New("worker: ID, StateDir and InitPath are required")
	case o.Bus == nil || o.Deliveries == nil || o.Engine == nil:
		return o, errors.New("worker: Bus, Deliveries and Engine are required")
	}
	o.Capacity = o.Capacity.withDefaults()
	o.Disk = o.Disk.withDefaults(o.StateDir)
	if o.Group == "" {
		o.Group = faena.DefaultGroup
	}
	if o.IdleTTL == 0 {
		o.IdleTTL = 10 * time.Minute
	}
	if o.Starts == 0 {
		o.Starts = 2
	}
	if o.Observer == nil {
		o.Observer = noObserver{}
	}
	if o.Pulse == nil {
		o.Pulse = noPulse{}
	}
	if o.CheckNetwork == nil {
		o.CheckNetwork = func(context.Context) error { return nil }
	}
	if o.ServerNow == nil {
		o.ServerNow = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, nil
}

// periods are how often things are looked at. Tests shorten them.
type periods struct {
	progressTick, progress, fence  time.Duration
	heartbeat, ping, sweep, images time.Duration
	advice                         time.Duration
	pool                           time.Duration
	launch                         time.Duration // that making a container may take
	unread                         time.Duration // that what another version has written stays away
	bury                           time.Duration // that a dead letter is tried to be written
	stall                          time.Duration // that this process may stand still before what it is given then is doubtful
}

func defaultPeriods() periods {
	return periods{
		progressTick: time.Second, progress: faena.ProgressEvery, fence: faena.FenceAfter,
		heartbeat: faena.HeartbeatTTL / 3, ping: 2 * time.Second, sweep: time.Minute, images: time.Minute, advice: time.Minute,
		pool: time.Second, launch: launchTimeout, unread: 10 * time.Second, bury: buryFor, stall: faena.AckWait - faena.FenceAfter,
	}
}

// Worker takes the activations of one group and runs them. Use New, then Run; Drain and Abort are the two ways to
// stop. All methods are safe for concurrent use.
type Worker struct {
	o     Options
	log   *slog.Logger
	every periods

	held     holds
	later    later
	unread   met // that could not be read
	passed   met // that were left to the server, since their records are of a later time than it is here
	pool     *pool
	images   *imageStore
	progress *progress
	gate     *gate
	owner    *owner
	started  time.Time
	busy     atomic.Int64
	swept    chan struct{}                // closed after the first sweep
	journal  *journal                     // nil where it cannot be written
	left     []heldMessage                // what an earlier life of this worker held
	news     chan struct{}                // holds one when a heartbeat is due at once
	engine   atomic.Pointer[faena.Engine] // what it has said of itself last; nil before

	drainOnce sync.Once
	draining  chan struct{} // closed: nothing is claimed any more
	abortOnce sync.Once
	aborted   chan struct{} // closed: what runs is killed
	done      chan struct{} // closed when Run has returned
}

// New makes a worker that is not running. It takes the lock of StateDir: an error where another worker has it.
func New(o Options) (*Worker, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	runDir := filepath.Join(o.StateDir, "run")
	if err := os.MkdirAll(runDir, 0o711); err != nil {
		return nil, fmt.Errorf("make the directory of sockets: %w", err)
	}
	own, err := lockState(o.StateDir)
	if err != nil {
		return nil, err
	}
	w := &Worker{o: o, log: o.Logger.With("worker", o.ID), every: defaultPeriods(), owner: own,
		held: holds{byID: map[string]*activation{}}, started: clock.Now(), swept: make(chan struct{}), news: make(chan struct{}, 1),
		draining: make(chan struct{}), aborted: make(chan struct{}), done: make(chan struct{})}
	w.gate = newGate(w.toldToDrain())
	w.journal, w.left = openJournal(o.StateDir, o.Capacity.Places, w.log)
	w.images = newImageStore(o, w.log)
	w.pool = newPool(o.Capacity, o.IdleTTL, o.Starts, &engineLauncher{o: o, runDir: runDir, lockFile: own.path, images: w.images}, w.log)
	return w, nil
}

// Run takes and runs activations until Drain or Abort has ended, or ctx ends, which is like Abort. When it returns,
// the worker's containers are removed and its heartbeat is deleted. It may be called once.
func (w *Worker) Run(ctx context.Context) error {
	defer close(w.done)
	defer w.owner.unlock()
	defer w.journal.close()
	// Everything below outlives ctx: an end is settled, acknowledged and cleaned up after it.
	base := context.WithoutCancel(ctx)
	running, stopRunning := context.WithCancelCause(base)
	claiming, stopClaiming := context.WithCancelCause(base)
	defer stopRunning(nil)
	defer stopClaiming(nil)

	w.progress = &progress{w: w, tick: w.every.progressTick}
	w.progress.vigil.last.Store(int64(clock.SinceBoot()))
	w.pool.open(base)
	stopSignals, err := w.listen(base)
	if err != nil {
		return err
	}
	services, stopServices := w.startServices(base)
	defer stopServices()
	w.handBackHeld(base, w.left)
	w.gate.begin(claiming)

	var places sync.WaitGroup
	for n := range w.o.Capacity.Places {
		places.Go(func() { w.place(claiming, running, w.journal.entry(n)) })
	}
	finished := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { w.watch(ctx, finished, stopClaiming, stopRunning) })
	places.Wait()
	w.handOverAll()
	close(finished)
	watch.Wait()
	stopSignals()
	stopServices()
	services.Wait()
	w.pool.close()
	w.images.wg.Wait()
	w.lastSweep(base)
	return w.leave(base)
}

// watch ends claiming, and what runs, when it is time to, until finished is closed.
func (w *Worker) watch(ctx context.Context, finished <-chan struct{}, stopClaiming, stopRunning context.CancelCauseFunc) {
	draining := w.draining
	for {
		select {
		case <-finished:
			return
		case <-draining:
			draining = nil
			stopClaiming(errDrained)
			continue
		case <-ctx.Done():
			w.abort()
		case <-w.aborted:
		}
		stopClaiming(errAborted)
		stopRunning(errAborted)
		return
	}
}

// listen subscribes to what is asked of this worker.
func (w *Worker) listen(ctx context.Context) (stop func(), err error) {
	stopCancels, err := w.o.Bus.Cancels(w.o.Group, func(id string) { w.progress.cancelled(ctx, id) })
	if err != nil {
		return nil, fmt.Errorf("listen for cancellations: %w", err)
	}
	stopLogs, err := w.o.Bus.ServeLogs(w.o.Group, func(id string) (int64, []byte, bool) {
		a := w.held.get(id)
		if a == nil {
			return 0, nil, false
		}
		offset, p := a.log.tail()
		return offset, p, true
	})
	if err != nil {
		stopCancels()
		return nil, fmt.Errorf("serve logs: %w", err)
	}
	stopDrains, err := w.o.Bus.Drains(w.o.ID, w.askedToDrain)
	if err != nil {
		stopCancels()
		stopLogs()
		return nil, fmt.Errorf("listen for orders to drain: %w", err)
	}
	return func() { stopCancels(); stopLogs(); stopDrains() }, nil
}

// startServices starts the loops beside the places.
func (w *Worker) startServices(ctx context.Context) (*sync.WaitGroup, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, loop := range []func(context.Context){
		w.progress.loop, w.heartbeats, w.sweeps, w.collects, w.health, w.advises,
		func(ctx context.Context) { w.pool.loop(ctx, w.every.pool) },
	} {
		wg.Go(func() { loop(ctx) })
	}
	return &wg, stop
}

// Drain stops claiming, lets what is held end, hands back what has not started, and waits until Run has cleaned up.
// When ctx ends first it aborts, and returns ctx's error after that.
func (w *Worker) Drain(ctx context.Context) error {
	w.drain()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		w.Abort()
		return ctx.Err()
	}
}

// Abort kills what runs, settles it as lost, hands back what has not started, and waits until Run has cleaned up.
func (w *Worker) Abort() {
	w.abort()
	<-w.done
}

func (w *Worker) drain() { w.drainOnce.Do(func() { close(w.draining) }) }

func (w *Worker) abort() {
	w.drain()
	w.abortOnce.Do(func() { close(w.aborted) })
}

// place is one of the worker's places: it takes one activation at a time, and the next when that has ended. What it holds stands
// in its entry of the journal.
func (w *Worker) place(claiming, running context.Context, e *entry) {
	for pause := firstPause; ; {
		ctx, duty, ok := w.gate.pass(claiming)
		if !ok {
			return
		}
		d, err := w.o.Deliveries.Next(ctx)
		if err != nil {
			if claiming.Err() != nil {
				return
			}
			if ctx.Err() == nil { // otherwise the gate has closed
				w.log.Warn("no activation could be taken", "error", err)
				sleep(claiming, pause)
				pause = next(pause)
			}
			continue
		}
		pause = firstPause
		w.busy.Add(1)
		w.handle(duty, running, e, d)
		w.busy.Add(-1)
	}
}
