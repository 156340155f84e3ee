package natsbus_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
)

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
		if err := again.Nak(t.Context()); err != nil {
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

// TestDeliveries_Late: what comes for a pull that counts as lost is neither given to a place nor handed back: it may be somebody else's.
func TestDeliveries_Late(t *testing.T) {
	t.Parallel()
	const ackWait = time.Second
	log, left := &lines{}, 0
	_, b := start(t, natsbus.Options{AckWait: ackWait, Logger: slog.New(slog.NewTextHandler(log, nil))})
	for name, c := range map[string]struct{ stays, forgotten bool }{
		"with its place":             {true, false},
		"without a place":            {false, false},
		"without a place, forgotten": {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := deliveries(t, b)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			got := make(chan natsbus.Delivery, 1)
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				if m, err := d.Next(ctx); err == nil {
					got <- m
				}
			}()
			faenatest.Eventually(t, 20*time.Second, "its pull is with the server", func() bool { return d.Overdue() == 1 })
			if !c.stays {
				cancel()
				<-gone
			}
			if c.forgotten {
				d.Forget()
			}
			began := time.Now()
			seq := publish(t, b, record("ana", 0))
			left++
			faenatest.Eventually(t, 20*time.Second, "it is left", func() bool { return strings.Count(log.String(), "left for its redelivery") == left })
			var m natsbus.Delivery
			if c.stays {
				m = <-got
			} else {
				m = next(t, d)
			}
			if took := time.Since(began); m.Sequence != seq || !m.Redelivered || took < ackWait*9/10 {
				t.Errorf("after %v %+v was delivered", took, m)
			}
			noError(t, m.DoubleAck(t.Context()))
		})
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
