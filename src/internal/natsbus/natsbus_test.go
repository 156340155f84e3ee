package natsbus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
)

const group = faena.DefaultGroup

// start starts a server on a directory of the test and returns it with a connection on which all is declared.
func start(t testing.TB, o natsbus.Options) (*natsbus.Server, *natsbus.Bus) {
	t.Helper()
	s := serve(t, t.TempDir())
	return s, connect(t, s, o)
}

func serve(t testing.TB, dir string) *natsbus.Server {
	t.Helper()
	s, err := natsbus.StartServer(natsbus.ServerOptions{Dir: dir, MaxStore: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func connect(t testing.TB, s *natsbus.Server, o natsbus.Options) *natsbus.Bus {
	t.Helper()
	o.Server, o.Name = s, "test"
	b, err := natsbus.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.Declare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

func record(user string, slot int) *faena.Record {
	return &faena.Record{Schema: faena.SchemaVersion, ID: newID(), User: user, Group: group, Function: "f", Revision: 1, Slot: slot,
		Publication: 1, StartWithinMS: 60_000, State: faena.StateQueued, Instance: "api-1", AdmittedAt: time.Now().UTC()}
}

var revision = &faena.Revision{Schema: faena.SchemaVersion, User: "ana", Function: "f", Number: 1, Spec: faena.Spec{Image: "i"}.WithDefaults()}

func message(r *faena.Record) *faena.Message {
	return &faena.Message{Schema: faena.SchemaVersion, ID: r.ID, Instance: r.Instance, Revision: revision,
		Parameter: faena.Blob{Size: 3, Inline: []byte{0, 0xff, '"'}}}
}

// publish puts a record's message into its slot.
func publish(t testing.TB, b *natsbus.Bus, r *faena.Record) uint64 {
	t.Helper()
	seq, duplicate, err := b.Publish(t.Context(), r.User, group, r.Slot, r.Publication, message(r))
	if err != nil || duplicate {
		t.Fatalf("publish: duplicate %v, %v", duplicate, err)
	}
	return seq
}

func deliveries(t testing.TB, b *natsbus.Bus) *natsbus.Deliveries {
	t.Helper()
	d, err := b.Deliveries(group)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func next(t testing.TB, d *natsbus.Deliveries) natsbus.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := d.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestBus_Publish(t *testing.T) {
	_, b := start(t, natsbus.Options{})
	r := record("ana", 3)
	seq := publish(t, b, r)

	t.Run("the same publication again is a duplicate", func(t *testing.T) {
		again, duplicate, err := b.Publish(t.Context(), "ana", group, 3, 1, message(r))
		if err != nil || !duplicate || again != seq {
			t.Errorf("got %d, %v, %v; want %d, true", again, duplicate, err, seq)
		}
	})
	t.Run("another one is refused: the slot is taken", func(t *testing.T) {
		_, _, err := b.Publish(t.Context(), "ana", group, 3, 1, message(record("ana", 3)))
		if !errors.Is(err, faena.ErrSlotTaken) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the stream knows who is where", func(t *testing.T) {
		busy, err := b.BusySlots(t.Context(), group, "ana")
		if _, ok := busy[3]; err != nil || !ok || len(busy) != 1 {
			t.Errorf("busy slots %v, %v", busy, err)
		}
		active, err := b.ActiveByUser(t.Context(), group)
		if err != nil || active["ana"] != 1 {
			t.Errorf("active %v, %v", active, err)
		}
		id, at, err := b.SlotMessage(t.Context(), group, "ana", 3)
		if err != nil || id != r.ID || at != seq {
			t.Errorf("slot holds %s at %d, %v; want %s at %d", id, at, err, r.ID, seq)
		}
		if _, _, err := b.SlotMessage(t.Context(), group, "ana", 4); !faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("an empty slot: %v", err)
		}
	})
	t.Run("deleting frees the slot, and may be repeated", func(t *testing.T) {
		for range 2 {
			if err := b.DeleteMessage(t.Context(), group, seq); err != nil {
				t.Fatal(err)
			}
		}
		publish(t, b, record("ana", 3))
	})
}

func TestBus_Publish_AdmitsExactlyOnePerSlot(t *testing.T) {
	_, b := start(t, natsbus.Options{})
	const slots, tries = 20, 500
	var admitted, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range tries {
		wg.Go(func() {
			r := record("ana", i%slots)
			for {
				_, _, err := b.Publish(t.Context(), r.User, group, r.Slot, 1, message(r))
				switch {
				case err == nil:
					admitted.Add(1)
				case errors.Is(err, faena.ErrSlotTaken):
					refused.Add(1)
				case errors.Is(err, faena.ErrUnknown), errors.Is(err, faena.ErrRetry):
					continue
				default:
					t.Error(err)
				}
				return
			}
		})
	}
	wg.Wait()
	if admitted.Load() != slots || refused.Load() != tries-slots {
		t.Errorf("%d admitted and %d refused of %d, want %d admitted", admitted.Load(), refused.Load(), tries, slots)
	}
}

func TestBus_Records(t *testing.T) {
	_, b := start(t, natsbus.Options{})
	ctx := t.Context()
	r := record("ana", 0)
	rev, err := b.CreateRecord(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("is created once", func(t *testing.T) {
		if _, err := b.CreateRecord(ctx, r); !faena.IsKind(err, faena.KindConflict) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of many that change it at one revision, one wins", func(t *testing.T) {
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				mine := *r
				if err := mine.Claim(fmt.Sprintf("w%d", i), 7, time.Now().UTC()); err != nil {
					t.Error(err)
				}
				switch _, err := b.UpdateRecord(ctx, &mine, rev); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, faena.ErrStale):
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d won", won.Load())
		}
	})
	t.Run("a write whose answer was lost is known as our own", func(t *testing.T) {
		now, at, err := b.Record(ctx, group, "ana", r.ID)
		if err != nil {
			t.Fatal(err)
		}
		changed := *now
		changed.CancelRequested = true
		first, err := b.UpdateRecord(ctx, &changed, at)
		if err != nil {
			t.Fatal(err)
		}
		again, err := b.UpdateRecord(ctx, &changed, at)
		if err != nil || again != first {
			t.Errorf("the same write again: %d, %v; want %d", again, err, first)
		}
	})
	t.Run("is listed, and purged without a trace", func(t *testing.T) {
		live, err := b.LiveRecords(ctx, group, "ana")
		if err != nil || len(live) != 1 || live[0].ID != r.ID {
			t.Errorf("live records %v, %v", live, err)
		}
		if err := b.PurgeRecord(ctx, group, "ana", r.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Record(ctx, group, "ana", r.ID); !faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("after the purge: %v", err)
		}
		if _, _, n, err := b.Fill(ctx, group); err != nil || n != 0 {
			t.Errorf("%d records are left, %v", n, err)
		}
	})
}

func TestDeliveries_Next(t *testing.T) {
	_, b := start(t, natsbus.Options{AckWait: time.Second})
	d := deliveries(t, b)
	r := record("ana", 0)
	seq := publish(t, b, r)

	m := next(t, d)
	if m.Err != nil || m.Message.ID != r.ID || m.Sequence != seq || string(m.Message.Parameter.Inline) != "\x00\xff\"" {
		t.Fatalf("delivered %+v, want %s at %d", m, r.ID, seq)
	}
	t.Run("one that is not confirmed comes again with its sequence", func(t *testing.T) {
		again := next(t, d)
		if again.Sequence != seq {
			t.Errorf("got sequence %d, want %d", again.Sequence, seq)
		}
		if err := again.Nak(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if third := next(t, d); third.Sequence != seq {
			t.Errorf("handed back, then got sequence %d", third.Sequence)
		}
	})
	t.Run("one that is acknowledged has left its slot", func(t *testing.T) {
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
		if busy, err := b.BusySlots(t.Context(), group, "ana"); err != nil || len(busy) != 0 {
			t.Errorf("busy slots %v, %v", busy, err)
		}
	})
	t.Run("a place that has gone takes nothing with it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { _, err := d.Next(ctx); done <- err }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		want := publish(t, b, record("ana", 1))
		if got := next(t, d); got.Sequence != want {
			t.Errorf("got %d, want %d", got.Sequence, want)
		}
	})
}

func TestDeliveries_Next_GivesEachToOnePlace(t *testing.T) {
	_, b := start(t, natsbus.Options{})
	const n = 300
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		d := deliveries(t, b)
		for range 3 {
			wg.Go(func() {
				for {
					m, err := d.Next(ctx)
					if err != nil {
						return
					}
					if err := m.DoubleAck(t.Context()); err != nil {
						t.Error(err)
					}
					mu.Lock()
					got[m.Message.ID]++
					mu.Unlock()
				}
			})
		}
	}
	for i := range n {
		publish(t, b, record("ana", i))
	}
	faenatest.Eventually(t, 20*time.Second, "all are delivered", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == n })
	cancel()
	wg.Wait()
	for id, times := range got {
		if times != 1 {
			t.Errorf("%s was delivered %d times", id, times)
		}
	}
}

func TestServer_Restart(t *testing.T) {
	dir := t.TempDir()
	s, err := natsbus.StartServer(natsbus.ServerOptions{Dir: dir, MaxStore: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	b := connect(t, s, natsbus.Options{})
	r := record("ana", 0)
	if _, err := b.CreateRecord(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	seq := publish(t, b, r)
	s.Shutdown()
	t.Run("without a server a write fails for certain, and soon", func(t *testing.T) {
		began := time.Now()
		_, _, err := b.Publish(t.Context(), "ana", group, 1, 1, message(record("ana", 1)))
		if !errors.Is(err, faena.ErrRetry) && !errors.Is(err, faena.ErrUnknown) || time.Since(began) > 3*time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		if b.Connected() {
			t.Error("it says that it is connected")
		}
	})
	b = connect(t, serve(t, dir), natsbus.Options{})
	if m := next(t, deliveries(t, b)); m.Sequence != seq || m.Message.ID != r.ID {
		t.Errorf("after the restart %+v was delivered", m)
	}
	if got, _, err := b.Record(t.Context(), group, "ana", r.ID); err != nil || got.State != faena.StateQueued {
		t.Errorf("after the restart the record is %+v, %v", got, err)
	}
}

func TestBus_Terminal(t *testing.T) {
	_, b := start(t, natsbus.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	taken := map[string]int{}
	calls := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.Terminal(ctx, group, 16, 20*time.Millisecond, func(_ context.Context, batch []faena.Record) error {
			mu.Lock()
			defer mu.Unlock()
			if calls++; calls == 1 {
				return errors.New("the store is away")
			}
			for _, r := range batch {
				taken[r.ID]++
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })

	const n = 40
	for i := range n {
		r := record("ana", i)
		rev, err := b.CreateRecord(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue // stays live
		}
		if err := r.Fail(faena.ReasonCancelled, "", time.Now().UTC()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.UpdateRecord(t.Context(), r, rev); err != nil {
			t.Fatal(err)
		}
	}
	faenatest.EventuallyNil(t, 20*time.Second, "the ended ones are taken and purged, the live one stays", func() error {
		_, _, left, err := b.Fill(t.Context(), group)
		mu.Lock()
		defer mu.Unlock()
		if err != nil || left != 1 || len(taken) != n-1 {
			return fmt.Errorf("%d left, %d taken, %w", left, len(taken), err)
		}
		return nil
	})
}

func TestBus_Objects(t *testing.T) {
	_, b := start(t, natsbus.Options{MaxStore: 4 << 20})
	ctx := t.Context()
	big := []byte(strings.Repeat("\x00\xff\r", 200_000))
	if err := b.PutObject(ctx, group, "out.1.1", big); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Object(ctx, group, "out.1.1"); err != nil || !slices.Equal(got, big) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	t.Run("a full store says so and keeps nothing", func(t *testing.T) {
		if err := b.PutObject(ctx, group, "out.2.1", make([]byte, 3<<20)); !errors.Is(err, faena.ErrFull) {
			t.Errorf("got %v", err)
		}
		if _, err := b.Object(ctx, group, "out.2.1"); !faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("it is there: %v", err)
		}
	})
	for range 2 {
		if err := b.DeleteObject(ctx, group, "out.1.1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Object(ctx, group, "out.1.1"); !faena.IsKind(err, faena.KindNotFound) {
		t.Errorf("after deleting: %v", err)
	}
}

func TestBus_Signals(t *testing.T) {
	_, b := start(t, natsbus.Options{})
	ctx := t.Context()
	on := func(stop func(), err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
	}
	got := make(chan string, 16)
	on(b.Completed("api-1", func(r *faena.Record) { got <- "completed " + r.ID }))
	on(b.Cancels(group, func(id string) { got <- "cancel " + id }))
	on(b.Changed(func(kind, user, name string) { got <- kind + " " + user + " " + name }))
	on(b.FollowLog(group, "ana", "x", func(offset int64, p []byte) { got <- fmt.Sprintf("log %d %s", offset, p) }))
	on(b.ServeLogs(group, func(id string) (int64, []byte, bool) { return 7, []byte("so far"), id == "x" }))
	expect := func(want string) {
		t.Helper()
		select {
		case s := <-got:
			if s != want {
				t.Errorf("got %q, want %q", s, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%q did not come", want)
		}
	}
	r := record("ana", 0)
	if err := r.Succeed(time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{b.Complete(ctx, r), b.RequestCancel(ctx, group, "x"), b.PublishChanged("function", "ana", "f"),
		b.PublishLog(group, "ana", "x", 5, []byte("line"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	all := []string{}
	for range 4 {
		select {
		case s := <-got:
			all = append(all, s)
		case <-time.After(10 * time.Second):
			t.Fatalf("only %v came", all)
		}
	}
	slices.Sort(all)
	if want := []string{"cancel x", "completed " + r.ID, "function ana f", "log 5 line"}; !slices.Equal(all, want) {
		t.Errorf("got %q, want %q", all, want)
	}
	t.Run("an end of another group is dropped", func(t *testing.T) {
		other := *r
		other.Group, other.Instance = "other", "api-1"
		mine := *r
		mine.ID = newID()
		if err := errors.Join(b.Complete(ctx, &other), b.Complete(ctx, &mine)); err != nil {
			t.Fatal(err)
		}
		expect("completed " + other.ID) // its subject says its group: it is a group of its own
		expect("completed " + mine.ID)
	})
	t.Run("the log so far comes from the holder alone", func(t *testing.T) {
		if offset, p, err := b.LogSoFar(ctx, group, "x"); err != nil || offset != 7 || string(p) != "so far" {
			t.Errorf("got %d %q, %v", offset, p, err)
		}
		if _, _, err := b.LogSoFar(ctx, group, "y"); !faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("nobody holds it: %v", err)
		}
	})
	t.Run("a heartbeat is there until it is removed", func(t *testing.T) {
		if err := b.Heartbeat(ctx, faena.Worker{Schema: faena.SchemaVersion, ID: "w1", Group: group}); err != nil {
			t.Fatal(err)
		}
		if w, err := b.Workers(ctx); err != nil || len(w) != 1 || w[0].ID != "w1" {
			t.Errorf("workers %v, %v", w, err)
		}
		if err := b.RemoveHeartbeat(ctx, group, "w1"); err != nil {
			t.Fatal(err)
		}
		if w, err := b.Workers(ctx); err != nil || len(w) != 0 {
			t.Errorf("workers %v, %v", w, err)
		}
	})
}

// BenchmarkActivation is the way of one activation through the queue, without a container.
func BenchmarkActivation(b *testing.B) {
	_, bus := start(b, natsbus.Options{})
	d := deliveries(b, bus)
	ctx := b.Context()
	done := make(chan struct{}, 1)
	stop, err := bus.Completed("api-1", func(*faena.Record) { done <- struct{}{} })
	if err != nil {
		b.Fatal(err)
	}
	defer stop()
	b.ReportAllocs()
	for b.Loop() {
		r := record("ana", 0)
		rev, err := bus.CreateRecord(ctx, r)
		if err != nil {
			b.Fatal(err)
		}
		publish(b, bus, r)
		m := next(b, d)
		got, rev, err := bus.Record(ctx, group, "ana", r.ID)
		if err != nil {
			b.Fatal(err)
		}
		_ = got.Claim("w", m.Sequence, time.Now().UTC())
		if rev, err = bus.UpdateRecord(ctx, got, rev); err != nil {
			b.Fatal(err)
		}
		_ = got.Succeed(time.Now().UTC())
		if _, err = bus.UpdateRecord(ctx, got, rev); err != nil {
			b.Fatal(err)
		}
		if err := m.DoubleAck(ctx); err != nil {
			b.Fatal(err)
		}
		if err := bus.Complete(ctx, got); err != nil {
			b.Fatal(err)
		}
		<-done
		if err := bus.PurgeRecord(ctx, group, "ana", r.ID); err != nil {
			b.Fatal(err)
		}
	}
}
