package kills_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/endtoend/installation"
)

const (
	// plain and twice are the functions that every user has: without retries, and with one. later has one after half a minute at least.
	plain = "plain"
	twice = "twice"
	later = "later"

	// large is more than fits into a record or message.
	large = 300 << 10
	// callWithin is how long a client goes on calling until it is told what has become of its call: longer than a key that was claimed
	// by an API which died keeps others away.
	callWithin = 90 * time.Second
)

// call is one activation as its client sees it.
type call struct {
	who      installation.Caller
	function string
	name     string // its parameter's first line: what its runs call themselves
	size     int    // of the parameter
	async    bool
	keyless  bool // without an Idempotency-Key: it is made once, and the client may never be told
	held     bool // its runs wait until release is called
	fails    int  // so many runs end badly

	mayLose   bool // that it is lost is no fault
	mayFail   bool // that its function fails is what it was told to
	cancel    bool // it was cancelled
	redriven  bool // its dead letter was redriven
	redrives  int  // how often
	unstarted bool // it must not have run

	release func()
	done    chan struct{} // closed when the client is told, or gives up
	answer  installation.Answer
}

var calls atomic.Int64

const useKeys = true

// start makes a call, and goes on in the background until it was answered. With a key it goes to one API after the other, as a client
// does.
func (x *table) start(t testing.TB, c call) *call {
	t.Helper()
	c.name, c.done = fmt.Sprintf("call-%d", calls.Add(1)), make(chan struct{})
	c.release = func() {}
	if c.held {
		c.release = x.runs.hold(c.name)
	}
	x.runs.fail(c.name, c.fails)
	var headers []string
	if c.async {
		headers = append(headers, "Prefer", "respond-async")
	}
	if !c.keyless && useKeys {
		headers = append(headers, "Idempotency-Key", rand.Text())
	}
	go func() {
		defer close(c.done)
		pause := time.NewTicker(200 * time.Millisecond)
		defer pause.Stop()
		for until := time.Now().Add(callWithin); ; c.who = c.who.Other() {
			c.answer = c.who.Activate(x.t, c.function, c.parameter(), headers...)
			if c.keyless || c.accepted() || time.Now().After(until) {
				return
			}
			<-pause.C
		}
	}()
	return &c
}

func (c *call) parameter() string {
	return c.name + "\n" + strings.Repeat("0123456789abcde\n", c.size/16)
}

// most is how often its function may run.
func (c *call) most() int {
	if c.function == plain {
		return 1
	}
	return 2 + c.redrives
}

// accepted reports whether the answer says what the activation is.
func (c *call) accepted() bool {
	a := &c.answer
	if a.Err != nil || a.ID == "" || a.Problem.OutcomeUnknown {
		return false
	}
	return a.Status == http.StatusOK || a.Status == http.StatusAccepted || a.Status == http.StatusBadGateway || a.Problem.Reason == "no_worker"
}

// wait waits for the client.
func (c *call) wait(t testing.TB) {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(callWithin + 10*time.Second):
		t.Fatalf("%s was not answered", c.name)
	}
	if !c.keyless && !c.accepted() {
		t.Fatalf("%s of %s was not accepted within %v; the last answer is %d: %+v, %v", c.name, c.function, callWithin, c.answer.Status, c.answer.Problem, c.answer.Err)
	}
}

// runsOnce waits until a call's function runs.
func (x *table) runsOnce(t testing.TB, c *call) {
	t.Helper()
	installation.Within(t, 30*time.Second, c.name+" runs", func() error {
		if len(x.runs.list(c.name)) > 0 {
			return nil
		}
		select {
		case <-c.done:
		default:
			return errors.New("its client waits")
		}
		a, err := ask(c.who, func(who installation.Caller) (client.Activation, error) { return who.Record(t, c.answer.ID) })
		if err == nil && installation.Terminal(a.State) {
			t.Fatalf("%s has ended: %+v", c.name, a)
		}
		return errors.Join(fmt.Errorf("it is %+v", a), err)
	})
}

// settled is ended for all that their users have called for: then nothing of them is active.
func (x *table) settled(t testing.TB, limit time.Duration, calls ...*call) {
	t.Helper()
	x.ended(t, limit, calls...)
	x.free(t, calls...)
}

// settledSince is settled, with a bound for the slots too: all is as if nothing had been so soon after a kill.
func (x *table) settledSince(t testing.TB, killed time.Time, limit time.Duration, calls ...*call) {
	t.Helper()
	x.ended(t, limit-time.Since(killed), calls...)
	x.freeSince(t, killed, limit, calls...)
}

// freeSince waits until nothing of the callers is active, and says how long after a kill that is.
func (x *table) freeSince(t testing.TB, killed time.Time, limit time.Duration, calls ...*call) {
	t.Helper()
	for _, c := range calls {
		installation.Within(t, max(limit-time.Since(killed), time.Second), "nothing of "+c.who.User+" is active", func() error { return x.freeNow(t, c) })
	}
	t.Logf("settled %v after the kill", time.Since(killed).Round(10*time.Millisecond))
}

// ended waits until the calls' activations have ended, and judges each by what its client was told and by its runs.
func (x *table) ended(t testing.TB, limit time.Duration, calls ...*call) {
	t.Helper()
	until := time.Now().Add(limit)
	for _, c := range calls {
		c.wait(t)
		if c.answer.ID == "" {
			x.judge(t, c, nil)
			continue
		}
		var a client.Activation
		installation.Within(t, max(time.Until(until), time.Second), c.name+" has ended", func() (err error) {
			a, err = ask(c.who, func(who installation.Caller) (client.Activation, error) { return who.Record(t, c.answer.ID) })
			if err == nil && !installation.Terminal(a.State) {
				err = fmt.Errorf("it is %s, attempt %d, of %s", a.State, a.Attempt, a.Worker)
			}
			return err
		})
		x.judge(t, c, &a)
	}
}

// judge says what is wrong with how a call has ended. a is nil where its client does not know it.
func (x *table) judge(t testing.TB, c *call, a *client.Activation) {
	t.Helper()
	if a == nil {
		a = &client.Activation{}
	}
	list := x.runs.list(c.name)
	wrong := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s of %s, %s: %s; it ran %+v, and is %s %s, attempt %d of worker %q: %s (%s)", c.name, c.who.User, c.function,
			fmt.Sprintf(format, args...), list, a.State, a.Reason, a.Attempt, a.Worker, a.Message, a.ActivationID)
	}
	if len(list) > c.most() {
		wrong("it ran more than %d times", c.most())
	}
	for n := 1; n < len(list); n++ {
		if before := list[n-1]; before.ended.IsZero() || before.ended.After(list[n].began) || before.attempt >= list[n].attempt {
			wrong("two of its attempts ran at once, or out of order")
		}
	}
	if c.unstarted && len(list) > 0 {
		wrong("it ran")
	}
	x.mu.Lock()
	x.ends = append(x.ends, end{c, *a})
	x.mu.Unlock()
	switch a.State {
	case "": // its client was not told
	case client.StateSucceeded:
		if n := len(list); n == 0 || list[n-1].failed {
			wrong("it has not run to a good end")
		} else if a.Attempt != list[n-1].attempt {
			wrong("another attempt ran to its end")
		}
		if got := x.result(t, c); got != c.parameter() {
			wrong("its result is %d bytes, %.20q", len(got), got)
		}
		if c.cancel && c.held {
			wrong("it was cancelled while it ran")
		}
	case client.StateLost:
		if !c.mayLose || a.Reason != "worker_lost" {
			wrong("it was lost")
		}
	case client.StateFailed:
		if !c.mayFail || a.Reason != "exit_nonzero" || len(list) == 0 || !list[len(list)-1].failed {
			wrong("it failed")
		}
	case client.StateCancelled:
		if !c.cancel {
			wrong("nobody has cancelled it")
		}
	default:
		wrong("it has ended for no reason")
	}
}

// ask asks one API, and the other one where that is dead.
func ask[T any](who installation.Caller, fn func(installation.Caller) (T, error)) (T, error) {
	v, err := fn(who)
	if _, answered := installation.AsFailure(err); err != nil && !answered {
		return fn(who.Other())
	}
	return v, err
}

// result reads the result from whichever API answers.
func (x *table) result(t testing.TB, c *call) (text string) {
	t.Helper()
	installation.Within(t, 20*time.Second, "the result of "+c.name+" is read", func() error {
		res, err := ask(c.who, func(who installation.Caller) (*http.Response, error) {
			return client.Stream(who.Get(t, "/v1/activations/"+c.answer.ID+"/result"))
		})
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		all, err := io.ReadAll(res.Body)
		text = string(all)
		return err
	})
	return text
}

// free waits until nothing of the callers is active: who was at the limit can call again.
func (x *table) free(t testing.TB, calls ...*call) {
	t.Helper()
	for _, c := range calls {
		installation.Within(t, 10*time.Second, "nothing of "+c.who.User+" is active", func() error { return x.freeNow(t, c) })
	}
}

func (x *table) freeNow(t testing.TB, c *call) error {
	u, err := ask(c.who, func(who installation.Caller) (client.Usage, error) { return who.Usage(t) })
	if err == nil && u.Active > 0 {
		err = fmt.Errorf("%d are", u.Active)
	}
	return err
}
