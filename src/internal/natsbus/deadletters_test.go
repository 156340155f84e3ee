package natsbus_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

func deadLetter(user, id string) *faena.DeadLetter {
	return &faena.DeadLetter{Schema: faena.SchemaVersion, ID: id, User: user, Group: group, Function: "f", Revision: 1, Reason: faena.ReasonWorkerLost,
		Message: "It was lost.", Attempts: 1, Worker: "w1", Parameter: faena.Blob{Size: 3, Inline: []byte{0, 0xff, '"'}}, At: time.Now().UTC().Round(0)}
}

func TestBus_DeadLetters(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	made := make(map[string]string) // users by id
	b := join(t, c, natsbus.Options{Made: func(user, g, id string) bool { return g == group && made[id] == user }})
	declared(t, b)
	ctx := t.Context()
	write := func(user string) *faena.DeadLetter {
		t.Helper()
		d := deadLetter(user, newID())
		made[d.ID] = user
		noError(t, b.PutDeadLetter(ctx, d))
		return d
	}
	ana, bob := write("ana"), write("bob")
	listed := func(user string) map[string][]string {
		t.Helper()
		all, err := b.DeadLetterIDs(ctx, group, user)
		noError(t, err)
		return all
	}
	t.Run("is read as it was written", func(t *testing.T) {
		got, seq, err := b.DeadLetter(ctx, group, "ana", ana.ID)
		if err != nil || seq == 0 || text(t, got) != text(t, ana) {
			t.Errorf("got %s at %d, %v; want %s", text(t, got), seq, err, text(t, ana))
		}
		if _, _, err := b.DeadLetter(ctx, group, "bob", ana.ID); !faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("of another user: %v", err)
		}
	})
	t.Run("is listed", func(t *testing.T) {
		if got := listed(""); len(got) != 2 || !slices.Equal(got["ana"], []string{ana.ID}) || !slices.Equal(got["bob"], []string{bob.ID}) {
			t.Errorf("of all: %v", got)
		}
		if got := listed("bob"); len(got) != 1 || !slices.Equal(got["bob"], []string{bob.ID}) {
			t.Errorf("of bob: %v", got)
		}
	})
	t.Run("a second one of an activation replaces the first, and is not deleted in its place", func(t *testing.T) {
		_, first, err := b.DeadLetter(ctx, group, "bob", bob.ID)
		noError(t, err)
		bob.Attempts++
		noError(t, b.PutDeadLetter(ctx, bob))
		noError(t, b.DeleteDeadLetter(ctx, group, first))
		got, second, err := b.DeadLetter(ctx, group, "bob", bob.ID)
		if err != nil || got.Attempts != bob.Attempts || second == first {
			t.Fatalf("got %+v at %d, %v", got, second, err)
		}
		for range 2 {
			noError(t, b.DeleteDeadLetter(ctx, group, second))
		}
		if got := listed("bob"); len(got) != 0 {
			t.Errorf("listed are %v", got)
		}
	})
	t.Run("what a worker makes up is not believed", func(t *testing.T) {
		forged := deadLetter("ana", newID()) // no API has made the id
		put(t, c, "DeadLetters."+group+".ana."+forged.ID, "", forged)
		put(t, c, "DeadLetters."+group+".bob."+ana.ID, "", ana) // of another user
		other := newID()
		made[other] = "ana"
		put(t, c, "DeadLetters."+group+".ana."+other, "", ana) // of another activation
		for user, id := range map[string]string{"ana": forged.ID, "bob": ana.ID} {
			if d, _, err := b.DeadLetter(ctx, group, user, id); !errors.Is(err, faena.ErrUnreadable) {
				t.Errorf("%s of %s is read as %+v, %v", id, user, d, err)
			}
		}
		d, seq, err := b.DeadLetter(ctx, group, "ana", other)
		if !errors.Is(err, faena.ErrUnreadable) || seq == 0 {
			t.Errorf("it is read as %+v at %d, %v", d, seq, err)
		}
		got := listed("")
		slices.Sort(got["ana"])
		if want := []string{ana.ID, other}; len(got) != 1 || !slices.Equal(got["ana"], want) {
			t.Errorf("listed are %v, want %v", got, want)
		}
		noError(t, b.DeleteDeadLetter(ctx, group, seq)) // what cannot be read can be removed
		if got := listed("ana")["ana"]; !slices.Equal(got, []string{ana.ID}) {
			t.Errorf("listed are %v", got)
		}
	})
	t.Run("what cannot be read is told apart", func(t *testing.T) {
		for what, tc := range map[string]struct {
			data any
			want error
		}{
			"of another version":      {map[string]any{"schema": otherSchema, "id": 7}, faena.ErrSchema},
			"of a version in a field": {map[string]any{"schema": otherSchema}, faena.ErrSchema},
			"damaged":                 {json.RawMessage(`{"schema":`), faena.ErrUnreadable},
			"of another form":         {map[string]any{"schema": faena.SchemaVersion, "id": 7}, faena.ErrUnreadable},
		} {
			id := newID()
			made[id] = "ana"
			put(t, c, "DeadLetters."+group+".ana."+id, "", tc.data)
			if d, seq, err := b.DeadLetter(ctx, group, "ana", id); !errors.Is(err, tc.want) || seq == 0 {
				t.Errorf("%s is read as %+v at %d, %v", what, d, seq, err)
			}
		}
	})
	t.Run("a message that is too large to be kept is cut", func(t *testing.T) {
		d := deadLetter("ana", newID())
		made[d.ID] = "ana"
		d.Raw, d.Parameter = make([]byte, 1<<20), faena.Blob{}
		noError(t, b.PutDeadLetter(ctx, d))
		got, _, err := b.DeadLetter(ctx, group, "ana", d.ID)
		if err != nil || len(got.Raw) < 512<<10 || len(got.Raw) >= 1<<20 || got.Message == d.Message || len(d.Raw) != 1<<20 {
			t.Errorf("%d bytes are kept, %v: %q", len(got.Raw), err, got.Message)
		}
	})
	t.Run("one is changed where it stands, and where it does not is left alone", func(t *testing.T) {
		d := write("ana")
		_, seq, err := b.DeadLetter(ctx, group, "ana", d.ID)
		noError(t, err)
		d.Redriven = newID()
		next, err := b.ReplaceDeadLetter(ctx, d, seq)
		noError(t, err)
		got, now, err := b.DeadLetter(ctx, group, "ana", d.ID)
		if err != nil || now != next || text(t, got) != text(t, d) {
			t.Errorf("got %s at %d, %v; want %s at %d", text(t, got), now, err, text(t, d), next)
		}
		if _, err := b.ReplaceDeadLetter(ctx, d, seq); !errors.Is(err, faena.ErrStale) {
			t.Errorf("an old one is changed: %v", err)
		}
		noError(t, b.DeleteDeadLetter(ctx, group, next))
		if _, err := b.ReplaceDeadLetter(ctx, d, next); !errors.Is(err, faena.ErrStale) {
			t.Errorf("one that was removed is changed: %v", err)
		}
	})
	t.Run("a user's oldest are removed, and nobody else's", func(t *testing.T) {
		write("bob")
		var all []string
		for range 5 {
			all = append(all, write("eve").ID)
		}
		before := listed("")
		for _, want := range []int{2, 0} {
			if n, err := b.TrimDeadLetters(ctx, group, "eve", 3); n != want || err != nil {
				t.Errorf("%d are removed, %v, want %d", n, err, want)
			}
		}
		got := listed("")
		if slices.Sort(got["eve"]); !slices.Equal(got["eve"], all[2:]) || len(got["ana"]) != len(before["ana"]) || len(got["bob"]) != len(before["bob"]) {
			t.Errorf("of %v are left %v", before, got)
		}
	})
	t.Run("one without an activation is refused", func(t *testing.T) {
		if err := b.PutDeadLetter(ctx, deadLetter("ana", "")); err == nil || errors.Is(err, faena.ErrRetry) || errors.Is(err, faena.ErrUnknown) {
			t.Errorf("got %v", err)
		}
	})
}

// TestBus_PutDeadLetter_Full: no worker waits for room: the oldest of the group go, and no other group's.
func TestBus_PutDeadLetter_Full(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	b := join(t, c, natsbus.Options{GroupStore: 64 << 20})
	declared(t, b)
	noError(t, b.DeclareGroup(t.Context(), otherGroup))
	theirs := deadLetter("ana", newID())
	theirs.Group = otherGroup
	noError(t, b.PutDeadLetter(t.Context(), theirs))
	var all []string
	for range 20 { // of 4 MiB, and each is a third of one
		d := deadLetter("ana", newID())
		d.Parameter = faena.Blob{Size: faena.MaxInlineBytes, Inline: make([]byte, faena.MaxInlineBytes)}
		noError(t, b.PutDeadLetter(t.Context(), d))
		all = append(all, d.ID)
	}
	left, err := b.DeadLetterIDs(t.Context(), group, "ana")
	noError(t, err)
	got := left["ana"]
	slices.Sort(got) // the ids are in order of time
	if n := len(got); n < 8 || n > 12 || !slices.Equal(got, all[20-n:]) {
		t.Errorf("%d are left: %q, of %q", n, got, all)
	}
	if _, _, err := b.DeadLetter(t.Context(), otherGroup, "ana", theirs.ID); err != nil {
		t.Errorf("that of another group: %v", err)
	}
	t.Run("they go with their group", func(t *testing.T) {
		noError(t, b.PublishBacklog(t.Context(), "ana", otherGroup, 1, message(record("ana", 0))))
		noError(t, b.RemoveGroup(t.Context(), otherGroup))
		noError(t, b.DeclareGroup(t.Context(), otherGroup))
		if ids, err := b.DeadLetterIDs(t.Context(), otherGroup, ""); err != nil || len(ids) != 0 {
			t.Errorf("there are %v, %v", ids, err)
		}
		if n, err := b.BacklogByUser(t.Context(), otherGroup); err != nil || len(n) != 0 {
			t.Errorf("there wait %v, %v", n, err)
		}
	})
}

// TestBus_NoDirectReads: what decides on an activation is read from the leader: a direct read may be older than the last write.
func TestBus_NoDirectReads(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	declared(t, join(t, c, natsbus.Options{}))
	js := c.JetStream(t)
	names := js.StreamNames(t.Context())
	n := 0
	for name := range names.Name() {
		s, err := js.Stream(t.Context(), name)
		noError(t, err)
		if s.CachedInfo().Config.AllowDirect {
			t.Errorf("stream %s allows direct reads", name)
		}
		n++
	}
	if names.Err() != nil || n != 9 {
		t.Errorf("there are %d streams, %v", n, names.Err())
	}
}

// TestBus_Drains: a worker hears what it is asked for, and nothing else.
func TestBus_Drains(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	var log said
	b := join(t, c, natsbus.Options{Logger: log.logger()})
	heard := make(chan bool, 10)
	stop, err := b.Drains("w1", func(drain bool) { heard <- drain })
	noError(t, err)
	ctx := t.Context()
	noError(t, b.RequestDrain(ctx, "w2", true))
	for _, want := range []bool{true, false} {
		noError(t, b.RequestDrain(ctx, "w1", want))
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("heard %v, want %v", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%v is not heard", want)
		}
		if want { // not before: on a connection of its own it may overtake the subscription
			noError(t, c.Client(t).PublishMsg(&nats.Msg{Subject: "Drain.w1", Data: []byte("explode")}))
			faenatest.Eventually(t, 20*time.Second, "what is not known is logged", func() bool { return log.count("does not know") == 1 })
		}
	}
	stop()
	noError(t, b.RequestDrain(ctx, "w1", true))
	noError(t, b.PublishChanged("a", "b", "c")) // a round trip would say more, but nothing answers
	if len(heard) > 0 {
		t.Errorf("%v is heard after the end", <-heard)
	}
}

// TestBus_SlotParameter: a parameter is read from the activation's own message.
func TestBus_SlotParameter(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	b := join(t, c, natsbus.Options{})
	declared(t, b)
	r := record("ana", 3)
	publish(t, b, r)
	if p, err := b.SlotParameter(t.Context(), group, "ana", 3, r.ID); err != nil || text(t, p) != text(t, message(r).Parameter) {
		t.Errorf("it is %s, %v", text(t, p), err)
	}
	for what, of := range map[string]struct {
		slot int
		id   string
	}{"another activation's": {3, newID()}, "an empty slot's": {4, r.ID}} {
		if p, err := b.SlotParameter(t.Context(), group, "ana", of.slot, of.id); !faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("%s is %s, %v", what, text(t, p), err)
		}
	}
	put(t, c, "Activations."+group+".ana.5", r.ID+".1", json.RawMessage(`{"schema":`))
	if p, err := b.SlotParameter(t.Context(), group, "ana", 5, r.ID); !errors.Is(err, faena.ErrUnreadable) {
		t.Errorf("of what cannot be read it is %s, %v", text(t, p), err)
	}
}
