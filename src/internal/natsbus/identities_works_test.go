package natsbus_test

import (
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

// TestAuthorization_Works: the two roles do what they are for, on one server and on a cluster.
func TestAuthorization_Works(t *testing.T) {
	for name, servers := range map[string]int{"one server": 1, "three": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := install(t, servers)
			w := i.connect(t, otherGroup)
			i.activation(t, w)
			i.hints(t, w)
			i.upkeep(t, w)
			i.retries(t, w)
			if servers > 1 {
				i.handover(t)
			}
			i.reload(t)
		})
	}
}

// handover is what is queued after workers have gone: it must not wait for them, whichever server each was connected to.
func (i *installation) handover(t *testing.T) {
	var workers sync.WaitGroup
	for _, url := range i.servers.URLs() {
		w, err := natsbus.Connect(t.Context(), i.options(group, url))
		noError(t, err)
		workers.Go(func() {
			defer w.Close()
			d, err := w.Deliveries(group)
			if err != nil {
				t.Error(err)
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if m, err := d.Next(ctx); err == nil {
				t.Errorf("there is %+v", m)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	workers.Wait()
	publish(t, i.api, record("ana", 1))
	m := next(t, deliveries(t, i.connect(t, group)))
	noError(t, m.DoubleAck(t.Context()))
}

// activation is the way of one, with a parameter and a result that are objects.
func (i *installation) activation(t *testing.T, w *natsbus.Bus) {
	ctx := t.Context()
	r := record("ana", 3)
	r.Group = otherGroup
	rev, err := i.api.CreateRecord(ctx, r)
	noError(t, err)
	large := []byte(strings.Repeat("p", 600<<10))
	noError(t, i.api.PutObject(ctx, otherGroup, "in."+r.ID, large))
	m := message(r)
	m.RecordRevision = rev
	_, _, err = i.api.Publish(ctx, r.User, otherGroup, r.Slot, 1, m)
	noError(t, err)
	if id, _, err := i.api.SlotMessage(ctx, otherGroup, r.User, r.Slot); err != nil || id != r.ID {
		t.Fatalf("the slot has %s, %v", id, err)
	}

	d, err := w.Deliveries(otherGroup)
	noError(t, err)
	got := next(t, d)
	if got.Err != nil || got.Message.ID != r.ID {
		t.Fatalf("got %+v", got)
	}
	r.State, r.Worker, r.Attempt = faena.StateRunning, "w1", 1
	rev, err = w.UpdateRecord(ctx, r, got.Message.RecordRevision)
	noError(t, err)
	noError(t, got.Confirm(ctx))
	if read, _, err := w.Record(ctx, otherGroup, r.User, r.ID); err != nil || read.State != faena.StateRunning {
		t.Fatalf("the record is %+v, %v", read, err)
	}
	if data, err := w.Object(ctx, otherGroup, "in."+r.ID); err != nil || len(data) != len(large) {
		t.Fatalf("the parameter has %d bytes, %v", len(data), err)
	}
	noError(t, w.PutObject(ctx, otherGroup, "out."+r.ID+".1", large))
	r.State = faena.StateSucceeded
	_, err = w.UpdateRecord(ctx, r, rev)
	noError(t, err)
	noError(t, got.DoubleAck(ctx))
	noError(t, d.Close())

	recorded := make(chan faena.Record, 1)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- i.api.Terminal(ctx, otherGroup, 10, time.Millisecond, func(_ context.Context, rs []faena.Record) error {
			recorded <- rs[0]
			return nil
		}, nil)
	}()
	select {
	case got := <-recorded:
		if got.ID != r.ID {
			t.Errorf("recorded is %s", got.ID)
		}
	case <-time.After(20 * time.Second):
		t.Error("it is not recorded")
	}
	faenatest.EventuallyNil(t, 10*time.Second, "the record is purged", func() error {
		if _, _, err := i.api.Record(t.Context(), otherGroup, r.User, r.ID); !faena.IsKind(err, faena.KindNotFound) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	stop()
	noError(t, <-ended)
	for _, name := range []string{"in." + r.ID, "out." + r.ID + ".1"} {
		noError(t, i.api.DeleteObject(t.Context(), otherGroup, name))
	}
}

// hints are what daemons tell each other.
func (i *installation) hints(t *testing.T, w *natsbus.Bus) {
	ctx := t.Context()
	r := record("ana", 0)
	r.Group, r.State = otherGroup, faena.StateSucceeded
	got := make(chan string, 10)
	expect := func(what string, say func() error) {
		t.Helper()
		// Interest may be on its way between the servers.
		faenatest.EventuallyNil(t, 20*time.Second, what+" is heard", func() error {
			noError(t, say())
			select {
			case heard := <-got:
				if heard != what {
					return fmt.Errorf("heard %s", heard)
				}
				return nil
			case <-time.After(200 * time.Millisecond):
				return errors.New("nothing is heard")
			}
		})
	}
	subscribe := func(stop func(), err error) {
		t.Helper()
		noError(t, err)
		t.Cleanup(stop)
	}
	subscribe(i.api.Completed(r.Instance, func(r *faena.Record) { got <- "end " + r.ID }))
	expect("end "+r.ID, func() error { return w.Complete(ctx, r) })
	subscribe(i.api.FollowLog(otherGroup, "ana", r.ID, func(_ int64, p []byte) { got <- "log " + string(p) }))
	expect("log abc", func() error { return w.PublishLog(otherGroup, "ana", r.ID, 0, []byte("abc")) })
	subscribe(w.Cancels(otherGroup, func(id string) { got <- "cancel " + id }))
	expect("cancel "+r.ID, func() error { return i.api.RequestCancel(ctx, otherGroup, r.ID) })
	subscribe(i.api.Changed(func(kind, user, name string) { got <- "changed " + kind + user + name }))
	expect("changed fug", func() error { return i.api.PublishChanged("f", "u", "g") })
	subscribe(w.ServeLogs(otherGroup, func(string) (int64, []byte, bool) { return 5, []byte("so far"), true }))
	i.told(t, otherGroup, "so far")
}

// upkeep is the rest of what an API and a worker do.
func (i *installation) upkeep(t *testing.T, w *natsbus.Bus) {
	ctx := t.Context()
	noError(t, w.Heartbeat(ctx, faena.Worker{Schema: faena.SchemaVersion, ID: "w1", Group: otherGroup}))
	if ws, err := i.api.Workers(ctx); err != nil || len(ws) != 1 || ws[0].Group != otherGroup {
		t.Errorf("workers are %+v, %v", ws, err)
	}
	noError(t, w.RemoveHeartbeat(ctx, otherGroup, "w1"))
	if ws, err := i.api.Workers(ctx); err != nil || len(ws) != 0 {
		t.Errorf("workers are %+v, %v", ws, err)
	}
	noError(t, w.PutObject(ctx, otherGroup, "a", []byte("1")))
	noError(t, w.PutObject(ctx, otherGroup, "a", []byte("2")))
	if data, err := i.api.Object(ctx, otherGroup, "a"); err != nil || string(data) != "2" {
		t.Errorf("the object is %q, %v", data, err)
	}
	noError(t, w.DeleteObject(ctx, otherGroup, "a"))
	noError(t, w.DeleteObject(ctx, otherGroup, "a"))
	if _, err := i.api.Object(ctx, otherGroup, "a"); !faena.IsKind(err, faena.KindNotFound) {
		t.Errorf("the object that was removed: %v", err)
	}
	noError(t, i.api.PutCounter(ctx, "ana", "activations.active", 3))
	rev, held, err := i.api.HoldLease(ctx, "leader", "me", 0)
	if err != nil || !held {
		t.Errorf("the lease: held %v, %v", held, err)
	}
	noError(t, i.api.DropLease(ctx, "leader", rev))
	r := record("ana", 0)
	_, err = i.api.CreateRecord(ctx, r)
	noError(t, err)
	noError(t, i.api.PurgeRecord(ctx, r.Group, r.User, r.ID))
	seq := publish(t, i.api, r)
	noError(t, i.api.DeleteMessage(ctx, r.Group, seq))
	if _, _, _, err := i.api.Fill(ctx, otherGroup); err != nil {
		t.Error(err)
	}
	if _, err := i.api.ActiveByUser(ctx, otherGroup); err != nil {
		t.Error(err)
	}
	streams, err := i.api.Streams(ctx, []string{group, otherGroup})
	noError(t, err)
	for _, s := range streams {
		if s.Problem != "" && i.servers.Size() == 1 {
			t.Errorf("stream %s: %s", s.Name, s.Problem)
		}
	}
	servers, err := i.api.Servers(ctx)
	if err != nil || len(servers) != i.servers.Size() || servers[0].Problem != "" {
		t.Errorf("the servers are %+v, %v", servers, err)
	}
	if _, err := i.api.Unreadable(ctx, []string{group, otherGroup}); err != nil {
		t.Error(err)
	}
	noError(t, i.api.DeclareGroup(ctx, "new"))
	noError(t, i.api.RemoveGroup(ctx, "new"))
}

// told waits until the API is told the log so far.
func (i *installation) told(t *testing.T, group, want string) {
	t.Helper()
	faenatest.EventuallyNil(t, 20*time.Second, "the log so far is told", func() error {
		_, data, err := i.api.LogSoFar(t.Context(), group, newID())
		if err == nil && string(data) != want {
			err = fmt.Errorf("it is %q", data)
		}
		return err
	})
}

// reload lets a group in, and shuts one out, while the servers run. Nobody else must be disturbed.
func (i *installation) reload(t *testing.T) {
	w := i.connect(t, group)
	d := deliveries(t, w)
	first := make(chan natsbus.Delivery, 1)
	go func() {
		if m, err := d.Next(t.Context()); err == nil {
			first <- m
		}
	}()
	cancels := make(chan string, 1)
	stop, err := w.Cancels(group, func(id string) { cancels <- id })
	noError(t, err)
	defer stop()
	stop, err = w.ServeLogs(group, func(string) (int64, []byte, bool) { return 0, []byte("log"), true })
	noError(t, err)
	defer stop()

	i.servers.Authorize(t, i.authorization(t, group, otherGroup, "late"))
	t.Run("the group that is new works", func(t *testing.T) {
		noError(t, i.api.DeclareGroup(t.Context(), "late"))
		i.fill(t, "late")
		late := i.connect(t, "late")
		stop, err := late.ServeLogs("late", func(string) (int64, []byte, bool) { return 0, []byte("late"), true })
		noError(t, err)
		defer stop()
		i.told(t, "late", "late")
	})
	t.Run("the others go on", func(t *testing.T) {
		publish(t, i.api, record("ana", 0))
		select {
		case m := <-first:
			noError(t, m.DoubleAck(t.Context()))
		case <-time.After(20 * time.Second):
			t.Error("a place that waited before is given nothing")
		}
		noError(t, i.api.RequestCancel(t.Context(), group, "x"))
		select {
		case <-cancels:
		case <-time.After(10 * time.Second):
			t.Error("a cancellation is not heard")
		}
		i.told(t, group, "log")
	})
	t.Run("a group that is shut out is away, and comes back when it is let in", func(t *testing.T) {
		i.servers.Authorize(t, i.authorization(t, otherGroup, "late"))
		faenatest.Eventually(t, 20*time.Second, "it is disconnected", func() bool { return !w.Connected() })
		if !i.api.Connected() {
			t.Error("the API is disconnected, too")
		}
		i.servers.Authorize(t, i.authorization(t, group, otherGroup, "late"))
		faenatest.Eventually(t, 20*time.Second, "it is connected again", w.Connected)
		publish(t, i.api, record("ana", 1))
		noError(t, next(t, d).DoubleAck(t.Context()))
	})
}
