package natsbus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
)

func TestBus_Records(t *testing.T) {
	_, b := start(t, natsbus.Options{})
	ctx := t.Context()
	r := record("ana", 0)
	rev, err := b.CreateRecord(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("is created once", func(t *testing.T) {
		other := *r
		other.Function = "g"
		if _, err := b.CreateRecord(ctx, &other); !faena.IsKind(err, faena.KindConflict) {
			t.Errorf("another record of its id: got %v", err)
		}
		if again, err := b.CreateRecord(ctx, r); err != nil || again != rev {
			t.Errorf("the same once more, as after an answer that was lost: got %d, %v; want %d", again, err, rev)
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
		}, nil); err != nil {
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
