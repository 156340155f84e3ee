package natsbus_test

import (
	"context"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
)

// What a worker makes up is believed by no API: neither a record of an activation that none has admitted, nor its end.
func TestBus_Made(t *testing.T) {
	t.Parallel()
	made := map[string]bool{} // ids of ana
	s, worker := start(t, natsbus.Options{})
	api := connect(t, s, natsbus.Options{Made: func(user, g, id string) bool { return user == "ana" && g == group && made[id] }})
	ctx, stop := context.WithCancel(t.Context())
	admitted := record("ana", 0)
	own := admitted.ID
	made[own] = true
	admitted.State = faena.StateSucceeded
	forged := map[string]*faena.Record{}
	for name, change := range map[string]func(*faena.Record){
		"an id that no API has made": func(*faena.Record) {},
		"of another user":            func(r *faena.Record) { r.User, r.ID = "bob", own },
		"admitted in a thousand days": func(r *faena.Record) {
			made[r.ID], r.AdmittedAt = true, r.AdmittedAt.Add(1000*24*time.Hour)
		},
		"admitted a thousand days ago": func(r *faena.Record) {
			made[r.ID], r.AdmittedAt = true, r.AdmittedAt.Add(-1000*24*time.Hour)
		},
	} {
		r := record("ana", 1)
		r.State = faena.StateSucceeded
		change(r)
		forged[name] = r
	}
	ended := make(chan *faena.Record, 10)
	quiet, err := api.Completed("api-1", func(r *faena.Record) { ended <- r })
	noError(t, err)
	defer quiet()
	for _, r := range forged {
		_, err := worker.CreateRecord(ctx, r)
		noError(t, err)
		noError(t, worker.Complete(ctx, r))
	}
	_, err = worker.CreateRecord(ctx, admitted)
	noError(t, err)
	noError(t, worker.Complete(ctx, admitted))
	if r := <-ended; r.ID != own || r.User != "ana" {
		t.Errorf("the end of %s of %s was believed", r.ID, r.User)
	}
	for name, r := range forged {
		if got, _, err := api.Record(ctx, group, r.User, r.ID); err == nil {
			t.Errorf("%s: it is read as %+v", name, got)
		}
	}
	live, err := api.LiveIDs(ctx, group)
	noError(t, err)
	if len(live) != 1 || len(live["ana"]) != len(made) {
		t.Errorf("live are %v", live)
	}
	recorded := make(chan faena.Record, 10)
	done := make(chan error, 1)
	go func() {
		done <- api.Terminal(ctx, group, 10, time.Millisecond, func(_ context.Context, rs []faena.Record) error {
			for _, r := range rs {
				recorded <- r
			}
			return nil
		}, nil)
	}()
	if r := <-recorded; r.ID != own || r.User != "ana" {
		t.Errorf("%s of %s was recorded", r.ID, r.User)
	}
	faenatest.EventuallyNil(t, 10*time.Second, "the operator is told of the others", func() error {
		found, err := api.Unreadable(ctx, []string{group})
		if err == nil && len(found) < len(forged) {
			err = faena.NotFound("record", "forged")
		}
		return err
	})
	stop()
	noError(t, <-done)
	if len(recorded) > 0 || len(ended) > 0 {
		t.Errorf("%d more were recorded, %d more ends were believed", len(recorded), len(ended))
	}
}

// A call may be admitted under its key's id as long as the key stands for it, and no longer.
func TestBus_Made_UnderAKey(t *testing.T) {
	t.Parallel()
	_, b := start(t, natsbus.Options{Made: func(string, string, string) bool { return true }})
	for name, c := range map[string]struct {
		later time.Duration // than its id
		read  bool
	}{
		"AtOnce":                     {0, true},
		"TwoMinutesLater":            {2 * time.Minute, true},
		"AsLongAsTheKeyIsRemembered": {faena.IdempotencyTTL, true},
		"AfterThat":                  {faena.IdempotencyTTL + 2*time.Minute, false},
		"BeforeIt":                   {-2 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := record("ana", 0)
			r.AdmittedAt = r.AdmittedAt.Add(c.later)
			_, err := b.CreateRecord(t.Context(), r)
			noError(t, err)
			if _, _, err := b.Record(t.Context(), group, r.User, r.ID); (err == nil) != c.read {
				t.Errorf("it is read with %v", err)
			}
		})
	}
}
