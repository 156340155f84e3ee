package control

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

const group = faena.DefaultGroup

// TestMain lets more tests run at once than there are cores: they wait more than they compute.
func TestMain(m *testing.M) { os.Exit(faenatest.Run(m, 6)) }

// rig is an API's use cases on a real NATS server and a real document store, with what they are given besides.
type rig struct {
	*Control
	t         *testing.T
	nats      *natsServer
	bus       *faultyBus
	documents *faultyDocuments
	observer  *observer
	passwords *passwords
	resolver  *resolver
}

// start starts one API, and with it whatever it needs. It has no worker yet.
func start(t *testing.T) *rig {
	t.Helper()
	n := &natsServer{natstest.Start(t, natstest.Options{})}
	store, err := boltstore.Open(filepath.Join(t.TempDir(), "faena.db"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return startAPI(t, n, &faultyDocuments{Documents: store}, "api-1")
}

// another starts one more API beside the first.
func (r *rig) another(instance string) *rig {
	r.t.Helper()
	return startAPI(r.t, r.nats, &faultyDocuments{Documents: r.documents.Documents}, instance)
}

func startAPI(t *testing.T, n *natsServer, documents *faultyDocuments, instance string) *rig {
	t.Helper()
	r := &rig{t: t, nats: n, bus: &faultyBus{Bus: n.connect(t)}, documents: documents, observer: &observer{}, passwords: &passwords{},
		resolver: &resolver{}}
	r.Control = New(Options{Instance: instance, Bus: r.bus, Documents: documents, Resolver: r.resolver, Sealer: sealer{},
		Passwords: r.passwords, Observer: r.observer, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Arch: "amd64", SingleHost: true,
		Default:           faena.Group{Recipient: group, ConnectedAt: new(time.Time)},
		MaxParameterBytes: 6 << 20, AsyncStartWithin: time.Hour, DrainAfter: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- r.Run(ctx, ready) }()
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		t.Fatalf("the API does not start: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the API ended with %v", err)
		}
	})
	return r
}

// user makes or changes a user with a limit.
func (r *rig) user(name string, limit int) {
	r.t.Helper()
	_, err := r.PutUser(r.t.Context(), faena.User{Name: name, Groups: map[string]int{group: limit}}, "")
	noError(r.t, err)
}

// deploy makes a function, or a revision of it.
func (r *rig) deploy(user, name string, change ...func(*faena.Spec)) faena.Function {
	r.t.Helper()
	spec := faena.Spec{Image: "registry.example.org/" + name + ":1", Input: faena.InputStdin}
	for _, c := range change {
		c(&spec)
	}
	f, _, _, _, err := r.Deploy(r.t.Context(), user, faena.Deployment{Name: name, Spec: spec})
	noError(r.t, err)
	return f
}

// call activates ann's function f and waits for it.
func (r *rig) call(parameter string) (faena.Record, error) {
	return r.Activate(r.t.Context(), faena.ActivationRequest{User: "ann", Function: "f", Parameter: []byte(parameter)})
}

// send activates ann's function f without waiting for it.
func (r *rig) send(parameter string) (faena.Record, error) {
	return r.Activate(r.t.Context(), faena.ActivationRequest{User: "ann", Function: "f", Parameter: []byte(parameter), Async: true})
}

// accepted is send where that must succeed; it returns the id.
func (r *rig) accepted(parameter string) string {
	r.t.Helper()
	rec, err := r.send(parameter)
	noError(r.t, err)
	return rec.ID
}

// becomes waits until an activation of ann's is in a state.
func (r *rig) becomes(id string, want faena.State) faena.Record {
	r.t.Helper()
	var got faena.Record
	faenatest.EventuallyNil(r.t, 10*time.Second, "activation "+id+" is "+string(want), func() (err error) {
		if got, err = r.Activation(r.t.Context(), "ann", id); err == nil && got.State != want {
			err = fmt.Errorf("it is %s", got.State)
		}
		return err
	})
	return got
}

// stored waits until the document store has n activations of ann's, and checks that it has no more.
func (r *rig) stored(n int) []faena.Record {
	r.t.Helper()
	var list []faena.Record
	faenatest.EventuallyNil(r.t, 10*time.Second, fmt.Sprintf("%d activations are recorded", n), func() (err error) {
		list, err = r.documents.Activations(r.t.Context(), faena.HistoryQuery{User: "ann", Limit: 1000})
		if err == nil && len(list) < n {
			err = fmt.Errorf("there are %d", len(list))
		}
		return err
	})
	if len(list) != n {
		r.t.Errorf("%d activations are recorded, want %d", len(list), n)
	}
	return list
}

// quiet waits until nothing is live, and checks what must hold then: no message, no record, no object, no drift, and
// counters that say so.
func (r *rig) quiet() {
	r.t.Helper()
	faenatest.EventuallyNil(r.t, 10*time.Second, "all is quiet", func() error {
		active, err := r.bus.ActiveByUser(r.t.Context(), group)
		if err != nil || len(active) > 0 {
			return fmt.Errorf("active are %v, %w", active, err)
		}
		if _, _, records, err := r.bus.Fill(r.t.Context(), group); err != nil || records > 0 {
			return fmt.Errorf("the bucket has %d records, %w", records, err)
		}
		if n := r.nats.objects(r.t); n > 0 {
			return fmt.Errorf("%d objects are left", n)
		}
		if n, known := r.observer.lastDrift(); n != 0 || !known {
			return fmt.Errorf("the drift is %d", n)
		}
		return nil
	})
	r.nats.counters(r.t, "ann", map[string]string{activeCounter: "0"})
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// isKind checks that err has kind k, and returns it.
func isKind(t testing.TB, err error, k faena.Kind) *faena.Error {
	t.Helper()
	e, ok := asError(err)
	if !ok || e.Kind != k {
		t.Errorf("the error is %v, want one of kind %s", err, k)
		return &faena.Error{}
	}
	return e
}

// natsServer is the NATS server of this test.
type natsServer struct{ *natstest.Servers }

func (n *natsServer) connect(t *testing.T) *natsbus.Bus {
	t.Helper()
	b, err := natsbus.Connect(t.Context(), natsbus.Options{URLs: n.URLs(), MaxStore: 256 << 20})
	noError(t, err)
	t.Cleanup(b.Close)
	noError(t, b.Declare(t.Context()))
	return b
}

// counters waits until a user's counters have the values, as text: for a second, and what a busy machine adds.
func (n *natsServer) counters(t *testing.T, user string, want map[string]string) {
	t.Helper()
	kv, err := n.JetStream(t).KeyValue(t.Context(), "users")
	noError(t, err)
	for name, value := range want {
		faenatest.EventuallyNil(t, 2*time.Second, user+"."+name+" is "+value, func() error {
			e, err := kv.Get(t.Context(), user+"."+name)
			if err == nil && string(e.Value()) != value {
				err = fmt.Errorf("it is %s", e.Value())
			}
			return err
		})
	}
}

// objects counts what is in the group's object store.
func (n *natsServer) objects(t *testing.T) int {
	t.Helper()
	store, err := n.JetStream(t).ObjectStore(t.Context(), "objects-"+group)
	noError(t, err)
	list, err := store.List(t.Context())
	if err != nil && !strings.Contains(err.Error(), "no objects found") {
		t.Fatal(err)
	}
	return len(list)
}

// faultyBus is the bus with faults put in: each hook, where set, is asked before a call. Where it returns an error the
// call returns that; after it says whether the call is made all the same, so that only its answer is lost.
type faultyBus struct {
	*natsbus.Bus
	created atomic.Int64
	full    atomic.Bool // Fill says so
	mu      sync.Mutex
	publish func(m *faena.Message) (err error, after bool)
	create  func(r *faena.Record) (err error, after bool)
}

func (b *faultyBus) onPublish(fn func(m *faena.Message) (err error, after bool)) {
	b.mu.Lock()
	b.publish = fn
	b.mu.Unlock()
}

func (b *faultyBus) onCreate(fn func(r *faena.Record) (err error, after bool)) {
	b.mu.Lock()
	b.create = fn
	b.mu.Unlock()
}

func (b *faultyBus) Publish(ctx context.Context, user, group string, slot, publication int, m *faena.Message) (uint64, bool, error) {
	b.mu.Lock()
	fn := b.publish
	b.mu.Unlock()
	if fn != nil {
		if err, after := fn(m); err != nil {
			if after {
				_, _, _ = b.Bus.Publish(ctx, user, group, slot, publication, m)
			}
			return 0, false, err
		}
	}
	return b.Bus.Publish(ctx, user, group, slot, publication, m)
}

func (b *faultyBus) CreateRecord(ctx context.Context, r *faena.Record) (uint64, error) {
	b.created.Add(1)
	b.mu.Lock()
	fn := b.create
	b.mu.Unlock()
	if fn != nil {
		if err, after := fn(r); err != nil {
			if after {
				_, _ = b.Bus.CreateRecord(ctx, r)
			}
			return 0, err
		}
	}
	return b.Bus.CreateRecord(ctx, r)
}

func (b *faultyBus) Fill(ctx context.Context, group string) (float64, string, uint64, error) {
	fraction, what, records, err := b.Bus.Fill(ctx, group)
	if b.full.Load() {
		fraction, what = 0.85, "the object store of group "+group
	}
	return fraction, what, records, err
}

// faultyDocuments is a document store that can be away, and whose inserts can fail.
type faultyDocuments struct {
	faena.Documents
	away    atomic.Bool
	inserts atomic.Int64
	insert  func(n int64) (err error, after bool) // asked before the n-th Insert; as in faultyBus
}

var errAway = faena.Unavailable(faena.ComponentStore, "store_unavailable", "The document store is away.", nil)

func (d *faultyDocuments) Insert(ctx context.Context, records []faena.Record) error {
	if d.away.Load() {
		return errAway
	}
	n := d.inserts.Add(1)
	if d.insert != nil {
		if err, after := d.insert(n); err != nil {
			if after {
				_ = d.Documents.Insert(ctx, records)
			}
			return err
		}
	}
	return d.Documents.Insert(ctx, records)
}

func (d *faultyDocuments) Function(ctx context.Context, user, name string) (faena.Function, error) {
	if d.away.Load() {
		return faena.Function{}, errAway
	}
	return d.Documents.Function(ctx, user, name)
}

func (d *faultyDocuments) User(ctx context.Context, name string) (faena.User, error) {
	if d.away.Load() {
		return faena.User{}, errAway
	}
	return d.Documents.User(ctx, name)
}

func (d *faultyDocuments) Users(ctx context.Context, after string, limit int) ([]faena.User, error) {
	if d.away.Load() {
		return nil, errAway
	}
	return d.Documents.Users(ctx, after, limit)
}

func (d *faultyDocuments) UserUsage(ctx context.Context, user string) (faena.Usage, error) {
	if d.away.Load() {
		return faena.Usage{}, errAway
	}
	return d.Documents.UserUsage(ctx, user)
}

func (d *faultyDocuments) Ping(ctx context.Context) error {
	if d.away.Load() {
		return errAway
	}
	return d.Documents.Ping(ctx)
}
