package natsbus_test

import (
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
)

// retries is what an API and a worker do about what waits beyond its user's limit, is tried again, or is given up.
func (i *installation) retries(t *testing.T, w *natsbus.Bus) {
	ctx := t.Context()
	r := record("ana", 0)
	for range 2 {
		noError(t, i.api.PublishBacklog(ctx, "ana", otherGroup, 1, message(r)))
	}
	by, err := i.api.BacklogByUser(ctx, otherGroup)
	if err != nil || by["ana"] != 1 {
		t.Errorf("there wait %v, %v", by, err)
	}
	waiting, err := i.api.BacklogNext(ctx, otherGroup, "ana", 0)
	if err != nil || waiting.ID != r.ID || waiting.Err != nil {
		t.Fatalf("the oldest is %+v, %v", waiting, err)
	}
	noError(t, i.api.DeleteBacklog(ctx, otherGroup, waiting.Sequence))
	if _, err := i.api.BacklogMessage(ctx, otherGroup, "ana", r.ID); !faena.IsKind(err, faena.KindNotFound) {
		t.Errorf("it is read: %v", err)
	}
	if n, err := i.api.Pending(ctx, otherGroup); err != nil || n != 0 {
		t.Errorf("%d are pending, %v", n, err)
	}

	letter := deadLetter("ana", r.ID)
	letter.Group = otherGroup
	noError(t, w.PutDeadLetter(ctx, letter))
	got, seq, err := i.api.DeadLetter(ctx, otherGroup, "ana", r.ID)
	if err != nil || text(t, got) != text(t, letter) {
		t.Errorf("the dead letter is %+v, %v", got, err)
	}
	if ids, err := i.api.DeadLetterIDs(ctx, otherGroup, ""); err != nil || len(ids["ana"]) != 1 {
		t.Errorf("dead letters are %v, %v", ids, err)
	}
	seq, err = i.api.ReplaceDeadLetter(ctx, letter, seq)
	noError(t, err)
	noError(t, i.api.DeleteDeadLetter(ctx, otherGroup, seq))
	noError(t, i.api.PutDeadLetter(ctx, letter))
	if n, err := i.api.TrimDeadLetters(ctx, otherGroup, "ana", 0); err != nil || n != 1 {
		t.Errorf("%d dead letters are removed, %v", n, err)
	}

	_, mine, rev, _, err := i.api.ClaimKey(ctx, "ana", "k", claim(r.ID))
	if err != nil || !mine {
		t.Errorf("the claim: mine %v, %v", mine, err)
	}
	noError(t, i.api.DropKey(ctx, "ana", "k", rev))

	drains := make(chan bool, 10)
	stop, err := w.Drains("w1", func(drain bool) { drains <- drain })
	noError(t, err)
	defer stop()
	// Interest may be on its way between the servers.
	faenatest.Eventually(t, 20*time.Second, "it is asked to drain", func() bool {
		noError(t, i.api.RequestDrain(ctx, "w1", true))
		select {
		case drain := <-drains:
			return drain
		case <-time.After(200 * time.Millisecond):
			return false
		}
	})
}
