package installation

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/client"
)

// Recorded is how long it may take until the history has all: what was on its way to an API, when a server or that API was away, comes
// again after a minute, or the leader reminds of it then.
const Recorded = 75 * time.Second

// ledger keeps what each user was told, for the count when nothing runs any more. Safe for concurrent use.
type Ledger struct {
	mu    sync.Mutex
	users map[string]*account
}

// account is what one user was told.
type account struct {
	accepted map[string]bool // ids
	unknown  int             // calls of which nobody told whether they were accepted
	refused  int             // calls that were not accepted since the queue was away
}

// Note takes down an Answer to a call for an activation.
func (l *Ledger) Note(user string, a Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users == nil {
		l.users = make(map[string]*account)
	}
	u := l.users[user]
	if u == nil {
		u = &account{accepted: make(map[string]bool)}
		l.users[user] = u
	}
	switch {
	case a.Err != nil || a.Problem.OutcomeUnknown:
		u.unknown++
	case a.Status == http.StatusServiceUnavailable && a.Problem.Reason != "no_worker":
		u.refused++
	case a.ID != "":
		u.accepted[a.ID] = true
	}
}

// Forget is for a user who was deleted, with all that he had.
func (l *Ledger) Forget(user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.users, user)
}

// Count checks that nothing is lost and nothing left over: each activation that was accepted has ended, and is in the history
// once, the counters agree, and neither queue nor bucket has anything of it.
func (i *Installation) Count(t testing.TB) {
	t.Helper()
	i.Ledger.mu.Lock()
	defer i.Ledger.mu.Unlock()
	for user, account := range i.Ledger.users {
		Within(t, Recorded, "what "+user+" has called for is in the history", func() error { return i.counted(t, user, account) })
	}
	js := i.servers.JetStream(t)
	Within(t, Recorded, "queues and buckets are empty", func() error { return empty(t, js) })
}

// counted checks one user at one API, and his counters at the other. A call that was refused while the queue was away may have left a
// record, which says then that it was not run.
func (i *Installation) counted(t testing.TB, user string, u *account) error {
	t.Helper()
	history, err := i.As(0, user).History(t)
	if err != nil {
		return err
	}
	seen := make(map[string]bool)
	var completed, failed int64
	more, ran := 0, 0 // than were accepted
	for _, a := range history {
		if seen[a.ActivationID] {
			return fmt.Errorf("%s is there twice", a.ActivationID)
		}
		if seen[a.ActivationID] = true; !Terminal(a.State) {
			return fmt.Errorf("%s is %s", a.ActivationID, a.State)
		}
		if a.State == client.StateSucceeded {
			completed++
		} else {
			failed++
		}
		if !u.accepted[a.ActivationID] {
			if more++; a.StartedAt != nil {
				ran++
			}
		}
	}
	for id := range u.accepted {
		if !seen[id] {
			return fmt.Errorf("%s was accepted and is not there", id)
		}
	}
	if ran > u.unknown || more > u.unknown+u.refused {
		return fmt.Errorf("%d activations are there that were not accepted, and %d of them ran; of %d calls that is not known, %d were refused",
			more, ran, u.unknown, u.refused)
	}
	usage, err := i.As(1, user).Usage(t)
	if err != nil {
		return err
	}
	if usage.Completed != completed || usage.Failed != failed || usage.Active != 0 {
		return fmt.Errorf("the usage is %+v, the history has %d and %d", usage, completed, failed)
	}
	return nil
}

// History lists all activations of a user, page by page.
func (c Caller) History(t testing.TB) (all []client.Activation, err error) {
	t.Helper()
	for cursor := ""; ; {
		page, err := client.Read[client.ActivationPage](c.Get(t, "/v1/activations?limit=100&cursor="+cursor))
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if cursor = page.Next; cursor == "" {
			return all, nil
		}
	}
}

// empty looks at the streams themselves: anchors aside, nothing may be in a queue, a backlog or a bucket of live records.
func empty(t testing.TB, js jetstream.JetStream) error {
	t.Helper()
	names := js.StreamNames(t.Context())
	var queues []string
	for name := range names.Name() {
		if strings.HasPrefix(name, "ACTIVATIONS-") || strings.HasPrefix(name, "BACKLOG-") || strings.HasPrefix(name, "KV_activations-") {
			queues = append(queues, name)
		}
	}
	if names.Err() != nil || len(queues) < 3 {
		return errors.Join(names.Err(), fmt.Errorf("the queues are %q", queues))
	}
	for _, name := range queues {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			return err
		}
		info, err := s.Info(t.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			return err
		}
		for subject, n := range info.State.Subjects {
			if !strings.HasSuffix(subject, ".anchor") {
				return fmt.Errorf("%s has %d of %s", name, n, subject)
			}
		}
	}
	return nil
}

// AsFailure is the problem document that an error is, if it is one.
func AsFailure(err error) (*client.Failure, bool) { return errors.AsType[*client.Failure](err) }

// IDs are those of activations, in order.
func IDs(list []client.Activation) (out []string) {
	for _, a := range list {
		out = append(out, a.ActivationID)
	}
	slices.Sort(out)
	return out
}
