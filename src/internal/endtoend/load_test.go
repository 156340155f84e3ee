package endtoend_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/endtoend/installation"
)

// trickle is a small load from one user: calls at both APIs in turn, every third of them not waited for.
type trickle struct {
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	good     []time.Time // when calls were made that were answered as they should be
	refused  []time.Time // and those that were answered 503
	accepted []string    // ids of those that were not waited for
}

// trickleEvery is how often the load calls.
const trickleEvery = 100 * time.Millisecond

// startTrickle starts it. What is answered 503 must be worth another try, or of unknown outcome; everything else must be right.
func (i life) startTrickle(t *testing.T, user string) *trickle {
	t.Helper()
	who := i.User(t, user, 500)
	who.Deploy(t, "load", nil, "say", "done")
	for n := range i.APIs {
		who.At(n).Run(t, "load", "first") // both know the function
	}
	l := &trickle{stop: make(chan struct{})}
	tick := time.NewTicker(trickleEvery)
	l.wg.Go(func() {
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			l.wg.Go(func() { l.call(t, who.At(n%2), n) })
		}
	})
	t.Cleanup(l.end)
	return l
}

func (l *trickle) call(t *testing.T, who installation.Caller, n int) {
	parameter, at := fmt.Sprint("call-", n), time.Now()
	var headers []string
	if n%3 == 0 {
		headers = []string{"Prefer", "respond-async"}
	}
	a := who.Activate(t, "load", parameter, headers...)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case a.Status == http.StatusOK && a.Body == "done "+parameter:
		l.good = append(l.good, at)
	case a.Status == http.StatusAccepted && headers != nil && a.ID != "":
		l.good, l.accepted = append(l.good, at), append(l.accepted, a.ID)
	case a.Status == http.StatusServiceUnavailable && (a.Problem.Retryable || a.Problem.OutcomeUnknown):
		l.refused = append(l.refused, at)
	default:
		t.Errorf("call %d at %s answers %d %q: %+v, %v", n, who.I.APIs[who.API].Name, a.Status, a.Body, a.Problem, a.Err)
	}
}

// goodSince waits for good calls that were made after a moment.
func (l *trickle) goodSince(t *testing.T, limit time.Duration, since time.Time, what string) {
	t.Helper()
	const enough = 10
	installation.Within(t, limit, what, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		n := 0
		for _, at := range l.good {
			if at.After(since) {
				n++
			}
		}
		if n < enough {
			return fmt.Errorf("%d calls since then were answered as they should be, %d with 503", n, len(l.refused))
		}
		return nil
	})
}

// end stops calling and waits for the answers.
func (l *trickle) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.stop:
		return
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	l.wg.Wait()
	l.mu.Lock()
}

// refusals are those of calls that were made in a time, and how long it was from the first to the last.
func (l *trickle) refusals(from, to time.Time) (n int, span time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var in []time.Time
	for _, at := range l.refused {
		if at.After(from) && at.Before(to) {
			in = append(in, at)
		}
	}
	if len(in) == 0 {
		return 0, 0
	}
	return len(in), slices.MaxFunc(in, time.Time.Compare).Sub(slices.MinFunc(in, time.Time.Compare))
}

// testServersStopped stops one NATS server, and then all, under load.
func (i life) testServersStopped(t *testing.T) {
	l := i.startTrickle(t, "kim")
	one := i.NATS.Leader(t, "ACTIVATIONS-default")
	stopped := time.Now()
	i.NATS.Stop(one)
	l.goodSince(t, 30*time.Second, stopped.Add(2*time.Second), "calls go on without one server")
	i.testDoctor(t, one)
	i.NATS.Start(t, one)
	i.NATS.Settle(t)
	l.goodSince(t, 20*time.Second, time.Now(), "calls go on with all servers")
	n, span := l.refusals(stopped, time.Now())
	t.Logf("without one server: %d calls answered 503, over %v", n, span.Round(100*time.Millisecond))
	if span > 10*time.Second {
		t.Errorf("with one server away calls were refused over %v", span)
	}

	i.NATS.StopAll()
	stopped = time.Now()
	for _, d := range i.APIs {
		installation.Within(t, 20*time.Second, d.Name+" is not ready without servers", func() error {
			status, r, err := installation.Readiness(t, d)
			if err == nil && status != http.StatusServiceUnavailable {
				err = fmt.Errorf("%d: missing %q", status, r.Missing)
			}
			return err
		})
	}
	i.NATS.StartAll(t)
	l.goodSince(t, 30*time.Second, time.Now(), "calls go on when the servers are back")
	n, span = l.refusals(stopped, time.Now())
	t.Logf("with all servers stopped and started: %d calls answered 503, over %v", n, span.Round(100*time.Millisecond))
	l.end()
	i.settled(t, i.As(1, "kim"), l)
}

// settled waits until everything that was accepted has succeeded: nothing that was accepted depends on who was away.
func (i life) settled(t *testing.T, who installation.Caller, l *trickle) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	installation.Within(t, time.Minute, "what was accepted has succeeded", func() error {
		list, err := who.History(t)
		if err != nil {
			return err
		}
		states := make(map[string]client.State, len(list))
		for _, a := range list {
			states[a.ActivationID] = a.State
		}
		for _, id := range l.accepted {
			if states[id] != client.StateSucceeded {
				return fmt.Errorf("%s is %q", id, states[id])
			}
		}
		return nil
	})
	t.Logf("%d calls were answered well, %d of them 202", len(l.good), len(l.accepted))
}

// testDocumentsStopped stops the document store under load: activations of known functions go on as if nothing were, changes are
// refused, and the history catches up.
func (i life) testDocumentsStopped(t *testing.T) {
	l := i.startTrickle(t, "lea")
	lea := i.As(0, "lea")
	l.goodSince(t, 20*time.Second, time.Now(), "calls are answered") // what was announced is behind us: both APIs remember the function
	i.Documents.Stop(t)
	stopped := time.Now()
	id, _ := lea.Run(t, "load", "meanwhile")
	var wg sync.WaitGroup // each of these waits for the store for a while
	for n := range i.APIs {
		wg.Go(func() { i.withoutDocuments(t, lea.At(n)) })
	}
	if got := lea.Other().Result(t, id); got != "done meanwhile" {
		t.Errorf("meanwhile the result is %q", got)
	}
	wg.Wait()
	l.goodSince(t, 20*time.Second, time.Now(), "calls go on without documents")
	if n, _ := l.refusals(stopped, time.Now()); n > 0 {
		t.Errorf("%d calls were refused while the documents were away", n)
	}
	i.Documents.Start(t)
	for n := range i.APIs {
		i.LacksNothing(t, i.APIs[n])
	}
	lea.Other().Deploy(t, "other", nil, "say", "x")
	l.end()
	i.settled(t, lea, l)
	if n, _ := l.refusals(stopped, time.Now()); n > 0 {
		t.Errorf("%d calls were refused", n)
	}
}

// withoutDocuments sees that an API is ready and names what is away, and that it refuses changes. It is no goroutine of the test.
func (i life) withoutDocuments(t *testing.T, lea installation.Caller) {
	_, err := client.Read[client.Function](lea.Put(t, "/v1/functions/other", lea.Spec(nil, "say", "x")))
	if f, ok := installation.AsFailure(err); !ok || f.Status != http.StatusServiceUnavailable || !f.Retryable || f.Component != "store" {
		t.Errorf("without documents a change gives %v", err)
	}
	status, r, err := installation.Readiness(t, i.APIs[lea.API])
	if err != nil || status != http.StatusOK || !contains(r.Missing, "documents: ") {
		t.Errorf("without documents %s answers %d, missing %q, %v", i.APIs[lea.API].Name, status, r.Missing, err)
	}
}

// contains reports whether a word is in one of the lines.
func contains(lines []string, word string) bool {
	return strings.Contains(strings.Join(lines, "\n"), word)
}
