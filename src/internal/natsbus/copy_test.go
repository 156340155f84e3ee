package natsbus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
)

// restored starts a server on an empty directory, gives it the copies, and returns a connection to it.
func restored(t *testing.T, copies map[string]*copied) *natsbus.Bus {
	t.Helper()
	dir := t.TempDir()
	s, err := natsbus.StartServer(natsbus.ServerOptions{Dir: dir, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown() })
	for _, c := range copies {
		if err := s.RestoreStream(c.StreamCopy, bytes.NewReader(c.messages.Bytes())); err != nil {
			t.Fatal(err)
		}
	}
	s.Shutdown() // what is restored outlasts the server
	if s, err = natsbus.StartServer(natsbus.ServerOptions{Dir: dir, MaxStore: 256 << 20, Shared: true}); err != nil {
		t.Fatal(err)
	}
	return connect(t, s, natsbus.Options{})
}

type copied struct {
	natsbus.StreamCopy
	messages bytes.Buffer
}

// copyAll copies every stream of the default group.
func copyAll(t *testing.T, b *natsbus.Bus) map[string]*copied {
	t.Helper()
	all := make(map[string]*copied)
	for _, stream := range append(natsbus.StreamsOfCut([]string{group}), natsbus.StreamsBesides([]string{group})...) {
		c := new(copied)
		var there bool
		var err error
		if c.StreamCopy, there, err = b.CopyStream(t.Context(), stream, 0, &c.messages); err != nil || !there {
			t.Fatalf("copy stream %s: there %v, %v", stream, there, err)
		}
		all[stream] = c
	}
	return all
}

func TestBus_CopyStream(t *testing.T) {
	t.Parallel()
	_, b := start(t, natsbus.Options{})
	ctx := t.Context()
	var records []*faena.Record
	revs := map[string]uint64{}
	for i := range 50 {
		r := record(fmt.Sprintf("user-%d", i%3), i)
		rev, err := b.CreateRecord(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // gaps
			r.Message = "changed"
			if rev, err = b.UpdateRecord(ctx, r, rev); err != nil {
				t.Fatal(err)
			}
		}
		publish(t, b, r)
		records, revs[r.ID] = append(records, r), rev
	}
	gone := records[7]
	if err := b.PurgeRecord(ctx, group, gone.User, gone.ID); err != nil {
		t.Fatal(err)
	}
	large := []byte(strings.Repeat("object ", 200_000))
	if err := b.PutObject(ctx, group, "out.1", large); err != nil {
		t.Fatal(err)
	}
	claim := &faena.IdempotencyClaim{Schema: faena.SchemaVersion, ID: records[0].ID, Group: group, ClaimedAt: time.Now().UTC()}
	if _, mine, _, _, err := b.ClaimKey(ctx, "ann", "hash", claim); err != nil || !mine {
		t.Fatalf("claim: mine %v, %v", mine, err)
	}
	after := restored(t, copyAll(t, b))
	for _, r := range records {
		found, rev, err := after.Record(ctx, group, r.User, r.ID)
		if r == gone {
			if !faena.IsKind(err, faena.KindNotFound) {
				t.Errorf("the removed record gives %v", err)
			}
			continue
		}
		if err != nil || rev != revs[r.ID] || found.Message != r.Message || found.Slot != r.Slot {
			t.Errorf("record %s is %+v at %d, want %+v at %d: %v", r.ID, found, rev, r, revs[r.ID], err)
		}
		if id, _, err := after.SlotMessage(ctx, group, r.User, r.Slot); id != r.ID || err != nil {
			t.Errorf("slot %d of %s has %s, %v", r.Slot, r.User, id, err)
		}
		if _, _, age, err := after.RecordAge(ctx, group, r.User, r.ID); err != nil || age <= 0 {
			t.Errorf("record %s is %v old: %v", r.ID, age, err)
		}
	}
	faenatest.EventuallyNil(t, time.Minute, "the object is read", func() error {
		data, err := after.Object(ctx, group, "out.1")
		if err == nil && !bytes.Equal(data, large) {
			t.Fatalf("the object has %d bytes, which are others", len(data))
		}
		return err
	})
	if there, mine, _, _, err := after.ClaimKey(ctx, "ann", "hash", &faena.IdempotencyClaim{ID: newID()}); mine || there.ID != claim.ID || err != nil {
		t.Errorf("the key stands for %+v, %v", there, err)
	}
	for _, stream := range natsbus.StreamsOfCut([]string{group}) {
		was, _, err := b.LastSequence(ctx, stream)
		is, there, err2 := after.LastSequence(ctx, stream)
		if is < was || !there || errors.Join(err, err2) != nil {
			t.Errorf("stream %s goes on after %d, it was at %d", stream, is, was)
		}
	}
	// Who had been admitted is delivered, and the slots hold.
	d := deliveries(t, after)
	if got := next(t, d); got.Message == nil || got.Redelivered {
		t.Errorf("the first delivery is %+v", got)
	}
}

// While records are changed as fast as they can be, none is missing from the copy.
func TestBus_CopyStream_UnderChange(t *testing.T) {
	t.Parallel()
	_, b := start(t, natsbus.Options{})
	ctx, stop := context.WithCancel(t.Context())
	const n, changed = 200, 8
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var first []*faena.Record
	for i := range n {
		r := record("ann", i)
		if _, err := b.CreateRecord(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if i < changed {
			first = append(first, r)
		}
	}
	for _, r := range first {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				r.Message = fmt.Sprint(n)
				if _, rev, err := b.Record(ctx, group, r.User, r.ID); err == nil {
					_, _ = b.UpdateRecord(ctx, r, rev) // as fast as it goes
				}
			}
		})
	}
	stream := natsbus.StreamsOfCut([]string{group})[2]
	for range 5 {
		var out bytes.Buffer
		c, _, err := b.CopyStream(t.Context(), stream, 0, &out)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		if err := natsbus.CopiedMessages(&out, func(m *natsbus.Message) error { found[m.Subject] = true; return nil }); err != nil {
			t.Fatal(err)
		}
		if len(found) != n+1 { // and the anchor
			t.Errorf("the copy of %d messages has %d of %d records", c.Messages, len(found)-1, n)
		}
	}
}

// A copy that was cut short is not restored.
func TestServer_RestoreStream_Truncated(t *testing.T) {
	t.Parallel()
	_, b := start(t, natsbus.Options{})
	if _, err := b.CreateRecord(t.Context(), record("ann", 0)); err != nil {
		t.Fatal(err)
	}
	c := copyAll(t, b)[natsbus.StreamsOfCut([]string{group})[2]]
	s, err := natsbus.StartServer(natsbus.ServerOptions{Dir: t.TempDir(), Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	whole := c.messages.Bytes()
	if err := s.RestoreStream(c.StreamCopy, bytes.NewReader(whole[:len(whole)-5])); err == nil {
		t.Error("half a copy was restored")
	}
}
