package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// deadLetter writes a dead letter of an activation of ann's function f, as a worker does, and returns the activation's id.
func (r *rig) deadLetter(changes ...func(*faena.DeadLetter)) string {
	r.t.Helper()
	id, err := r.o.NewID("ann", group)
	noError(r.t, err)
	d := faena.DeadLetter{Schema: faena.SchemaVersion, ID: id, User: "ann", Group: group, Function: "f", Revision: 1, Reason: faena.ReasonWorkerLost,
		Message: "Its worker was lost.", Attempts: 1, Worker: "w1", Parameter: faena.Blob{Size: 1, Inline: []byte("x")}, At: time.Now().UTC()}
	for _, change := range changes {
		change(&d)
	}
	noError(r.t, r.bus.PutDeadLetter(r.t.Context(), &d))
	return id
}

// letters are the activations of which dead letters are left.
func (r *rig) letters(user string) (ids []string) {
	r.t.Helper()
	list, next, err := r.DeadLetters(r.t.Context(), faena.DeadLetterQuery{User: user, Limit: 1000})
	noError(r.t, err)
	if next != "" {
		r.t.Errorf("all are on the page, and the next one begins after %s", next)
	}
	for _, d := range list {
		ids = append(ids, d.ID)
	}
	return ids
}

// A dead letter is made an activation of, once, whoever asks for it at the same time and whatever the first one has come to.
func TestControl_Redrive(t *testing.T) {
	t.Parallel()
	r := start(t, several, unhurried)
	other := r.another("api-2", several, unhurried)
	r.bus.patient.Store(true)
	other.bus.patient.Store(true)
	r.user("ann", 10)
	r.deploy("ann", "f")
	w := r.worker(2, echo)
	large := strings.Repeat("x", faena.MaxInlineBytes+1)

	t.Run("AtOnce", func(t *testing.T) {
		id := r.deadLetter(func(d *faena.DeadLetter) {
			d.Parameter = faena.Blob{Size: int64(len(large)), Object: "dead." + d.ID}
			noError(t, r.bus.PutObject(t.Context(), group, d.Parameter.Object, []byte(large)))
		})
		var wg sync.WaitGroup
		ids := make([]string, 10)
		for i := range ids {
			at := r
			if i%2 == 1 {
				at = other
			}
			wg.Go(func() {
				rec, err := at.Redrive(t.Context(), "ann", id, faena.ActivationRequest{RequestID: "again"})
				for faena.IsKind(err, faena.KindUnavailable) && t.Context().Err() == nil { // a busy machine; it may be asked again
					rec, err = at.Redrive(t.Context(), "ann", id, faena.ActivationRequest{RequestID: "again"})
				}
				if err != nil && !faena.IsKind(err, faena.KindNotFound) { // the first one has removed it
					t.Error(err)
				}
				ids[i] = rec.ID
			})
		}
		wg.Wait()
		slices.Sort(ids)
		if ids = slices.Compact(slices.DeleteFunc(ids, func(id string) bool { return id == "" })); len(ids) != 1 || ids[0] == id {
			t.Fatalf("they have made %v", ids)
		}
		rec := r.becomes(ids[0], faena.StateSucceeded)
		if rec.RedrivenFrom != id || rec.RequestID != "again" || rec.Result.Size != int64(len(large)) || w.ran.Load() != 1 {
			t.Errorf("the new one is %s, from %s, asked for by %q, with %d bytes; %d ran", rec.ID, rec.RedrivenFrom, rec.RequestID, rec.Result.Size, w.ran.Load())
		}
		if left := r.letters("ann"); len(left) > 0 {
			t.Errorf("left are %v", left)
		}
		r.empty() // of objects, too
	})
	t.Run("CancelledBeforeItRan", func(t *testing.T) {
		id := r.deadLetter()
		g := newGate()
		w.does(g.run)
		busy := []string{r.accepted("x"), r.accepted("x")}
		faenatest.Eventually(t, patience, "the worker is busy", func() bool { return g.running.Load() == 2 })
		r.bus.on("DeleteDeadLetter", func() error { return errors.New("killed") })
		first, err := r.Redrive(t.Context(), "ann", id, faena.ActivationRequest{})
		r.bus.on("DeleteDeadLetter", nil)
		noError(t, err)
		_, err = r.Cancel(t.Context(), "ann", first.ID)
		noError(t, err)
		again, err := other.Redrive(t.Context(), "ann", id, faena.ActivationRequest{})
		noError(t, err)
		if left := r.letters("ann"); again.ID != first.ID || len(left) != 1 {
			t.Errorf("first it is %s, then %s; left are %v", first.ID, again.ID, left)
		}
		noError(t, r.PurgeDeadLetter(t.Context(), "ann", id))
		close(g.open)
		for _, id := range busy {
			r.becomes(id, faena.StateSucceeded)
		}
		w.does(echo)
		w.ran.Store(1)
	})
	t.Run("Killed", func(t *testing.T) {
		id := r.deadLetter()
		r.bus.on("DeleteDeadLetter", func() error { return errors.New("killed") })
		first, err := r.Redrive(t.Context(), "ann", id, faena.ActivationRequest{})
		r.bus.on("DeleteDeadLetter", nil)
		noError(t, err)
		r.becomes(first.ID, faena.StateSucceeded)
		again, err := other.Redrive(t.Context(), "ann", id, faena.ActivationRequest{})
		noError(t, err)
		if again.ID != first.ID || w.ran.Load() != 2 || len(r.letters("ann")) > 0 {
			t.Errorf("first it is %s, then %s; %d ran, left are %v", first.ID, again.ID, w.ran.Load(), r.letters("ann"))
		}
	})
	t.Run("KilledADayAgo", func(t *testing.T) {
		id := r.deadLetter()
		r.bus.on("DeleteDeadLetter", func() error { return errors.New("killed") })
		first, err := r.Redrive(t.Context(), "ann", id, faena.ActivationRequest{})
		r.bus.on("DeleteDeadLetter", nil)
		noError(t, err)
		r.becomes(first.ID, faena.StateSucceeded)
		noError(t, r.bus.DropKeys(t.Context(), "ann")) // as their age does
		again, err := other.Redrive(t.Context(), "ann", id, faena.ActivationRequest{})
		noError(t, err)
		if again.ID != first.ID || w.ran.Load() != 3 || len(r.letters("ann")) > 0 {
			t.Errorf("first it is %s, then %s; %d ran, left are %v", first.ID, again.ID, w.ran.Load(), r.letters("ann"))
		}
	})
	t.Run("KilledADayAgoBeforeItMadeOne", func(t *testing.T) {
		never, err := r.o.NewID("ann", group)
		noError(t, err)
		id := r.deadLetter(func(d *faena.DeadLetter) { d.Redriven = never })
		made, err := r.Redrive(t.Context(), "ann", id, faena.ActivationRequest{})
		noError(t, err)
		if rec := r.becomes(made.ID, faena.StateSucceeded); rec.RedrivenFrom != id || w.ran.Load() != 4 || len(r.letters("ann")) > 0 {
			t.Errorf("it is %+v; %d ran, left are %v", rec, w.ran.Load(), r.letters("ann"))
		}
	})
	t.Run("WithALostAnswer", func(t *testing.T) {
		id := r.deadLetter()
		n := 0
		r.bus.on("ReplacedDeadLetter", func() error {
			if n++; n == 1 {
				return faena.ErrUnknown
			}
			return nil
		})
		defer r.bus.on("ReplacedDeadLetter", nil)
		made, err := r.Redrive(t.Context(), "ann", id, faena.ActivationRequest{})
		noError(t, err)
		if rec := r.becomes(made.ID, faena.StateSucceeded); rec.RedrivenFrom != id || w.ran.Load() != 5 || len(r.letters("ann")) > 0 {
			t.Errorf("it is %+v; %d ran, left are %v", rec, w.ran.Load(), r.letters("ann"))
		}
	})
	t.Run("RemovedMeanwhile", func(t *testing.T) {
		id := r.deadLetter()
		l, err := r.letterOf(t.Context(), "ann", id)
		noError(t, err)
		noError(t, other.PurgeDeadLetter(t.Context(), "ann", id))
		_, err = r.redrive(t.Context(), &l, faena.ActivationRequest{})
		if e := isKind(t, err, faena.KindConflict); !e.Retryable || len(r.letters("ann")) > 0 || w.ran.Load() != 5 {
			t.Errorf("the error is %+v; %d ran, left are %v", e, w.ran.Load(), r.letters("ann"))
		}
	})
	r.empty()
}

// What cannot be run again stays, and says why.
func TestControl_Redrive_Refused(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	remade := r.deadLetter(func(d *faena.DeadLetter) {
		d.Function = "remade"
		at := time.Now().UTC()
		noError(t, r.documents.Insert(t.Context(), []faena.Record{{Schema: faena.SchemaVersion, ID: d.ID, User: "ann", Group: group, Function: "remade",
			Revision: 1, Digest: "sha256:of-the-one-before", State: faena.StateLost, AdmittedAt: at, EndedAt: &at}}))
	})
	r.deploy("ann", "remade")
	going := r.accepted("x")
	r.deadLetter(func(d *faena.DeadLetter) { d.ID = going })
	forgotten := endedAgo(10 * 24 * time.Hour)
	noError(t, r.documents.Insert(t.Context(), []faena.Record{forgotten}))
	_, err := r.documents.Prune(t.Context(), time.Now().Add(-8*24*time.Hour), 10)
	noError(t, err)
	for name, c := range map[string]struct {
		id     string
		kind   faena.Kind
		reason string
	}{
		"AFunctionThatIsGone":       {r.deadLetter(func(d *faena.DeadLetter) { d.Function = "gone" }), faena.KindGone, "revision_gone"},
		"ARevisionThatIsGone":       {r.deadLetter(func(d *faena.DeadLetter) { d.Revision = 7 }), faena.KindGone, "revision_gone"},
		"AFunctionThatWasMadeAgain": {remade, faena.KindGone, "revision_gone"},
		"AParameterThatIsGone":      {r.deadLetter(func(d *faena.DeadLetter) { d.Parameter = faena.Blob{Size: 1, Object: "dead." + d.ID} }), faena.KindGone, "parameter_expired"},
		"AnActivationThatGoesOn":    {going, faena.KindConflict, "not_ended"},
		"ARedriveThatIsForgotten":   {r.deadLetter(func(d *faena.DeadLetter) { d.Redriven = forgotten.ID }), faena.KindGone, "redrive_expired"},
		"AMessageThatCannotBeRead":  {r.deadLetter(func(d *faena.DeadLetter) { d.Raw = []byte("?") }), faena.KindConflict, "dead_letter_unreadable"},
		"ALetterThatCannotBeRead":   {r.deadLetter(func(d *faena.DeadLetter) { d.Schema = faena.SchemaVersion + 7 }), faena.KindConflict, "dead_letter_unreadable"},
		"AnActivationThatHasNone":   {"01a2167f-adca-704f-a39e-08292f7d67a5", faena.KindNotFound, "dead_letter_not_found"},
		"WhatIsNoIDOfAnActivation":  {"x.>", faena.KindNotFound, "dead_letter_not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(r.letters("ann"))
			_, err := r.Redrive(t.Context(), "ann", c.id, faena.ActivationRequest{})
			if e := isKind(t, err, c.kind); e.Reason != c.reason || e.Message == "" {
				t.Errorf("the error is %+v", e)
			}
			if after := len(r.letters("ann")); after != before {
				t.Errorf("of %d are left %d", before, after)
			}
		})
	}
	if n, err := r.PurgeDeadLetters(t.Context(), faena.DeadLetterQuery{User: "ann"}); n != 8 || err != nil {
		t.Errorf("%d are purged, %v", n, err)
	}
	if left := r.letters("ann"); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// What has succeeded in spite of its dead letter is not run again, and has none any more.
func TestControl_DeadLetters_Succeeded(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	w := r.worker(1, echo)
	letter := func() string {
		id := r.accepted("x")
		r.becomes(id, faena.StateSucceeded)
		r.deadLetter(func(d *faena.DeadLetter) { d.ID = id })
		return id
	}
	left := r.deadLetter()
	id := letter()
	if got := r.letters("ann"); !slices.Equal(got, []string{left}) {
		t.Errorf("listed are %v", got)
	}
	_, err := r.DeadLetter(t.Context(), "ann", id)
	isKind(t, err, faena.KindNotFound)
	for _, id := range []string{letter(), letter()} {
		_, err = r.Redrive(t.Context(), "ann", id, faena.ActivationRequest{})
		isKind(t, err, faena.KindNotFound)
	}
	if n := w.ran.Load(); n != 3 {
		t.Errorf("%d ran", n)
	}
}

// Where it cannot be found out whether the activation has ended it is not run again.
func TestControl_Redrive_StoreAway(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	id := r.deadLetter()
	r.documents.on("Activation", func() error { return errAway })
	_, err := r.Redrive(t.Context(), "ann", id, faena.ActivationRequest{})
	isKind(t, err, faena.KindUnavailable)
	r.documents.on("Activation", nil)
	if live, err := r.bus.Bus.LiveIDs(t.Context(), group); err != nil || len(live) > 0 {
		t.Errorf("live are %v, %v", live, err)
	}
	if left := r.letters("ann"); len(left) != 1 {
		t.Errorf("left are %v", left)
	}
}

// A worker may write what it likes into its group's dead letters: a function of another group is out of its reach.
func TestControl_Redrive_OtherGroup(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	r.newGroup("gpu")
	_, err := r.PutUser(t.Context(), faena.User{Name: "ann", Groups: map[string]int{group: 5, "gpu": 5}}, "")
	noError(t, err)
	r.deploy("ann", "f")
	id := r.deadLetter(func(d *faena.DeadLetter) { d.Group = "gpu" })
	_, err = r.Redrive(t.Context(), "ann", id, faena.ActivationRequest{})
	if e := isKind(t, err, faena.KindGone); e.Reason != "revision_gone" {
		t.Errorf("the error is %+v", e)
	}
}

// All are run again, oldest first, as far as the limits let them through; what was refused can be tried later.
func TestControl_RedriveAll(t *testing.T) {
	t.Parallel()
	r := start(t, unhurried, func(_ *rig, o *Options, _ *times) { o.BacklogLimit = 0 })
	r.bus.patient.Store(true)
	r.user("ann", 2)
	r.user("bob", 1)
	r.deploy("ann", "f")
	r.deploy("ann", "g")
	r.deploy("bob", "f")
	var ids []string
	for i := range 5 {
		ids = append(ids, r.deadLetter(func(d *faena.DeadLetter) {
			d.Parameter.Inline = fmt.Append(nil, i)
			if i == 0 {
				d.Function = "gone"
			}
		}))
	}
	r.deadLetter(func(d *faena.DeadLetter) { d.Function = "g" })
	bobs := r.deadLetter(func(d *faena.DeadLetter) { d.User = "bob" })
	page, err := r.RedriveAll(t.Context(), faena.DeadLetterQuery{User: "ann", Function: "f", Limit: 1}, faena.ActivationRequest{})
	noError(t, err)
	if len(page.Accepted) != 1 || page.Accepted[0].From != ids[1] || page.Next != ids[1] || len(page.Refused) != 0 {
		t.Errorf("the first page is %+v", page)
	}
	rest, err := r.RedriveAll(t.Context(), faena.DeadLetterQuery{Limit: 100}, faena.ActivationRequest{})
	noError(t, err)
	var accepted, refused []string
	for _, a := range rest.Accepted {
		accepted = append(accepted, a.From)
	}
	for _, x := range rest.Refused {
		refused = append(refused, x.From+" "+x.Err.Reason)
	}
	if want := []string{ids[2], bobs}; !slices.Equal(accepted, want) || rest.Next != "" {
		t.Errorf("accepted are %v, want %v; the next page begins after %q", accepted, want, rest.Next)
	}
	if want := []string{ids[0] + " revision_gone", ids[3] + " limit_reached"}; !slices.Equal(refused, want) {
		t.Errorf("refused are %v, want %v", refused, want)
	}
	if left := r.letters(""); len(left) != 4 { // one is of a function that is gone, and two wait behind one
		t.Errorf("left are %v", left)
	}
	r.bus.onPublish(func(*faena.Message) (error, bool) { return faena.ErrFull, false })
	r.user("ann", 10)
	away, err := r.RedriveAll(t.Context(), faena.DeadLetterQuery{User: "ann", Limit: 100}, faena.ActivationRequest{})
	noError(t, err)
	if len(away.Accepted) != 0 || len(away.Refused) != 2 || away.Refused[1].Err.Kind != faena.KindUnavailable || away.Next != ids[0] {
		t.Errorf("while the platform takes nothing: %+v", away)
	}
}

// A function that is deleted has nothing waiting any more, in slots or in the backlog, and nothing of it is left of a deleted user.
func TestControl_Delete_Backlog(t *testing.T) {
	t.Parallel()
	r := start(t, func(_ *rig, o *Options, _ *times) { o.BacklogLimit = 1000 })
	r.user("ann", 5)
	r.deploy("ann", "f")
	r.deploy("ann", "g")
	g := newGate()
	r.worker(1, g.run)
	running := r.accepted("runs")
	for g.running.Load() == 0 {
		r.becomes(running, faena.StateRunning)
	}
	const waiting = 60
	var ids []string
	for range waiting {
		ids = append(ids, r.accepted("waits"))
	}
	stays, _, err := r.ActivateOnce(t.Context(), "k", faena.ActivationRequest{User: "ann", Function: "g", Async: true})
	noError(t, err)
	noError(t, r.Delete(t.Context(), "ann", "f", faena.Condition{}))
	for _, id := range ids {
		rec, err := r.Activation(t.Context(), "ann", id)
		if err != nil || rec.State != faena.StateCancelled || rec.Reason != faena.ReasonFunctionDeleted {
			t.Fatalf("at once it is %s (%s), %v", rec.State, rec.Reason, err)
		}
	}
	if n, err := r.waiting(t.Context(), "ann"); err != nil || n > 1 {
		t.Errorf("the backlog has %d, %v", n, err)
	}
	if rec, err := r.Activation(t.Context(), "ann", stays.ID); err != nil || rec.State != faena.StateQueued {
		t.Errorf("another function's is %+v, %v", rec, err)
	}
	r.deadLetter()
	for range waiting {
		_, err := r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "g", Async: true})
		noError(t, err)
	}
	noError(t, r.DeleteUser(t.Context(), "ann"))
	if n, err := r.waiting(t.Context(), "ann"); err != nil || n != 0 {
		t.Errorf("of the deleted user the backlog has %d, %v", n, err)
	}
	if left := r.letters(""); len(left) > 0 {
		t.Errorf("of the deleted user the dead letters %v are left", left)
	}
	kv, err := r.nats.JetStream(t).KeyValue(t.Context(), "idempotency")
	noError(t, err)
	if keys, err := kv.ListKeys(t.Context()); err == nil {
		for key := range keys.Keys() {
			t.Errorf("of the deleted user the key %s is left", key)
		}
	}
	r.quiet()
}

// Where a change was answered no call runs what was before, and elsewhere none does after a moment; while the store is away what is
// known is run.
func TestControl_Deploy_Everywhere(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	other := r.another("api-2", several)
	r.hearsOnly()
	other.hearsOnly()
	r.user("ann", 10)
	r.worker(2, func(j *job) (string, faena.Reason) { return j.message.Revision.Digest, "" })
	var last string
	for i := range 10 {
		at, there := r, other
		if i%2 == 1 {
			at, there = other, r
		}
		_, rev, _, _, err := at.Deploy(t.Context(), "ann", faena.Deployment{Name: "f", Spec: faena.Spec{Image: "registry.example.org/f:1", Input: faena.InputStdin}})
		noError(t, err)
		if rec, err := at.call(""); err != nil || string(rec.Result.Inline) != rev.Digest {
			t.Fatalf("deployment %d: %s ran where it was made, want %s; %v", i, rec.Result.Inline, rev.Digest, err)
		}
		faenatest.EventuallyNil(t, patience, "the other instance runs it too", func() error {
			rec, err := there.call("")
			if err == nil && string(rec.Result.Inline) != rev.Digest {
				err = fmt.Errorf("%s ran", rec.Result.Inline)
			}
			return err
		})
		last = rev.Digest
	}
	faenatest.EventuallyNil(t, patience, "what is known is run while the store is away", func() error { // when the last announcement has come
		_, err := other.call("")
		noError(t, err)
		other.documents.away.Store(true)
		defer other.documents.away.Store(false)
		rec, err := other.call("")
		if err == nil && string(rec.Result.Inline) != last {
			err = fmt.Errorf("%s ran", rec.Result.Inline)
		}
		return err
	})
	noError(t, r.Delete(t.Context(), "ann", "f", faena.Condition{}))
	faenatest.Eventually(t, patience, "it is gone at the other instance too", func() bool {
		_, err := other.call("")
		return faena.IsKind(err, faena.KindNotFound)
	})
	r.deploy("ann", "f")
	faenatest.EventuallyNil(t, patience, "it is there again", func() error {
		rec, err := other.call("")
		if err == nil && (rec.Revision != 1 || string(rec.Result.Inline) == last) {
			err = fmt.Errorf("of a function that was made again %+v", rec)
		}
		return err
	})
}

// An announcement may be lost with a connection: what is remembered is looked at again when it is back, and served while the store is away.
func TestCache_Doubt(t *testing.T) {
	t.Parallel()
	loads, failure := 0, error(nil)
	c := newCache(func(context.Context, string, string) (int, error) { loads++; return loads, failure })
	get := func(want int) {
		t.Helper()
		if v, err := c.get(t.Context(), "ann", "f"); err != nil || v != want {
			t.Errorf("it is %d, %v, want %d", v, err, want)
		}
	}
	get(1)
	get(1)
	c.doubt()
	get(2)
	c.doubt()
	failure = faena.Unavailable(faena.ComponentStore, "store_unavailable", "away", nil)
	get(2)
	get(2)
	failure = nil
}
