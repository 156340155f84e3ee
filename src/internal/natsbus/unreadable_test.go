package natsbus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

const otherSchema = faena.SchemaVersion + 98

// unreadable lists what cannot be read, as "where user/id schema".
func unreadable(t *testing.T, b *natsbus.Bus) []string {
	t.Helper()
	found, err := b.Unreadable(t.Context(), []string{group})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, u := range found {
		if u.Group != group || u.Problem == "" || u.Sequence == 0 {
			t.Errorf("%+v", u)
		}
		out = append(out, fmt.Sprintf("%s %s/%s %d", u.Where, u.User, u.ID, u.Schema))
	}
	return out
}

// TestDeliveries_OtherVersion: a message of another version is told apart from one that is damaged, whatever its form.
func TestDeliveries_OtherVersion(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	b := join(t, c, natsbus.Options{})
	declared(t, b)
	d := deliveries(t, b)
	id := newID()
	record := record("ana", 0)
	record.Schema = otherSchema
	for what, tc := range map[string]struct {
		data   any
		schema int // 0: damaged
	}{
		"a message":               {&faena.Message{Schema: otherSchema, ID: id, Revision: revision}, otherSchema},
		"one of another form":     {map[string]any{"schema": otherSchema, "id": 7, "revision": []string{"x"}}, otherSchema},
		"one without a version":   {map[string]any{"id": id, "revision": revision}, 0},
		"the record in a message": {&faena.Message{Schema: faena.SchemaVersion, ID: id, Record: record, Revision: revision}, otherSchema},
		"the revision in a message": {&faena.Message{Schema: faena.SchemaVersion, ID: id,
			Revision: &faena.Revision{Schema: otherSchema, User: "ana", Function: "f"}}, otherSchema},
	} {
		t.Run(what, func(t *testing.T) {
			seq := put(t, c, "Activations."+group+".ana.0", id, tc.data)
			m := next(t, d)
			e, ok := errors.AsType[*faena.Error](m.Err)
			if !errors.Is(m.Err, faena.ErrSchema) || !ok || e.Activation != id || e.Reason != "schema_unknown" || m.Sequence != seq || m.Message != nil {
				t.Errorf("it is delivered as %+v", m)
			}
			if got, want := unreadable(t, b), []string{fmt.Sprintf("queue ana/%s %d", id, tc.schema)}; !slices.Equal(got, want) {
				t.Errorf("listed are %q, want %q", got, want)
			}
			if err := b.DeleteMessage(t.Context(), group, seq); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("damaged", func(t *testing.T) {
		for _, data := range []any{json.RawMessage(`{"schema":`), map[string]any{"schema": faena.SchemaVersion, "id": 7}} {
			seq := put(t, c, "Activations."+group+".ana.0", id, data)
			if m := next(t, d); m.Err == nil || errors.Is(m.Err, faena.ErrSchema) {
				t.Errorf("%s is delivered as %+v", data, m)
			}
			if err := b.DeleteMessage(t.Context(), group, seq); err != nil {
				t.Fatal(err)
			}
		}
	})
	if left := unreadable(t, b); len(left) != 0 {
		t.Errorf("of what is gone %q are listed", left)
	}
}

// TestBus_Unreadable_Removed: what cannot be read goes by the means that faena doctor tells of: a message of the queue by its
// sequence, a record by its subject.
func TestBus_Unreadable_Removed(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	b := join(t, c, natsbus.Options{})
	declared(t, b)
	id, subject := newID(), "$KV.activations-"+group+".ana."
	inQueue := put(t, c, "Activations."+group+".ana.0", id, map[string]any{"schema": otherSchema})
	inBucket := put(t, c, subject+id, "", map[string]any{"schema": otherSchema})
	kept := record("ana", 1)
	_, err := b.CreateRecord(t.Context(), kept)
	noError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.Terminal(ctx, group, 10, time.Millisecond, func(context.Context, []faena.Record) error { return nil }, nil)
	}()
	defer func() { stop(); noError(t, <-ended) }()
	want := []string{fmt.Sprintf("queue ana/%s %d", id, otherSchema), fmt.Sprintf("records ana/%s %d", id, otherSchema)}
	faenatest.Eventually(t, 10*time.Second, "both are listed", func() bool { return slices.Equal(unreadable(t, b), want) })

	js := c.JetStream(t)
	queue, err := js.Stream(t.Context(), "ACTIVATIONS-"+group)
	noError(t, err)
	bucket, err := js.Stream(t.Context(), "KV_activations-"+group)
	noError(t, err)
	if err := bucket.SecureDeleteMsg(t.Context(), inBucket); err == nil {
		t.Error("a single message of a bucket can be deleted after all")
	}
	noError(t, queue.SecureDeleteMsg(t.Context(), inQueue))
	noError(t, bucket.Purge(t.Context(), jetstream.WithPurgeSubject(subject+id)))
	if left := unreadable(t, b); len(left) != 0 {
		t.Errorf("%q are listed", left)
	}
	if _, _, err := b.Record(t.Context(), group, "ana", kept.ID); err != nil {
		t.Errorf("another record has gone: %v", err)
	}
}

// put stores what Faena would not.
func put(t *testing.T, c *natstest.Servers, subject, id string, data any) (seq uint64) {
	t.Helper()
	text, raw := data.(json.RawMessage)
	if !raw {
		var err error
		if text, err = json.Marshal(data); err != nil {
			t.Fatal(err)
		}
	}
	m := &nats.Msg{Subject: subject, Data: text}
	if id != "" {
		m.Header = nats.Header{nats.MsgIdHdr: {id + "." + newID()}}
	}
	ack, err := c.JetStream(t).PublishMsg(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// TestBus_Terminal_OtherVersion: records that cannot be read stay, and the others are recorded.
func TestBus_Terminal_OtherVersion(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	var log said
	b := join(t, c, natsbus.Options{Logger: log.logger()})
	declared(t, b)
	var mu sync.Mutex
	var recorded []string
	met := 0
	b.OnUnreadable(func(where string) {
		mu.Lock()
		defer mu.Unlock()
		if met++; where != "records" {
			t.Errorf("met in %s", where)
		}
	})
	ended := func(schema int) (*faena.Record, uint64) {
		r := record("ana", 0)
		if err := r.Fail(faena.ReasonCancelled, "", time.Now().UTC()); err != nil {
			t.Fatal(err)
		}
		r.Schema = schema
		rev, err := b.CreateRecord(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return r, rev
	}
	other, rev := ended(otherSchema)
	odd, damaged := newID(), newID()
	put(t, c, "$KV.activations-"+group+".ana."+odd, "", map[string]any{"schema": otherSchema, "state": 7})
	put(t, c, "$KV.activations-"+group+".ana."+damaged, "", json.RawMessage("x"))
	var want []string
	for range 20 {
		r, _ := ended(faena.SchemaVersion)
		want = append(want, r.ID)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = b.Terminal(ctx, group, 8, 20*time.Millisecond, func(_ context.Context, batch []faena.Record) error {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range batch {
				recorded = append(recorded, r.ID)
			}
			return nil
		}, nil)
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	faenatest.EventuallyNil(t, 20*time.Second, "all others are recorded", func() error {
		_, _, left, err := b.Fill(t.Context(), group)
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(recorded)
		if err != nil || left != 3 || !slices.Equal(recorded, want) {
			return fmt.Errorf("%d left, %d recorded, %w", left, len(recorded), err)
		}
		return nil
	})
	mu.Lock()
	if met != 3 || log.count("cannot be read stays") != 3 {
		t.Errorf("counted %d, logged %d, want 3 of each", met, log.count("cannot be read stays"))
	}
	mu.Unlock()
	all := []string{fmt.Sprintf("records ana/%s %d", other.ID, otherSchema), fmt.Sprintf("records ana/%s %d", odd, otherSchema),
		fmt.Sprintf("records ana/%s 0", damaged)}
	if got := unreadable(t, b); !slices.Equal(got, all) {
		t.Errorf("listed are %q, want %q", got, all)
	}
	if got := unreadable(t, join(t, c, natsbus.Options{})); !slices.Equal(got, all) { // by an API that has not met them
		t.Errorf("another API lists %q, want %q", got, all)
	}

	t.Run("an API says so", func(t *testing.T) {
		_, _, err := b.Record(t.Context(), group, "ana", other.ID)
		if e, ok := errors.AsType[*faena.Error](err); !ok || e.Kind != faena.KindUnavailable || e.Reason != "schema_unknown" || !errors.Is(err, faena.ErrSchema) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a list has the others", func(t *testing.T) {
		live := record("ana", 1)
		if _, err := b.CreateRecord(t.Context(), live); err != nil {
			t.Fatal(err)
		}
		got, err := b.LiveRecords(t.Context(), group, "ana")
		if err != nil || len(got) != 1 || got[0].ID != live.ID {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("one that can be read is recorded", func(t *testing.T) {
		other.Schema = faena.SchemaVersion
		if _, err := b.UpdateRecord(t.Context(), other, rev); err != nil {
			t.Fatal(err)
		}
		faenatest.Eventually(t, 20*time.Second, "it is recorded", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Contains(recorded, other.ID) })
		if got := unreadable(t, b); !slices.Equal(got, all[1:]) {
			t.Errorf("listed are %q, want %q", got, all[1:])
		}
	})
}
