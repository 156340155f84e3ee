package control

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

func (b *faultyBus) PublishBacklog(ctx context.Context, user, group string, publication int, m *faena.Message) error {
	if err := b.meet("PublishBacklog"); err != nil {
		return err
	}
	err := b.Bus.PublishBacklog(ctx, user, group, publication, m)
	if lost := b.meet("PublishBacklog answer"); lost != nil {
		return lost
	}
	return err
}

func (b *faultyBus) BacklogByUser(ctx context.Context, group string) (map[string]int, error) {
	if err := b.meet("BacklogByUser"); err != nil {
		return nil, err
	}
	return b.Bus.BacklogByUser(ctx, group)
}

func (b *faultyBus) BacklogSize(ctx context.Context, group, user string) (int, error) {
	if err := b.meet("BacklogSize"); err != nil {
		return 0, err
	}
	return b.Bus.BacklogSize(ctx, group, user)
}

func (b *faultyBus) BacklogFill(ctx context.Context, group string) (float64, error) {
	if b.meet("BacklogFill") != nil { // that it is full
		return 0.8, nil
	}
	return b.Bus.BacklogFill(ctx, group)
}

func (b *faultyBus) BacklogMessage(ctx context.Context, group, user, id string) (faena.Waiting, error) {
	if err := b.meet("BacklogMessage"); err != nil {
		return faena.Waiting{}, err
	}
	return b.Bus.BacklogMessage(ctx, group, user, id)
}

func (b *faultyBus) BacklogNext(ctx context.Context, group, user string, from uint64) (faena.Waiting, error) {
	if err := b.meet("BacklogNext"); err != nil {
		return faena.Waiting{}, err
	}
	return b.Bus.BacklogNext(ctx, group, user, from)
}

func (b *faultyBus) DeleteBacklog(ctx context.Context, group string, seq uint64) error {
	if err := b.meet("DeleteBacklog"); err != nil {
		return err
	}
	return b.Bus.DeleteBacklog(ctx, group, seq)
}

func (b *faultyBus) Pending(ctx context.Context, group string) (int, error) {
	if err := b.meet("Pending"); err != nil {
		return 0, err
	}
	n, err := b.Bus.Pending(ctx, group)
	for b.again(ctx, err) {
		n, err = b.Bus.Pending(ctx, group)
	}
	return n, err
}

// waiting is an API that leads, with a user ann and her function, where many may wait beyond her limit.
func waiting(t *testing.T, limit int, changes ...change) *rig {
	t.Helper()
	r := start(t, append([]change{several, waits(faena.DefaultBacklog)}, changes...)...)
	r.user("ann", limit)
	r.deploy("ann", "f")
	leads(t, takesOver, r)
	return r
}

// accept sends n asynchronous calls of a user, one after the other, with what they are counted as, and returns their ids.
func (r *rig) accept(user string, n int) (ids []string) {
	r.t.Helper()
	for i := range n {
		rec, err := r.Activate(r.t.Context(), faena.ActivationRequest{User: user, Function: "f", Parameter: fmt.Appendf(nil, "%s %d", user, i), Async: true})
		noError(r.t, err)
		ids = append(ids, rec.ID)
	}
	return ids
}

// inBacklog is how much of a user waits there.
func (r *rig) inBacklog(user string) int {
	r.t.Helper()
	n, err := r.bus.Bus.BacklogSize(r.t.Context(), group, user)
	noError(r.t, err)
	return n
}

// backlogIs waits until so much of a user waits there.
func (r *rig) backlogIs(user string, want int) {
	r.t.Helper()
	faenatest.EventuallyNil(r.t, patience, fmt.Sprintf("%d of %s wait", want, user), func() error {
		if n := r.inBacklog(user); n != want {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
}

// journal is what ran, in the order in which it began.
type journal struct {
	mu  sync.Mutex
	ran []string
}

// run is a function that writes its parameter down.
func (l *journal) run(j *job) (string, faena.Reason) {
	l.mu.Lock()
	l.ran = append(l.ran, string(j.parameter))
	l.mu.Unlock()
	return string(j.parameter), ""
}

func (l *journal) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ran)
}

// succeed waits until the document store has exactly these activations of a user's, each succeeded.
func (r *rig) succeed(user string, ids ...string) {
	r.t.Helper()
	slices.Sort(ids)
	var got []string
	faenatest.EventuallyNil(r.t, patience, fmt.Sprintf("%d activations of %s are recorded", len(ids), user), func() error {
		got = got[:0]
		for before, more := "", true; more; {
			page, err := r.documents.Documents.Activations(r.t.Context(), faena.HistoryQuery{User: user, Before: before, Limit: 1000})
			if err != nil {
				return err
			}
			for _, rec := range page {
				got, before = append(got, rec.ID), rec.ID
				if rec.State != faena.StateSucceeded || rec.Attempt != 1 {
					r.t.Errorf("%s is %s after %d attempts: %s", rec.ID, rec.State, rec.Attempt, rec.Message)
				}
			}
			more = len(page) == 1000
		}
		if len(got) < len(ids) {
			return fmt.Errorf("there are %d", len(got))
		}
		return nil
	})
	slices.Sort(got)
	if !slices.Equal(got, ids) {
		r.t.Errorf("%d activations of %s are recorded, want %d others", len(got), user, len(ids))
	}
}

// askerFunc is a stream that says how much waits.
type askerFunc func() (int, error)

func (f askerFunc) BacklogSize(context.Context, string, string) (int, error) { return f() }
