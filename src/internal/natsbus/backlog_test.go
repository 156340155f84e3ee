package natsbus_test

import (
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

const backlogStream = "BACKLOG-" + group

// waits puts an activation of a user into the backlog, and returns its record.
func waits(t testing.TB, b *natsbus.Bus, user string) *faena.Record {
	t.Helper()
	r := record(user, 0)
	r.Backlogged = true
	noError(t, b.PublishBacklog(t.Context(), user, group, 1, message(r)))
	return r
}

// inOrder lists what waits of a user, oldest first.
func inOrder(t testing.TB, b *natsbus.Bus, user string) (all []faena.Waiting) {
	t.Helper()
	for from := uint64(0); ; from = all[len(all)-1].Sequence + 1 {
		w, err := b.BacklogNext(t.Context(), group, user, from)
		if faena.IsKind(err, faena.KindNotFound) {
			return all
		}
		noError(t, err)
		all = append(all, w)
	}
}

func ids(all []faena.Waiting) (out []string) {
	for _, w := range all {
		out = append(out, w.ID)
	}
	return out
}

func TestBus_Backlog(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	b := join(t, c, natsbus.Options{})
	declared(t, b)
	ctx := t.Context()
	var ana, bob []string
	for range 5 {
		ana = append(ana, waits(t, b, "ana").ID)
		bob = append(bob, waits(t, b, "bob").ID)
	}
	t.Run("oldest first, of one user", func(t *testing.T) {
		if got := ids(inOrder(t, b, "ana")); !slices.Equal(got, ana) {
			t.Errorf("got %q, want %q", got, ana)
		}
		w := inOrder(t, b, "bob")[2]
		if w.Err != nil || w.User != "bob" || w.Message.ID != bob[2] || w.Published.IsZero() || string(w.Message.Parameter.Inline) != "\x00\xff\"" {
			t.Errorf("got %+v", w)
		}
	})
	t.Run("how much waits", func(t *testing.T) {
		by, err := b.BacklogByUser(ctx, group)
		if err != nil || len(by) != 2 || by["ana"] != 5 || by["bob"] != 5 {
			t.Errorf("by user %v, %v", by, err)
		}
		for user, want := range map[string]int{"ana": 5, "eve": 0} {
			if n, err := b.BacklogSize(ctx, group, user); err != nil || n != want {
				t.Errorf("of %s %d wait, %v", user, n, err)
			}
		}
	})
	t.Run("one by its id", func(t *testing.T) {
		w, err := b.BacklogMessage(ctx, group, "ana", ana[3])
		if err != nil || w.ID != ana[3] || w.Sequence != inOrder(t, b, "ana")[3].Sequence {
			t.Errorf("got %+v, %v", w, err)
		}
		if _, err := b.BacklogMessage(ctx, group, "bob", ana[3]); !faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("of another user: %v", err)
		}
	})
	t.Run("deleting may be repeated", func(t *testing.T) {
		w := inOrder(t, b, "bob")[0]
		for range 2 {
			noError(t, b.DeleteBacklog(ctx, group, w.Sequence))
		}
		if got := ids(inOrder(t, b, "bob")); !slices.Equal(got, bob[1:]) {
			t.Errorf("got %q, want %q", got, bob[1:])
		}
	})
	t.Run("what cannot be read is told apart", func(t *testing.T) {
		other, odd, id := newID(), newID(), newID()
		put(t, c, "Backlog."+group+".eve."+other, other, map[string]any{"schema": otherSchema, "id": 7})
		put(t, c, "Backlog."+group+".eve."+odd, odd, []byte("x"))
		put(t, c, "Backlog."+group+".eve."+id, id, message(record("eve", 0)))
		all := inOrder(t, b, "eve")
		if got, want := ids(all), []string{other, odd, id}; !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		if !errors.Is(all[0].Err, faena.ErrSchema) || all[1].Err == nil || errors.Is(all[1].Err, faena.ErrSchema) || !errors.Is(all[2].Err, faena.ErrUnreadable) {
			t.Errorf("got %v, %v, %v", all[0].Err, all[1].Err, all[2].Err)
		}
		for _, w := range all {
			if w.Message != nil {
				t.Errorf("%+v has a message", w)
			}
		}
	})
	t.Run("of a group that is not there", func(t *testing.T) {
		if err := b.PublishBacklog(ctx, "ana", "none", 1, message(record("ana", 0))); !errors.Is(err, faena.ErrRetry) {
			t.Errorf("publish: %v", err)
		}
		if _, err := b.BacklogNext(ctx, "none", "ana", 0); err == nil {
			t.Error("there is something to read")
		}
	})
}

// TestBus_PublishBacklog_Again: what is put there again, also long after, or by somebody else, keeps its place and is not changed.
func TestBus_PublishBacklog_Again(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	b := join(t, c, natsbus.Options{})
	declared(t, b)
	change(t, c.JetStream(t), backlogStream, func(c *jetstream.StreamConfig) { c.Duplicates = 100 * time.Millisecond })
	first := waits(t, b, "ana")
	waits(t, b, "ana")
	before := inOrder(t, b, "ana")
	// The window is over when another message with the id is none for the server.
	faenatest.EventuallyNil(t, 20*time.Second, "the server has forgotten the message's id", func() error {
		m := &nats.Msg{Subject: "Backlog." + group + ".probe." + newID(), Header: nats.Header{nats.MsgIdHdr: {first.ID + ".1"}}}
		ack, err := c.JetStream(t).PublishMsg(t.Context(), m)
		if err == nil && ack.Duplicate {
			err = errors.New("it is a duplicate")
		}
		return err
	})
	changed := message(first)
	changed.Parameter.Inline = []byte("another")
	noError(t, b.PublishBacklog(t.Context(), "ana", group, 1, changed))
	if err := b.PublishBacklog(t.Context(), "ana", group, 2, changed); !errors.Is(err, faena.ErrRetry) {
		t.Errorf("a later publication, while an earlier one is there: %v", err)
	}
	after := inOrder(t, b, "ana")
	if !slices.Equal(ids(after), ids(before)) || after[0].Sequence != before[0].Sequence || string(after[0].Message.Parameter.Inline) != string(before[0].Message.Parameter.Inline) {
		t.Errorf("there was %+v, there is %+v", before, after)
	}
	t.Run("when it has left, a later publication is another one", func(t *testing.T) {
		noError(t, b.DeleteBacklog(t.Context(), group, before[0].Sequence))
		noError(t, b.PublishBacklog(t.Context(), "ana", group, 3, message(first)))
		if got := inOrder(t, b, "ana"); len(got) != 2 || got[1].ID != first.ID {
			t.Errorf("there is %+v", got)
		}
	})
}

// TestBus_PublishBacklog_Full: a full backlog takes nothing, and says so, until there is room.
func TestBus_PublishBacklog_Full(t *testing.T) {
	t.Parallel()
	_, b := start(t, natsbus.Options{GroupStore: 16 << 20})
	r := record("ana", 0)
	m := message(r)
	m.Parameter = faena.Blob{Size: faena.MaxInlineBytes, Inline: make([]byte, faena.MaxInlineBytes)}
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		m.ID = newID()
		err = b.PublishBacklog(t.Context(), "ana", group, 1, m)
	}
	if !errors.Is(err, faena.ErrFull) || n < 8 || n > 10 { // of 3 MiB, and each is a third of one
		t.Fatalf("message %d: %v", n, err)
	}
	if size, err := b.BacklogSize(t.Context(), group, "ana"); err != nil || size != n-1 {
		t.Errorf("%d wait, %v; want %d", size, err, n-1)
	}
	if fraction, what, _, err := b.Fill(t.Context(), group); err != nil || fraction > 0.5 {
		t.Errorf("%s is %.2f full, %v: a full backlog stops everything", what, fraction, err)
	}
	if fraction, err := b.BacklogFill(t.Context(), group); err != nil || fraction < 0.8 || fraction > 1 {
		t.Errorf("the backlog is %.2f full, %v", fraction, err)
	}
	publish(t, b, record("ana", 0))
	noError(t, b.DeleteBacklog(t.Context(), group, inOrder(t, b, "ana")[0].Sequence))
	noError(t, b.PublishBacklog(t.Context(), "ana", group, 1, m))
}

// TestBus_PublishBacklog_Cluster: while leaders are killed each is put there by several APIs until it is there: once, and for good.
func TestBus_PublishBacklog_Cluster(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 3, natstest.Options{MaxStore: 256 << 20})
	apis := []*natsbus.Bus{join(t, c, natsbus.Options{Replicas: 3}), join(t, c, natsbus.Options{Replicas: 3})}
	declared(t, apis[0])
	const each = 40
	stored := make(chan string, 2*each)
	var wg sync.WaitGroup
	for k := range 2 {
		user := fmt.Sprint("user", k)
		wg.Go(func() {
			for range each {
				m := message(record(user, 0))
				for try := 0; ; try++ {
					err := apis[(k+try)%2].PublishBacklog(t.Context(), user, group, 1, m)
					if err == nil {
						break
					}
					if !errors.Is(err, faena.ErrRetry) && !errors.Is(err, faena.ErrUnknown) {
						t.Errorf("got %v", err)
						return
					}
				}
				stored <- m.ID
			}
		})
	}
	faenatest.Eventually(t, 30*time.Second, "some are stored", func() bool { return len(stored) > each/2 })
	leader := c.Leader(t, backlogStream)
	c.Stop(leader)
	faenatest.Eventually(t, 60*time.Second, "all are stored", func() bool { return len(stored) == 2*each })
	wg.Wait()
	c.Start(t, leader)
	c.Settle(t)
	close(stored)
	want := make(map[string]bool)
	for id := range stored {
		want[id] = true
	}
	for k := range 2 {
		var found []faena.Waiting
		faenatest.EventuallyNil(t, 30*time.Second, "the backlog is read", func() error {
			size, err := apis[0].BacklogSize(t.Context(), group, fmt.Sprint("user", k))
			if err == nil && size != each {
				t.Fatalf("%d wait, want %d", size, each)
			}
			return err
		})
		found = inOrder(t, apis[1], fmt.Sprint("user", k))
		if !slices.IsSortedFunc(found, func(a, b faena.Waiting) int { return int(a.Sequence) - int(b.Sequence) }) || len(found) != each {
			t.Errorf("%d are in order, want %d", len(found), each)
		}
		for _, w := range found {
			if !want[w.ID] || w.Err != nil {
				t.Errorf("%+v was not stored", w)
			}
		}
	}
}

// TestBus_Pending_Cluster: what was acknowledged counts at once, or more would be released than there is room for.
func TestBus_Pending_Cluster(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 3, natstest.Options{MaxStore: 256 << 20})
	b := join(t, c, natsbus.Options{Replicas: 3})
	declared(t, b)
	for i := range 200 {
		r, n := record("ana", i), 0
		faenatest.EventuallyNil(t, 30*time.Second, "it is queued", func() error { // the machine may be busy
			_, _, err := b.Publish(t.Context(), r.User, group, r.Slot, 1, message(r))
			return err
		})
		faenatest.EventuallyNil(t, 30*time.Second, "it is told", func() (err error) { n, err = b.Pending(t.Context(), group); return err })
		if n != i+1 {
			t.Fatalf("%d are pending, want %d", n, i+1)
		}
	}
}

// TestBus_Pending: what no worker has been given counts, what one holds, or has handed back, does not.
func TestBus_Pending(t *testing.T) {
	t.Parallel()
	_, b := start(t, natsbus.Options{AckWait: time.Hour})
	pending := func(want int) {
		t.Helper()
		faenatest.EventuallyNil(t, 10*time.Second, "what is pending is told", func() error {
			n, err := b.Pending(t.Context(), group)
			if err == nil && n != want {
				err = fmt.Errorf("%d are pending, want %d", n, want)
			}
			return err
		})
	}
	pending(0)
	var last uint64
	for i := range 4 {
		last = publish(t, b, record("ana", i))
	}
	pending(4)
	d := deliveries(t, b)
	m := next(t, d)
	pending(3)
	noError(t, m.Nak(t.Context()))
	pending(3)
	noError(t, b.DeleteMessage(t.Context(), group, last))
	pending(2)
	noError(t, next(t, d).DoubleAck(t.Context()))
	pending(2)
	if _, err := b.Pending(t.Context(), "none"); err == nil {
		t.Error("a group that is not there has something pending")
	}
}
