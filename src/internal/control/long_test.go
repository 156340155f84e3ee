package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// crowd is clients of an installation whose APIs come and go, and what they were told.
type crowd struct {
	t *testing.T

	mu       sync.Mutex
	apis     []*member
	accepted map[string]string // id → user
	ends     map[string]faena.State
	doubt    int // calls of which the client does not know what became
	done     atomic.Int64
}

// member is an API that takes calls.
type member struct {
	*rig
	ctx   context.Context // of the calls to it
	stop  context.CancelFunc
	calls sync.RWMutex // held by each
}

func (c *crowd) join(api *rig) *member {
	m := &member{rig: api}
	m.ctx, m.stop = context.WithCancel(c.t.Context())
	c.t.Cleanup(m.stop)
	c.mu.Lock()
	c.apis = append(c.apis, m)
	c.mu.Unlock()
	return m
}

// leave makes new calls go elsewhere.
func (c *crowd) leave(m *member) {
	c.mu.Lock()
	c.apis = slices.DeleteFunc(c.apis, func(other *member) bool { return other == m })
	c.mu.Unlock()
}

func (c *crowd) some(i int) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.apis[i%len(c.apis)]
	m.calls.RLock()
	return m
}

// one makes the i-th call.
func (c *crowd) one(i int) {
	defer c.done.Add(1)
	user := []string{"ann", "bob", "eve"}[i%3]
	req := faena.ActivationRequest{User: user, Function: "f", Parameter: []byte("ok"), Async: i%4 > 0}
	switch {
	case i%50 == 7:
		req.Parameter = []byte(strings.Repeat("l", faena.MaxInlineBytes+1))
	case i%5 == 2:
		req.Parameter = []byte("fail")
	case i%7 == 3:
		req.Parameter = []byte("slow")
	}
	for try := 0; ; try++ {
		m := c.some(i + try)
		rec, err := m.Activate(m.ctx, req)
		if err == nil && req.Async && i%7 == 3 {
			_, _ = m.Cancel(m.ctx, user, rec.ID) // whatever becomes of it
		}
		m.calls.RUnlock()
		if faena.IsKind(err, faena.KindLimit) {
			_ = sleep(c.t.Context(), 5*time.Millisecond)
			continue
		}
		c.note(user, rec, err)
		return
	}
}

func (c *crowd) note(user string, rec faena.Record, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, _ := asError(err)
	switch {
	case err == nil:
		c.accepted[rec.ID] = user
		if rec.State.Terminal() {
			c.ends[rec.ID] = rec.State
		}
	case errors.Is(err, context.Canceled), e != nil && e.OutcomeUnknown, e != nil && e.Kind == faena.KindUnavailable:
		c.doubt++ // its API was killed
	default:
		c.t.Errorf("a call gives %v", err)
	}
}

// reached waits until so many calls were made.
func (c *crowd) reached(n int64) {
	faenatest.Eventually(c.t, 2*time.Minute, fmt.Sprintf("%d calls", n), func() bool { return c.done.Load() >= n })
}

// A few thousand activations of all kinds, while APIs are killed and restarted: what was accepted has ended, once, as its caller
// was told; what nobody would settle was settled; and nothing is left but the documents.
func TestControl_LongRun(t *testing.T) {
	t.Parallel()
	const calls, clients = 2000, 12
	leading := func(_ *rig, _ *Options, t *times) {
		t.sweepEvery, t.sweepRest, t.projectAll = 100*time.Millisecond, 1, time.Second
		t.admitBudget, t.orphanAge = 2*time.Second, 3*time.Second // in this order: what an admission has begun is not lost
	}
	first := start(t, several, leading, wired)
	ran := make(map[string]int)
	var mu sync.Mutex
	work := func(j *job) (string, faena.Reason) {
		mu.Lock()
		ran[j.record.ID]++
		mu.Unlock()
		switch string(j.parameter) {
		case "fail":
			return "", faena.ReasonExitNonzero
		case "slow":
			if sleep(j, 3*time.Millisecond) != nil {
				return "", faena.ReasonCancelled
			}
		}
		return "done", ""
	}
	first.workerOf(group, "w1", 3, work)
	first.workerOf(group, "w2", 3, work)
	for user, limit := range map[string]int{"ann": 50, "bob": 10, "eve": 5} {
		first.user(user, limit)
		first.deploy(user, "f")
	}
	another := func(name string) *rig {
		api := first.another(name, several, leading, wired)
		first.nats.recorderWait(t, 2*time.Second)
		return api
	}
	c := &crowd{t: t, accepted: make(map[string]string), ends: make(map[string]faena.State)}
	one, two := c.join(first), c.join(another("api-2"))
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			for i := client; i < calls; i += clients {
				c.one(i)
			}
		})
	}
	killed := func(m *member) {
		m.kill()
		m.stop()
		c.leave(m)
	}
	c.reached(calls / 5)
	killed(one)
	three := c.join(another("api-3"))
	c.reached(2 * calls / 5)
	c.leave(two)
	two.Drain(t.Context())
	two.calls.Lock() // none is under way
	two.rig.stop()
	two.calls.Unlock()
	c.join(another("api-4"))
	c.reached(3 * calls / 5)
	killed(three)
	five := c.join(another("api-5"))
	wg.Wait()

	last := five.rig
	last.empty()
	documents := make(map[string]faena.Record)
	for _, user := range []string{"ann", "bob", "eve"} {
		var completed, failed int64
		for before := ""; ; {
			page, err := last.documents.Activations(t.Context(), faena.HistoryQuery{User: user, Before: before, Limit: 500})
			noError(t, err)
			for _, rec := range page {
				if _, twice := documents[rec.ID]; twice {
					t.Errorf("%s is there twice", rec.ID)
				}
				documents[rec.ID], before = rec, rec.ID
				if rec.State == faena.StateSucceeded {
					completed++
				} else {
					failed++
				}
			}
			if len(page) == 0 {
				break
			}
		}
		last.usageIs(user, completed, failed)
		last.nats.counters(t, user, map[string]string{activeCounter: "0", completedCounter: fmt.Sprint(completed), failedCounter: fmt.Sprint(failed)})
	}
	ends := make(map[faena.State]int)
	for id, rec := range documents {
		ends[rec.State]++
		if told, ok := c.ends[id]; ok && told != rec.State {
			t.Errorf("%s is %s, and its caller was told %s", id, rec.State, told)
		}
		if n := ran[id]; n > 1 || n == 0 && rec.State == faena.StateSucceeded {
			t.Errorf("%s is %s, and ran %d times", id, rec.State, n)
		}
	}
	for id, user := range c.accepted {
		if rec, ok := documents[id]; !ok || rec.User != user {
			t.Errorf("%s of %s was accepted, and is not recorded", id, user)
		}
	}
	if extra := len(documents) - len(c.accepted); extra < 0 || extra > c.doubt {
		t.Errorf("%d are recorded, %d were accepted, of %d their callers do not know", len(documents), len(c.accepted), c.doubt)
	}
	t.Logf("%d recorded, %d accepted, %d in doubt: %v", len(documents), len(c.accepted), c.doubt, ends)
}
