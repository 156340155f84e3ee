package natsbus_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/faena"
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
	return &faena.Message{Schema: faena.SchemaVersion, ID: r.ID, Record: r, RecordRevision: 7, Revision: revision,
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
