package control

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

const group = faena.DefaultGroup

// patience is how long a test waits for what takes no time on a machine that is idle.
const patience = time.Minute

// TestMain lets more tests run at once than there are cores: they wait more than they compute.
func TestMain(m *testing.M) { os.Exit(faenatest.Run(m, 8)) }

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
	wire      *wire // where it was started with wired: it can be killed

	cancel context.CancelFunc
	ended  chan struct{} // closed when Run has returned err
	err    error
}

// change is what a test wants otherwise than the rig has it.
type change func(r *rig, o *Options, t *times)

// several is for an installation of several hosts: it has groups.
func several(_ *rig, o *Options, _ *times) { o.SingleHost = false }

// hasty makes the leader do each second what it does each minute.
func hasty(_ *rig, _ *Options, t *times) {
	t.sweepEvery, t.sweepRest, t.orphanAge = 50*time.Millisecond, 1, 400*time.Millisecond
	t.pruneEvery, t.projectAll = 200*time.Millisecond, time.Second
	t.driftAfter = time.Second
}

// waits is for an API where n activations of a user may wait in the backlog; elsewhere none may, so that limits can be seen.
func waits(n int) change { return func(_ *rig, o *Options, _ *times) { o.BacklogLimit = n } }

// wired is for an API that is killed.
func wired(r *rig, o *Options, _ *times) {
	r.wire = r.nats.newWire(r.t)
	o.Bus = newFaultyBus(r.nats.connect(r.t, r.wire.url()))
}

// start starts one API, and with it whatever it needs. It has no worker yet.
func start(t *testing.T, changes ...change) *rig {
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
	return startAPI(t, n, &faultyDocuments{Documents: store}, "api-1", changes)
}

// another starts one more API beside the first.
func (r *rig) another(instance string, changes ...change) *rig {
	r.t.Helper()
	return startAPI(r.t, r.nats, &faultyDocuments{Documents: r.documents.Documents}, instance, changes)
}

func startAPI(t *testing.T, n *natsServer, documents *faultyDocuments, instance string, changes []change) *rig {
	t.Helper()
	r := &rig{t: t, nats: n, documents: documents, observer: &observer{}, passwords: &passwords{}, resolver: &resolver{},
		ended: make(chan struct{})}
	o := Options{Instance: instance, Documents: documents, Resolver: r.resolver, Sealer: sealer{}, Passwords: r.passwords,
		Observer: r.observer, Logger: slog.New(slog.DiscardHandler), Arch: "amd64", SingleHost: true,
		Default:           faena.Group{Recipient: group, ConnectedAt: new(time.Time)},
		MaxParameterBytes: 6 << 20, AsyncStartWithin: time.Hour, DrainAfter: 100 * time.Millisecond}
	times := usualTimes()
	for _, change := range changes {
		change(r, &o, &times)
	}
	if o.Bus == nil {
		o.Bus = newFaultyBus(n.connect(t, n.URLs()...))
	}
	r.bus = o.Bus.(*faultyBus)
	documents.gate = &r.bus.gate
	r.Control = New(o)
	r.times = times
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	ready := make(chan struct{})
	go func() {
		defer close(r.ended)
		r.err = r.Run(ctx, ready)
	}()
	select {
	case <-ready:
	case <-r.ended:
		cancel()
		t.Fatalf("the API does not start: %v", r.err)
	}
	t.Cleanup(r.stop)
	return r
}

// stop ends the API as a restart of its host would.
func (r *rig) stop() {
	r.cancel()
	<-r.ended
	if r.err != nil && !r.wire.isCut() {
		r.t.Errorf("the API ended with %v", r.err)
	}
}

// kill ends the API at once: nothing more of it reaches the server or the store. It does not wait.
func (r *rig) kill() {
	r.wire.cut()
	r.dead()
}

func (r *rig) dead() {
	r.documents.away.Store(true)
	r.cancel()
}

// dies makes the API be killed at the n-th message that it sends under a subject with a prefix, before or after that.
func (r *rig) dies(prefix string, n int, v verdict) {
	r.wire.on(func(subject string) verdict {
		if strings.HasPrefix(subject, prefix) {
			n--
		}
		if n > 0 {
			return pass
		}
		r.dead()
		return v
	})
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

// hearsOnly makes an API forget nothing by its age: that something has changed it knows from announcements alone. Before its first call.
func (r *rig) hearsOnly() {
	since := time.Now()
	now := func() time.Time { return since }
	r.functions.now, r.users.now = now, now
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
	faenatest.EventuallyNil(r.t, patience, "activation "+id+" is "+string(want), func() (err error) {
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
	faenatest.EventuallyNil(r.t, patience, fmt.Sprintf("%d activations are recorded", n), func() (err error) {
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

// history waits until the document store has exactly n activations of ann's.
func (r *rig) history(n int) {
	r.t.Helper()
	faenatest.EventuallyNil(r.t, patience, fmt.Sprintf("%d activations are recorded", n), func() error {
		list, err := r.documents.Activations(r.t.Context(), faena.HistoryQuery{User: "ann", Limit: 1000})
		if err == nil && len(list) != n {
			err = fmt.Errorf("there are %d", len(list))
		}
		return err
	})
}

// quiet waits until nothing is live, and checks what must hold then: no message, no record, no object, no drift, and counters that
// say so.
func (r *rig) quiet() {
	r.t.Helper()
	r.empty()
	r.nats.counters(r.t, "ann", map[string]string{activeCounter: "0"})
}

// empty is quiet but for the counters, which want a leader.
func (r *rig) empty() {
	r.t.Helper()
	faenatest.EventuallyNil(r.t, patience, "all is quiet", func() error {
		active, err := r.bus.ActiveByUser(r.t.Context(), group)
		if err != nil || len(active) > 0 {
			return fmt.Errorf("active are %v, %w", active, err)
		}
		if waiting, err := r.bus.BacklogByUser(r.t.Context(), group); err != nil || len(waiting) > 0 {
			return fmt.Errorf("in the backlog are %v, %w", waiting, err)
		}
		if _, _, records, err := r.bus.Fill(r.t.Context(), group); err != nil || records > 0 {
			return fmt.Errorf("the bucket has %d records, %w", records, err)
		}
		if names := r.nats.objectNames(r.t, group); !r.mayBeLeft(names) {
			return fmt.Errorf("left are the objects %v", names)
		}
		if is, _ := r.observer.conserved(group); is.Drift != 0 {
			return fmt.Errorf("the drift is %d", is.Drift)
		}
		return nil
	})
}

// mayBeLeft reports whether objects are only what an API leaves that is killed before it has made a record for its parameter:
// they go by their age.
func (r *rig) mayBeLeft(names []string) bool {
	users, err := r.documents.Documents.Users(r.t.Context(), "", 10)
	noError(r.t, err)
	for _, name := range names {
		id, parameter := strings.CutPrefix(name, "in.")
		if !parameter || r.wire == nil {
			return false
		}
		for _, u := range users {
			if _, err := r.documents.Documents.Activation(r.t.Context(), u.Name, id); !faena.IsKind(err, faena.KindNotFound) {
				return false
			}
		}
	}
	return true
}

// idAt is an id that was made at a time.
func idAt(at time.Time) string {
	id := uuid.Must(uuid.NewV7())
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i)))
	}
	return id.String()
}

// endedAgo is a record of ann's that was admitted a while ago, and has ended.
func endedAgo(d time.Duration) faena.Record {
	at := time.Now().UTC().Add(-d)
	return faena.Record{Schema: faena.SchemaVersion, ID: idAt(at), User: "ann", Group: group, Function: "f", State: faena.StateSucceeded, AdmittedAt: at,
		EndedAt: &at}
}

// queued is a record of ann's of an hour ago.
func queued(slot int) *faena.Record {
	at := time.Now().UTC().Add(-time.Hour)
	return &faena.Record{Schema: faena.SchemaVersion, ID: idAt(at), User: "ann", Group: group, Function: "f", Revision: 1, Slot: slot, Publication: 1,
		StartWithinMS: 7_200_000, State: faena.StateQueued, AdmittedAt: at}
}

// orphan stores a queued record without a message, as an API leaves it that is killed between the two.
func (r *rig) orphan(changes ...func(*faena.Record)) *faena.Record {
	r.t.Helper()
	rec := queued(0)
	for _, change := range changes {
		change(rec)
	}
	_, err := r.bus.Bus.CreateRecord(r.t.Context(), rec)
	noError(r.t, err)
	return rec
}

// publish puts the message of a record into its slot.
func (r *rig) publish(rec *faena.Record) error {
	m := &faena.Message{Schema: faena.SchemaVersion, ID: rec.ID, Revision: &faena.Revision{Schema: faena.SchemaVersion, User: "ann", Function: "f"}}
	_, _, err := r.bus.Bus.Publish(r.t.Context(), rec.User, rec.Group, rec.Slot, 1, m)
	return err
}

// newGroup makes a group that is ready, and waits until this API knows it.
func (r *rig) newGroup(name string) {
	r.t.Helper()
	_, err := r.PutGroup(r.t.Context(), faena.Group{Name: name, Recipient: "age1" + name})
	noError(r.t, err)
	noError(r.t, r.documents.ConnectGroup(r.t.Context(), name, time.Now()))
	r.knows(name)
}

// knows waits until this API knows exactly these groups besides the default one.
func (r *rig) knows(names ...string) {
	r.t.Helper()
	want := slices.Sorted(slices.Values(append(names, group)))
	faenatest.EventuallyNil(r.t, patience, r.o.Instance+" knows the groups", func() (err error) {
		if got := r.GroupNames(); !slices.Equal(got, want) {
			err = fmt.Errorf("it knows %v, not %v", got, want)
		}
		return err
	})
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

func (n *natsServer) connect(t *testing.T, urls ...string) *natsbus.Bus {
	t.Helper()
	b, err := natsbus.Connect(t.Context(), natsbus.Options{URLs: urls, MaxStore: 1 << 30, GroupStore: 256 << 20})
	noError(t, err)
	t.Cleanup(b.Close)
	noError(t, b.Declare(t.Context()))
	return b
}

// counters waits until a user's counters have the values, as text.
func (n *natsServer) counters(t *testing.T, user string, want map[string]string) {
	t.Helper()
	n.countersIn(t, patience, user, want)
}

// countersSoon is counters within a second, and what a busy machine adds: long before all are projected.
func (n *natsServer) countersSoon(t *testing.T, user string, want map[string]string) {
	t.Helper()
	n.countersIn(t, 20*time.Second, user, want)
}

func (n *natsServer) countersIn(t *testing.T, within time.Duration, user string, want map[string]string) {
	t.Helper()
	kv, err := n.JetStream(t).KeyValue(t.Context(), "users")
	noError(t, err)
	for name, value := range want {
		faenatest.EventuallyNil(t, within, user+"."+name+" is "+value, func() error {
			e, err := kv.Get(t.Context(), user+"."+name)
			if err == nil && string(e.Value()) != value {
				err = fmt.Errorf("it is %s", e.Value())
			}
			return err
		})
	}
}

// recorderWait is how long from now on what an API was given to record stays away from the others when it dies. Any API that
// starts sets it back to a minute.
func (n *natsServer) recorderWait(t *testing.T, wait time.Duration) {
	t.Helper()
	js := n.JetStream(t)
	consumer, err := js.Consumer(t.Context(), "KV_activations-"+group, "recorder")
	noError(t, err)
	config := consumer.CachedInfo().Config
	config.AckWait = wait
	_, err = js.UpdateConsumer(t.Context(), "KV_activations-"+group, config)
	noError(t, err)
}

// objects counts what is in a group's object store.
func (n *natsServer) objects(t *testing.T, group string) int { return len(n.objectNames(t, group)) }

func (n *natsServer) objectNames(t *testing.T, group string) (names []string) {
	t.Helper()
	// Not by the library's list: that may wait for ever where an object is removed meanwhile.
	prefix := "$O.objects-" + group + ".M."
	stream, err := n.JetStream(t).Stream(t.Context(), "OBJ_objects-"+group)
	noError(t, err)
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(prefix+">"))
	noError(t, err)
	for subject := range info.State.Subjects {
		name, err := base64.URLEncoding.DecodeString(strings.TrimPrefix(subject, prefix))
		noError(t, err)
		names = append(names, string(name))
	}
	return names
}
