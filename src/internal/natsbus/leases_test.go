package natsbus_test

import (
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
)

func TestBus_HoldLease(t *testing.T) {
	_, b := start(t, natsbus.Options{})
	ctx := t.Context()
	hold := func(t *testing.T, holder string, rev uint64, want bool) uint64 {
		t.Helper()
		next, held, err := b.HoldLease(ctx, "leader", holder, rev)
		if err != nil || held != want {
			t.Fatalf("%s at %d: held %v, %v", holder, rev, held, err)
		}
		return next
	}
	holder := func(t *testing.T, want string) {
		t.Helper()
		if got, err := b.LeaseHolder(ctx, "leader"); err != nil || got != want {
			t.Fatalf("it is held by %q, %v; want %q", got, err, want)
		}
	}
	holder(t, "")
	first := hold(t, "a", 0, true)
	holder(t, "a")
	hold(t, "b", 0, false)
	hold(t, "a", 0, false) // also for who holds it: a restarted one waits
	second := hold(t, "a", first, true)
	hold(t, "a", first, false)
	if err := b.DropLease(ctx, "leader", first); err != nil { // somebody else's by now, as far as this caller knows
		t.Fatal(err)
	}
	holder(t, "a")
	if err := b.DropLease(ctx, "leader", second); err != nil {
		t.Fatal(err)
	}
	third := hold(t, "b", 0, true)
	began := time.Now()
	faenatest.Eventually(t, 2*faena.LeaseTTL, "the lease runs out", func() bool {
		got, err := b.LeaseHolder(ctx, "leader")
		return err == nil && got == ""
	})
	if took := time.Since(began); took < faena.LeaseTTL/2 {
		t.Errorf("it ran out after %v", took)
	}
	hold(t, "b", third, false) // it must begin anew
	hold(t, "c", 0, true)
}

func TestBus_RemoveGroup(t *testing.T) {
	_, b := start(t, natsbus.Options{GroupStore: 32 << 20})
	ctx := t.Context()
	for range 2 {
		if err := b.DeclareGroup(ctx, "gpu"); err != nil {
			t.Fatal(err)
		}
		r := record("ana", 3)
		r.Group = "gpu"
		if _, err := b.CreateRecord(ctx, r); err != nil { // the same again after it was removed
			t.Fatal(err)
		}
		if _, _, err := b.Publish(ctx, "ana", "gpu", 3, 1, message(r)); err != nil {
			t.Fatal(err)
		}
		if err := b.RemoveGroup(ctx, "gpu"); err != nil {
			t.Fatal(err)
		}
		if err := b.RemoveGroup(ctx, "gpu"); err != nil {
			t.Errorf("a second time: %v", err)
		}
		if err := b.Declare(ctx); err != nil { // does not bring it back
			t.Fatal(err)
		}
		if _, err := b.QueueDepth(ctx, "gpu"); err == nil {
			t.Error("its queue is still there")
		}
	}
}
