package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/telemetry"
	"faena.dev/faena/internal/wiring"
	"faena.dev/faena/internal/worker"
)

const (
	group = faena.DefaultGroup
	// patience is the deadline of everything that these tests wait for.
	patience = time.Minute
	// never is an AckWait of a queue that gives nothing out again by itself: what comes again was handed back.
	never = time.Hour
	// maxStore is what a site's server may keep on disk; half of it is for objects.
	maxStore = 256 << 20
)

// TestMain lets more tests run at once than there are cores: they wait more than they compute.
func TestMain(m *testing.M) {
	if child, ok := os.LookupEnv(childVariable); ok {
		beWorker(child)
	}
	os.Exit(faenatest.Run(m, 6))
}

// site is a real NATS server and a real Docker Engine for workers. The test plays the API: it records and publishes, and
// nobody takes the records away.
type site struct {
	t        *testing.T
	dir      string
	server   *natsbus.Server
	urls     []string // where the server is one for other processes too
	bus      *natsbus.Bus
	identity seal.Identity
	ref      string // of an image of the fixture, which the engine has
	slots    atomic.Int64
}

// start starts a site whose messages are delivered again after ackWait; 0 is as in production.
func start(t *testing.T, ackWait time.Duration) *site {
	t.Helper()
	return open(t, ackWait, nil)
}

// open starts a site with a server of its own, or with one that is there.
func open(t *testing.T, ackWait time.Duration, servers *natstest.Servers) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "faena") // short: sockets of containers are below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &site{t: t, dir: dir}
	s.check(os.Chmod(dir, 0o711)) // containers reach their sockets through it
	if servers != nil {
		s.urls = servers.URLs()
	} else {
		s.server, err = natsbus.StartServer(natsbus.ServerOptions{Dir: filepath.Join(dir, "nats"), MaxStore: maxStore})
		s.check(err)
		t.Cleanup(s.server.Shutdown)
	}
	s.bus = s.connect("api", ackWait)
	s.check(s.bus.Declare(t.Context()))
	s.identity, err = seal.LoadOrCreate(filepath.Join(dir, "seal.key"))
	s.check(err)
	s.ref = faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{}))
	return s
}

func (s *site) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) connect(name string, ackWait time.Duration) *natsbus.Bus {
	s.t.Helper()
	b, err := natsbus.Connect(s.t.Context(), natsbus.Options{Name: name, Server: s.server, URLs: s.urls, AckWait: ackWait, MaxStore: maxStore})
	s.check(err)
	s.t.Cleanup(b.Close)
	return b
}

// hand is a worker with a connection of its own.
type hand struct {
	*wiring.Worker
	s       *site
	id      string
	bus     *natsbus.Bus
	log     *log
	met     *telemetry.Metrics
	end     context.CancelFunc // of Run's context
	closing sync.Once
	ended   chan struct{} // closed when Run has returned
	err     error         // what it returned
}

// hand makes a worker that does not run. When the test ends it must have left no container.
func (s *site) hand(id string, change ...func(*wiring.WorkerOptions)) *hand {
	s.t.Helper()
	h := &hand{s: s, id: id + "-" + filepath.Base(s.dir), bus: s.connect(id, 0), log: &log{to: s.t.Output()}, ended: make(chan struct{})}
	h.met = telemetry.New(telemetry.Build{})
	o := place{ID: h.id, DataDir: filepath.Join(s.dir, id), InitPath: faenatest.InitBinary(s.t), DockerHost: faenatest.Engine(s.t).Host}.
		options(h.bus, s.identity, h.met, h.log)
	for _, c := range change {
		c(&o)
	}
	s.check(os.MkdirAll(o.DataDir, 0o711))
	faenatest.NoContainersLeft(s.t, h.id)
	var err error
	h.Worker, err = wiring.NewWorker(s.t.Context(), o)
	s.check(err)
	return h
}

// place is where a worker is.
type place struct{ ID, DataDir, InitPath, DockerHost string }

func (p place) options(bus *natsbus.Bus, identity seal.Identity, met *telemetry.Metrics, log io.Writer) wiring.WorkerOptions {
	c := config.DefaultWorker()
	c.Pool.ID, c.Pool.Places, c.Pool.Memory, c.Pool.DiskMinFree = p.ID, 2, 1<<30, 1<<20
	c.Engine.InitPath, c.Engine.DockerHost = p.InitPath, p.DockerHost
	return wiring.WorkerOptions{DataDir: p.DataDir, Pool: c.Pool, Engine: c.Engine, Bus: bus, Identity: identity,
		Metrics: met, Logger: slog.New(slog.NewTextHandler(log, nil))}
}

// log is what a worker says of itself.
type log struct {
	to io.Writer
	mu sync.Mutex
	b  strings.Builder
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p)
	return l.to.Write(p)
}

func (l *log) has(words string) bool { return l.count(words) > 0 }

func (l *log) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), words)
}

// inOrder reports whether a worker said last for the last time after it had said first.
func (l *log) inOrder(first, last string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.LastIndex(l.b.String(), last) > strings.LastIndex(l.b.String(), first)
}

// run makes a worker and runs it until the test ends.
func (s *site) run(id string, change ...func(*wiring.WorkerOptions)) *hand {
	s.t.Helper()
	h := s.hand(id, change...)
	h.start()
	return h
}

func (h *hand) start() {
	ctx, end := context.WithCancel(context.WithoutCancel(h.s.t.Context()))
	h.end = end
	go func() {
		defer close(h.ended)
		h.err = h.Run(ctx)
	}()
	h.s.t.Cleanup(func() {
		defer end()
		h.close()
		if h.err != nil && h.bus.Connected() {
			h.s.t.Errorf("worker %s ended with %v", h.id, h.err)
		}
	})
}

// close ends a worker and lets go of all that it has, so that another one of its name can begin.
func (h *hand) close() {
	h.closing.Do(func() {
		h.Abort()
		<-h.ended
		h.Close()
	})
}

// quick makes a worker that confirms, re-reads and gives up in moments, and runs it.
func (s *site) quick(id string, every worker.Every, change ...func(*wiring.WorkerOptions)) *hand {
	s.t.Helper()
	h := s.hand(id, change...)
	h.Quicken(every)
	h.start()
	return h
}

// function is a revision whose parameter is the fixture's mode, but where mode gives one.
func (s *site) function(name string, change func(*faena.Revision), mode ...string) *faena.Revision {
	s.t.Helper()
	r := &faena.Revision{Schema: faena.SchemaVersion, User: "ana", Function: name, Number: 1, Pull: s.ref, Digest: "sha256:0",
		Spec: faena.Spec{Image: "registry.example.org/" + name + ":1", MemoryBytes: 32 << 20, TimeoutMS: 90_000}, CreatedAt: time.Now().UTC()}
	r.Config.Entrypoint = append([]string{faenatest.FixturePath}, mode...)
	if change != nil {
		change(r)
	}
	r.Spec = r.Spec.WithDefaults()
	return r
}

// send records and publishes an activation, as an API does, and returns its id.
func (s *site) send(rev *faena.Revision, parameter string, change ...func(*faena.Record)) (id string) {
	s.t.Helper()
	r := &faena.Record{Schema: faena.SchemaVersion, ID: uuid.Must(uuid.NewV7()).String(), User: rev.User, Group: group, Function: rev.Function,
		Revision: rev.Number, Digest: rev.Digest, Slot: int(s.slots.Add(1)), Publication: 1, StartWithinMS: 60_000, State: faena.StateQueued,
		AdmittedAt: time.Now().UTC()}
	for _, c := range change {
		c(r)
	}
	p := faena.Blob{Size: int64(len(parameter)), Inline: []byte(parameter)}
	if len(parameter) > faena.MaxInlineBytes {
		p.Object, p.Inline = "in."+r.ID, nil
		r.ParameterObject = p.Object
		s.check(s.bus.PutObject(s.t.Context(), group, p.Object, []byte(parameter)))
	}
	stored, err := s.bus.CreateRecord(s.t.Context(), r)
	s.check(err)
	m := &faena.Message{Schema: faena.SchemaVersion, ID: r.ID, Record: r, RecordRevision: stored, Revision: rev, Parameter: p}
	_, _, err = s.bus.Publish(s.t.Context(), r.User, group, r.Slot, r.Publication, m)
	s.check(err)
	return r.ID
}

// change changes a record, as an API or another worker does.
func (s *site) change(id string, change func(*faena.Record)) {
	s.t.Helper()
	faenatest.EventuallyNil(s.t, patience, "the record is changed", func() error {
		r, rev := s.read(id)
		change(r)
		_, err := s.bus.UpdateRecord(s.t.Context(), r, rev)
		return err
	})
}

func (s *site) record(id string) *faena.Record {
	s.t.Helper()
	r, _ := s.read(id)
	return r
}

// read reads a record that is there, however busy the host is.
func (s *site) read(id string) (r *faena.Record, rev uint64) {
	s.t.Helper()
	faenatest.EventuallyNil(s.t, patience, "the record is read", func() (err error) {
		r, rev, err = s.bus.Record(s.t.Context(), group, "ana", id)
		if faena.IsKind(err, faena.KindNotFound) {
			s.check(err)
		}
		return err
	})
	return r, rev
}

// object reads one that is there, likewise.
func (s *site) object(name string) (data []byte) {
	s.t.Helper()
	faenatest.EventuallyNil(s.t, patience, "object "+name+" is read", func() (err error) {
		data, err = s.bus.Object(s.t.Context(), group, name)
		if faena.IsKind(err, faena.KindNotFound) {
			s.check(err)
		}
		return err
	})
	return data
}

// is waits until an activation is in a state.
func (s *site) is(id string, want faena.State) *faena.Record {
	s.t.Helper()
	var r *faena.Record
	faenatest.EventuallyNil(s.t, patience, "activation "+id+" is "+string(want), func() error {
		if r = s.record(id); r.State != want {
			return fmt.Errorf("it is %s (%s: %s)", r.State, r.Reason, r.Message)
		}
		return nil
	})
	return r
}

// wrote waits until the log of a running activation is what it should be.
func (s *site) wrote(id, want string) {
	s.t.Helper()
	faenatest.Eventually(s.t, patience, "its log is "+want, func() bool {
		_, p, err := s.bus.LogSoFar(s.t.Context(), group, id)
		return err == nil && string(p) == want
	})
}

// ended waits until an activation has come to its end.
func (s *site) ended(id string) *faena.Record {
	s.t.Helper()
	var r *faena.Record
	faenatest.EventuallyNil(s.t, patience, "activation "+id+" has ended", func() error {
		if r = s.record(id); !r.State.Terminal() {
			return errors.New(string(r.State))
		}
		return nil
	})
	return r
}

// call activates and waits for the end.
func (s *site) call(rev *faena.Revision, parameter string) *faena.Record {
	s.t.Helper()
	return s.ended(s.send(rev, parameter))
}

// says checks that an activation succeeds with a result.
func (s *site) says(want string, rev *faena.Revision, parameter string) *faena.Record {
	s.t.Helper()
	r := s.call(rev, parameter)
	if r.State != faena.StateSucceeded || string(r.Result.Inline) != want {
		s.t.Errorf("%s %s: %s %s (%s), result %.200q, want %q", rev.Function, parameter, r.State, r.Reason, r.Message, r.Result.Inline, want)
	}
	return r
}

// container is the short id of the container that an activation finds itself in.
func (s *site) container(rev *faena.Revision) (id string, r *faena.Record) {
	s.t.Helper()
	r = s.call(rev, "env")
	for line := range strings.Lines(string(r.Result.Inline)) {
		if host, ok := strings.CutPrefix(line, "HOSTNAME="); ok {
			return strings.TrimSpace(host), r
		}
	}
	s.t.Fatalf("%s does not say where it runs: %s %s (%s)", rev.Function, r.State, r.Reason, r.Message)
	return "", nil
}

// quiet waits until no message is in the stream: every slot is free.
func (s *site) quiet() {
	s.t.Helper()
	faenatest.EventuallyNil(s.t, patience, "the stream is empty", func() error {
		n, err := s.bus.QueueDepth(s.t.Context(), group)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d messages", n)
		}
		return err
	})
}

// idle waits until a worker has nothing to do: what it says of itself comes a moment after an activation's end.
func (h *hand) idle() {
	h.s.t.Helper()
	faenatest.Eventually(h.s.t, patience, "the worker has nothing to do", func() bool { return h.Describe().Busy == 0 })
}

// metric is the value of one of a worker's metrics, by its name with its labels; 0 where it has none.
func (h *hand) metric(name string) int { return metric(h.met, name) }

func metric(m *telemetry.Metrics, name string) int {
	answer := httptest.NewRecorder()
	m.Operations(nil, slog.New(slog.DiscardHandler)).Handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	_, after, _ := strings.Cut(answer.Body.String(), "\n"+name+" ")
	count, _, _ := strings.Cut(after, "\n")
	n, _ := strconv.Atoi(count)
	return n
}

// containers are those of a worker that the engine has.
func (h *hand) containers() []string {
	h.s.t.Helper()
	return faenatest.Engine(h.s.t).Containers(h.s.t, "faena.worker="+h.id)
}
