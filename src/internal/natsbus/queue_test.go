package natsbus_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
)

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

// An anchor is what keeps a stream's file from running empty. Nobody may take it for an activation.
func TestBus_Anchors(t *testing.T) {
	s, b := start(t, natsbus.Options{})
	d := deliveries(t, b)
	nothing := func(when string) {
		t.Helper()
		active, err := b.ActiveByUser(t.Context(), group)
		if err != nil || len(active) != 0 {
			t.Errorf("%s: active %v, %v", when, active, err)
		}
		depth, err := b.QueueDepth(t.Context(), group)
		if err != nil || depth != 0 {
			t.Errorf("%s: the queue is %d deep, %v", when, depth, err)
		}
		if _, _, records, err := b.Fill(t.Context(), group); err != nil || records != 0 {
			t.Errorf("%s: %d records, %v", when, records, err)
		}
	}
	nothing("at first")
	connect(t, s, natsbus.Options{}) // declares all again
	nothing("declared again")

	m := message(record("ana", 0))
	m.Parameter = faena.Blob{Size: faena.MaxInlineBytes, Inline: make([]byte, faena.MaxInlineBytes)}
	for range 12 { // more than is written before an anchor moves
		m.ID = newID()
		if _, _, err := b.Publish(t.Context(), "ana", group, 0, 1, m); err != nil {
			t.Fatal(err)
		}
		got := next(t, d)
		if got.Err != nil || got.Message.ID != m.ID {
			t.Fatalf("delivered %+v, want %s", got, m.ID)
		}
		if err := got.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	nothing("after traffic")
}
