package control

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
)

// observer remembers what it is told.
type observer struct {
	mu       sync.Mutex
	admitted int
	refused  map[string]int
	recorded int
	books    map[string]faena.Conservation // by group
	released int
	leads    bool
	swept    map[faena.Reason]int
	pruned   int
	trimmed  int
}

func (o *observer) Admitted(string, bool) {
	o.mu.Lock()
	o.admitted++
	o.mu.Unlock()
}

func (o *observer) Refused(reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused == nil {
		o.refused = make(map[string]int)
	}
	o.refused[reason]++
}

func (o *observer) Recorded(*faena.Record) {
	o.mu.Lock()
	o.recorded++
	o.mu.Unlock()
}

func (o *observer) Leading(yes bool) {
	o.mu.Lock()
	o.leads = yes
	o.mu.Unlock()
}

func (o *observer) Swept(reason faena.Reason) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.swept == nil {
		o.swept = make(map[faena.Reason]int)
	}
	o.swept[reason]++
}

func (o *observer) Pruned(n int) {
	o.mu.Lock()
	o.pruned += n
	o.mu.Unlock()
}

func (o *observer) Trimmed(n int) {
	o.mu.Lock()
	o.trimmed += n
	o.mu.Unlock()
}

func (o *observer) trimmedSoFar() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.trimmed
}

func (o *observer) Released(string) {
	o.mu.Lock()
	o.released++
	o.mu.Unlock()
}

func (o *observer) Conserved(group string, is *faena.Conservation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.books == nil {
		o.books = make(map[string]faena.Conservation)
	}
	if delete(o.books, group); is != nil {
		o.books[group] = *is
	}
}

// conserved is what was said last of a group.
func (o *observer) conserved(group string) (is faena.Conservation, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	is, known = o.books[group]
	return is, known
}

func (o *observer) releasedSoFar() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.released
}

func (o *observer) isLeading() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.leads
}

func (o *observer) sweptAs(reason faena.Reason) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.swept[reason]
}

func (o *observer) prunedSoFar() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pruned
}

// passwords hashes in a way that can be read, and remembers whom it was told to forget.
type passwords struct {
	hooks
	mu     sync.Mutex
	forgot []string
}

func (p *passwords) Hash(_ context.Context, password string) (string, error) {
	if strings.ContainsAny(password, ": ") {
		return "", faena.Invalid(faena.FieldError{Field: "password", Message: "has a colon or a space"})
	}
	return "hash of " + password, p.ask("Hash")
}

func (p *passwords) Forget(user string) {
	p.mu.Lock()
	p.forgot = append(p.forgot, user)
	p.mu.Unlock()
}

// noRecipient looks like a key, and is none.
const noRecipient = "age1none"

// sealer seals with a name on it.
type sealer struct{}

func (sealer) Seal(group string, plaintext []byte) ([]byte, error) {
	if group == noRecipient {
		return nil, errors.New("no key")
	}
	return append([]byte("for "+group+": "), bytes.ToUpper(plaintext)...), nil
}

// resolver knows every image, and gives each a digest of its own each time.
type resolver struct {
	mu     sync.Mutex
	n      byte
	err    error
	config faena.ImageConfig
	creds  *faena.Credentials
}

func (r *resolver) Resolve(_ context.Context, image string, creds *faena.Credentials, arch string) (faena.ResolvedImage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return faena.ResolvedImage{}, r.err
	}
	r.n++
	r.creds = creds
	config := r.config
	if config.Entrypoint == nil {
		config.Entrypoint = []string{"/entry"}
	}
	digest := "sha256:" + strings.Repeat(string("0123456789abcdef"[r.n%16]), 64)
	return faena.ResolvedImage{Digest: digest, Pull: image + "@" + digest + "+" + arch, SizeBytes: 1 << 20, Config: config}, nil
}

// job is an activation that a fake worker runs.
type job struct {
	context.Context // ends when the activation is cancelled
	record          faena.Record
	message         *faena.Message
	parameter       []byte
	w               *fakeWorker
}

// run is what a fake worker does with a job: its result, or why it failed.
type run func(j *job) (result string, reason faena.Reason)

// echo is a function that gives back its parameter.
func echo(j *job) (string, faena.Reason) { return string(j.parameter), "" }

// fakeWorker takes deliveries as a worker does, and settles them in the written order; it runs no container.
type fakeWorker struct {
	t    testing.TB
	bus  *natsbus.Bus
	id   string
	of   string // its group
	run  atomic.Pointer[run]
	jobs sync.Map // id → context.CancelFunc
	logs sync.Map // id → *bytes.Buffer, guarded by mu
	mu   sync.Mutex
	ran  atomic.Int64
	deaf atomic.Bool // it does not acknowledge
	mute atomic.Bool // it does not say that something has ended
	stop func()
}

// worker starts a fake worker of the default group with a number of places, until the test ends or stop is called.
func (r *rig) worker(places int, fn run) *fakeWorker {
	r.t.Helper()
	return r.workerOf(group, "w1", places, fn)
}

// workerOf starts a fake worker of a group, likewise.
func (r *rig) workerOf(group, id string, places int, fn run) *fakeWorker {
	r.t.Helper()
	w := &fakeWorker{t: r.t, bus: r.nats.connect(r.t, r.nats.URLs()...), id: id, of: group}
	w.does(fn)
	deliveries, err := w.bus.Deliveries(group)
	noError(r.t, err)
	stopCancels, err := w.bus.Cancels(group, w.cancel)
	noError(r.t, err)
	stopLogs, err := w.bus.ServeLogs(group, w.logSoFar)
	noError(r.t, err)
	ctx, cancel := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	beat := func() error {
		return w.bus.Heartbeat(ctx, faena.Worker{Schema: faena.SchemaVersion, ID: w.id, Group: group, Places: places, SeenAt: time.Now()})
	}
	noError(r.t, beat())
	wg.Go(func() {
		for sleep(ctx, 5*time.Second) == nil {
			_ = beat() // the next one may come through
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
	w.stop = sync.OnceFunc(func() {
		cancel()
		stopCancels()
		stopLogs()
		if err := deliveries.Close(); err != nil {
			r.t.Error(err)
		}
		wg.Wait()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = w.bus.RemoveHeartbeat(ctx, group, w.id) // the server may be gone
	})
	r.t.Cleanup(w.stop)
	return w
}

// does says what the worker does with the jobs to come.
func (w *fakeWorker) does(fn run) { w.run.Store(&fn) }

func (w *fakeWorker) cancel(id string) {
	if stop, ok := w.jobs.Load(id); ok {
		stop.(context.CancelFunc)()
	}
}

// say adds to the log of a job, and sends it on.
func (j *job) say(text string) {
	j.w.mu.Lock()
	defer j.w.mu.Unlock()
	v, _ := j.w.logs.LoadOrStore(j.record.ID, new(bytes.Buffer))
	log := v.(*bytes.Buffer)
	offset := int64(log.Len())
	log.WriteString(text)
	if err := j.w.bus.PublishLog(j.w.of, j.record.User, j.record.ID, offset, []byte(text)); err != nil {
		j.w.t.Error(err)
	}
}

func (w *fakeWorker) logSoFar(id string) (int64, []byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.logs.Load(id)
	if !ok {
		return 0, nil, false
	}
	return 0, bytes.Clone(v.(*bytes.Buffer).Bytes()), true
}

// take does with one delivery what design section 3 says in steps 3 to 5.
func (w *fakeWorker) take(ctx context.Context, d natsbus.Delivery) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	j := &job{message: d.Message, w: w}
	user, id := d.Message.Revision.User, d.Message.ID
	for {
		r, rev, err := w.bus.Record(ctx, w.of, user, id)
		if faena.IsKind(err, faena.KindNotFound) || err == nil && r.State != faena.StateQueued {
			_ = d.DoubleAck(ctx)
			return
		}
		if err != nil {
			return // it is delivered again
		}
		if err := r.Claim(w.id, d.Sequence, time.Now().UTC()); err != nil {
			w.t.Error(err)
			return
		}
		_, err = w.bus.UpdateRecord(ctx, r, rev)
		if err == nil {
			j.record = *r
			break
		}
		if !errors.Is(err, faena.ErrStale) {
			return
		}
	}
	w.ran.Add(1)
	var stop context.CancelFunc
	j.Context, stop = context.WithCancel(ctx)
	defer stop()
	w.jobs.Store(id, stop)
	defer w.jobs.Delete(id)
	j.parameter = d.Message.Parameter.Inline
	if object := d.Message.Parameter.Object; object != "" {
		var err error
		if j.parameter, err = w.bus.Object(ctx, w.of, object); err != nil {
			w.t.Error(err)
		}
	}
	result, reason := (*w.run.Load())(j)
	w.settle(ctx, d, j, result, reason)
}

func (w *fakeWorker) settle(ctx context.Context, d natsbus.Delivery, j *job, result string, reason faena.Reason) {
	for {
		r, rev, err := w.bus.Record(ctx, w.of, j.record.User, j.record.ID)
		if err != nil || !r.HeldBy(w.id, j.record.Attempt) {
			return
		}
		r.Result = faena.Blob{Size: int64(len(result)), Inline: []byte(result)}
		if _, log, ok := w.logSoFar(r.ID); ok {
			r.Log = faena.Blob{Size: int64(len(log)), Inline: log}
		}
		r.Timings.RunUS = 1000
		if reason == "" {
			err = r.Succeed(time.Now().UTC())
		} else {
			err = r.Fail(reason, "It failed.", time.Now().UTC())
		}
		if err != nil {
			w.t.Error(err)
			return
		}
		if _, err = w.bus.UpdateRecord(ctx, r, rev); err == nil {
			if !w.deaf.Load() {
				_ = d.DoubleAck(ctx)
			}
			if !w.mute.Load() {
				_ = w.bus.Complete(ctx, r)
			}
			return
		}
		if !errors.Is(err, faena.ErrStale) {
			return
		}
	}
}

// gate is a function that runs until it is opened or cancelled.
type gate struct {
	open    chan struct{}
	running atomic.Int64
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) run(j *job) (string, faena.Reason) {
	g.running.Add(1)
	defer g.running.Add(-1)
	select {
	case <-g.open:
		return string(j.parameter), ""
	case <-j.Done():
		return "", faena.ReasonCancelled
	}
}
