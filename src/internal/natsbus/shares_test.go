package natsbus_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

// TestBus_Declare_Shares: an installation of the release before is brought up to date, whatever it holds: its servers have no
// more room, its objects, a half of a group's share there, are more than they are to be here, and nothing is lost.
func TestBus_Declare_Shares(t *testing.T) {
	t.Parallel()
	const store, share = 64 << 20, 16 << 20
	c := natstest.Start(t, natstest.Options{MaxStore: 52 << 20})
	js := c.JetStream(t)
	bucket := func(name string, size int64) jetstream.StreamConfig {
		return jetstream.StreamConfig{Name: "KV_" + name, Subjects: []string{"$KV." + name + ".>"}, MaxMsgsPerSubject: 1, DenyDelete: true,
			Discard: jetstream.DiscardNew, MaxMsgSize: 1 << 20, MaxBytes: size}
	}
	for _, s := range []jetstream.StreamConfig{
		bucket("users", 40<<20), bucket("activations-"+group, 0),
		{Name: queueStream, Subjects: []string{"Activations." + group + ".*.*", "Activations." + group + ".anchor"}, Retention: jetstream.WorkQueuePolicy,
			Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1, MaxMsgSize: 1 << 20, MaxBytes: share / 4},
		{Name: objectsStream, Subjects: []string{"$O.objects-" + group + ".C.>", "$O.objects-" + group + ".M.>"}, Discard: jetstream.DiscardNew,
			AllowRollup: true, AllowMsgTTL: true, MaxBytes: share / 2, MaxAge: 8 * 24 * time.Hour},
	} {
		_, err := js.CreateStream(t.Context(), s)
		noError(t, err)
	}
	b := join(t, c, natsbus.Options{MaxStore: store, GroupStore: share})
	object := bytes.Repeat([]byte("x"), 2<<20)
	for _, name := range []string{"out.1", "out.2", "out.3"} {
		noError(t, b.PutObject(t.Context(), group, name, object))
	}
	r := record("ana", 0)
	r.Schema = faena.SchemaVersion - 1
	_, err := b.CreateRecord(t.Context(), r)
	noError(t, err)
	publish(t, b, r)

	reserved := func(objects int64) {
		t.Helper()
		declared(t, b)
		got := make(map[string]int64)
		streams := js.ListStreams(t.Context())
		for s := range streams.Info() {
			got[s.Config.Name] = max(0, s.Config.MaxBytes)
		}
		noError(t, streams.Err())
		for name, want := range map[string]int64{queueStream: share / 16 * 3, backlogStream: share / 16 * 3, "DEADLETTERS-" + group: share / 16,
			objectsStream: objects, "KV_users": 24 << 20, claimsStream: store / 16, "KV_leases": 1 << 20, "KV_workers-" + group: 1 << 20} {
			if got[name] != want {
				t.Errorf("%s reserves %d bytes, want %d", name, got[name], want)
			}
		}
	}
	reserved(share / 2)
	for _, name := range []string{"out.1", "out.2", "out.3"} {
		if data, err := b.Object(t.Context(), group, name); err != nil || !bytes.Equal(data, object) {
			t.Errorf("object %s has %d bytes, %v", name, len(data), err)
		}
	}
	if got, _, err := b.Record(t.Context(), group, "ana", r.ID); err != nil || got.ID != r.ID {
		t.Errorf("the record is %+v, %v", got, err)
	}
	if m := next(t, deliveries(t, b)); m.Err != nil || m.Message.ID != r.ID {
		t.Errorf("delivered is %+v", m)
	}
	noError(t, b.PutObject(t.Context(), group, "out.4", []byte("there is room")))
	noError(t, b.DeleteObject(t.Context(), group, "out.1"))
	reserved(share / 16 * 5)
}
