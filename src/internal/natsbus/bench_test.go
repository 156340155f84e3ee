package natsbus_test

import (
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
)

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
		if _, err := bus.CreateRecord(ctx, r); err != nil {
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
