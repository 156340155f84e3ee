package natsbus_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
)

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
	if err := errors.Join(r.Claim("w1", 1, time.Now()), r.Succeed(time.Now())); err != nil {
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
