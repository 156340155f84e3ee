package load

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/tools/chaos/history"
)

// Function is one that is called.
type Function struct {
	Name              string
	Retries           int
	Shortest, Longest time.Duration // that it runs
	Large             bool          // its parameter is over 256 KiB, on standard input
	Fails             bool          // whatever its parameter is
}

// Timeout is that of every function.
const Timeout = 20 * time.Second

const (
	// startWithin is the Faena-Expires of calls that wait.
	startWithin = 60 * time.Second
	// longest is how long such a call may take: its latest start, the function's timeout, once more the time until a lost worker is
	// noticed, and what a busy machine needs.
	longest = startWithin + Timeout + 30*time.Second + 20*time.Second
	// look is the pause between two looks at an activation that has not ended.
	look = 400 * time.Millisecond
)

// Load is what several users call for. Make one with Start.
type Load struct {
	g         *Gateway
	h         *history.History
	functions []Function

	tokens  atomic.Int64
	calling atomic.Bool  // false: what was called for is seen to its end, and nothing new is
	paused  atomic.Bool  // likewise, until it is false again
	inside  atomic.Int64 // calls that are not seen to their end
	running sync.WaitGroup
	stop    context.CancelFunc
}

// Start begins to call: each client of each user makes one call after the other. Choices follow the seed.
func Start(ctx context.Context, g *Gateway, h *history.History, users []User, functions []Function, seed uint64) *Load {
	ctx, stop := context.WithCancel(ctx)
	l := &Load{g: g, h: h, functions: functions, stop: stop}
	l.calling.Store(true)
	for k, u := range users {
		for n := range u.Waiting + u.Async {
			random := rand.New(rand.NewPCG(seed, uint64(k*1000+n)))
			l.running.Go(func() { l.client(ctx, u, n >= u.Waiting, random) })
		}
		if u.Every > 0 {
			random := rand.New(rand.NewPCG(seed, uint64(k*1000+999)))
			l.running.Go(func() { l.steadily(ctx, u, random) })
		}
	}
	return l
}

// Quiesce makes no new calls, and waits until what was accepted has ended, for that long at most.
func (l *Load) Quiesce(within time.Duration) {
	l.calling.Store(false)
	timer := time.AfterFunc(within, l.stop)
	defer timer.Stop()
	l.running.Wait()
}

// Pause makes no new calls, and waits until what was accepted has ended, or until ctx ends. Resume goes on.
func (l *Load) Pause(ctx context.Context) error {
	l.paused.Store(true)
	for l.inside.Load() > 0 {
		pause(ctx, 20*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("%d calls, or activations, have not ended since there are no new ones: %w", l.inside.Load(), ctx.Err())
		}
	}
	return nil
}

// Resume ends a pause.
func (l *Load) Resume() { l.paused.Store(false) }

// enter waits until there is no pause, and begins a call; leave ends it.
func (l *Load) enter(ctx context.Context) {
	for {
		for l.paused.Load() && ctx.Err() == nil {
			pause(ctx, 20*time.Millisecond)
		}
		l.inside.Add(1)
		if !l.paused.Load() || ctx.Err() != nil {
			return
		}
		l.leave() // the pause has begun meanwhile
	}
}

func (l *Load) leave() { l.inside.Add(-1) }

// Stop ends everything at once.
func (l *Load) Stop() {
	l.stop()
	l.running.Wait()
}

func (l *Load) client(ctx context.Context, who User, async bool, random *rand.Rand) {
	for l.calling.Load() && ctx.Err() == nil {
		f := l.functions[random.IntN(len(l.functions))]
		if f.Large && random.IntN(3) > 0 { // what they write stays in the object store
			continue
		}
		ms := f.Shortest.Milliseconds() + random.Int64N(f.Longest.Milliseconds()-f.Shortest.Milliseconds()+1)
		c := history.Call{Token: fmt.Sprintf("t%d", l.tokens.Add(1)), User: who.Name, Function: f.Name, Retries: f.Retries, Async: async}
		parameter, result := f.parameter(c.Token, ms, random)
		if !async {
			c.Longest = longest
		}
		if random.IntN(4) == 0 {
			c.Key = "key-" + c.Token
		}
		l.enter(ctx)
		wait := l.call(ctx, who, async, c, parameter, result)
		l.leave()
		pause(ctx, wait+time.Duration(random.IntN(100))*time.Millisecond)
	}
}

// steadily makes calls of the first function that wait, at fixed times, but no more at once than the user's limit.
func (l *Load) steadily(ctx context.Context, who User, random *rand.Rand) {
	tick := time.NewTicker(who.Every)
	defer tick.Stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	places := make(chan struct{}, who.Limit)
	for l.calling.Load() && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		if l.paused.Load() {
			continue
		}
		f := l.functions[0]
		c := history.Call{Token: fmt.Sprintf("t%d", l.tokens.Add(1)), User: who.Name, Function: f.Name, Retries: f.Retries, Longest: longest}
		parameter, result := f.parameter(c.Token, 0, random)
		select {
		case places <- struct{}{}:
			calls.Go(func() {
				l.enter(ctx)
				defer l.leave()
				l.call(ctx, who, false, c, parameter, result)
				<-places
			})
		default:
		}
	}
}

// parameter begins with what the function is to do: how long it runs, and whether it writes the first line or all, or fails. The rest are any
// bytes, but for one argument no NUL.
func (f Function) parameter(token string, ms int64, random *rand.Rand) (parameter, result []byte) {
	size, what := random.IntN(200), "all"
	if f.Large {
		size = 257<<10 + random.IntN(64<<10)
		if random.IntN(2) == 0 {
			what = "line"
		}
	}
	if f.Fails {
		what = "fail"
	}
	parameter = fmt.Appendf(nil, "%s %d %s\n", token, ms, what)
	line := len(parameter)
	for range size {
		b := byte(random.Uint32())
		if b == 0 && !f.Large {
			b = '\n'
		}
		parameter = append(parameter, b)
	}
	if what == "line" {
		return parameter, parameter[:line]
	}
	return parameter, parameter
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// call makes a call, sees it to its end, and says how long to wait before the next one. One with an Idempotency-Key is made again
// while nobody tells what became of it.
func (l *Load) call(ctx context.Context, who User, async bool, c history.Call, parameter, result []byte) (wait time.Duration) {
	const refused = 300 * time.Millisecond
	for {
		made := l.once(ctx, who, async, c, parameter, result)
		switch {
		case ctx.Err() != nil && made.Outcome == history.Unknown:
			return 0
		case made.Outcome == history.Accepted:
			l.follow(ctx, who, made.ID, result)
			return 0
		case made.Outcome == history.Unknown && c.Key != "" && l.calling.Load():
			pause(ctx, time.Second)
		case made.Outcome == history.Unknown && made.ID != "":
			l.look(ctx, who, made.ID)
			return refused
		default:
			return refused
		}
	}
}

// problem is what callers read of a problem document.
type problem struct {
	Reason         string `json:"reason"`
	Detail         string `json:"detail"`
	ActivationID   string `json:"activation_id"`
	OutcomeUnknown bool   `json:"outcome_unknown"`
	Retryable      bool   `json:"retryable"`
	State          string `json:"state"`
}

func (l *Load) once(ctx context.Context, who User, async bool, c history.Call, parameter, result []byte) history.Call {
	headers := []string{"Content-Type", "application/octet-stream"}
	if async {
		headers = append(headers, "Prefer", "respond-async")
	} else {
		headers = append(headers, "Faena-Expires", fmt.Sprint(int(startWithin.Seconds())))
	}
	if c.Key != "" {
		headers = append(headers, "Idempotency-Key", c.Key)
	}
	c.Sent = time.Now()
	// Nobody waits longer; that it was too long is seen from the times.
	limited, cancel := context.WithTimeout(ctx, longest+30*time.Second)
	defer cancel()
	a := l.g.Do(limited, who, http.MethodPost, "/v1/functions/"+c.Function+"/activations", parameter, headers...)
	c.Answered = time.Now()
	if ctx.Err() != nil && a.Err != nil {
		c.Longest = 0 // it was given up
	}
	judge(&c, a, async)
	if ctx.Err() != nil {
		c.Broke = ""
	}
	l.h.Called(c)
	switch {
	case a.Err == nil && a.Status == http.StatusOK:
		l.h.Read(c.ID, a.Body, result)
	case a.Err == nil && a.Status == http.StatusBadGateway:
		var p problem
		if json.Unmarshal(a.Body, &p) == nil {
			l.h.Saw(history.Sight{ID: c.ID, State: p.State, Reason: p.Reason, At: c.Answered})
		}
	}
	return c
}

// judge says what a caller knows from an answer.
func judge(c *history.Call, a Answer, async bool) {
	if a.Err != nil {
		c.Broke = a.Err.Error()
		if !a.Sent {
			c.Outcome = history.Refused
		}
		return
	}
	var p problem
	if a.Status >= 300 {
		if err := json.Unmarshal(a.Body, &p); err != nil {
			c.Strange = fmt.Sprintf("%d with %.100q", a.Status, a.Body)
			return
		}
	}
	c.ID = a.Header.Get("Faena-Activation-Id")
	if p.ActivationID != "" {
		c.ID = p.ActivationID
	}
	switch {
	case a.Status == http.StatusOK && !async, a.Status == http.StatusAccepted && async:
		c.Outcome, c.Good = history.Accepted, true
	case a.Status == http.StatusAccepted, a.Status == http.StatusBadGateway:
		c.Outcome = history.Accepted
	case a.Status == http.StatusServiceUnavailable && p.OutcomeUnknown, a.Status == http.StatusConflict && p.Reason == "idempotency_in_progress":
	case a.Status == http.StatusServiceUnavailable && p.Reason == "no_worker" && c.ID != "":
		c.Outcome = history.Accepted
	case a.Status == http.StatusServiceUnavailable && p.Retryable, a.Status == http.StatusTooManyRequests:
		c.Outcome = history.Refused
	default:
		c.Outcome = history.Refused
		c.Strange = fmt.Sprintf("%d %s: %s", a.Status, p.Reason, p.Detail)
	}
	if c.Outcome == history.Accepted && c.ID == "" {
		c.Strange = fmt.Sprintf("%d without an id", a.Status)
	}
}

// record is what callers read of an activation.
type record struct {
	ActivationID string `json:"activation_id"`
	State        string `json:"state"`
	Reason       string `json:"reason"`
	Attempt      int    `json:"attempt"`
	Worker       string `json:"worker"`
}

func (r record) sight(at time.Time) history.Sight {
	return history.Sight{ID: r.ActivationID, State: r.State, Reason: r.Reason, Attempt: r.Attempt, Worker: r.Worker, At: at}
}

// look reads a record once; told is false where no API has an answer now.
func (l *Load) look(ctx context.Context, who User, id string) (s history.Sight, told bool) {
	a := l.get(ctx, who, "/v1/activations/"+id)
	switch {
	case a.Err != nil:
		return s, false
	case a.Status == http.StatusNotFound:
		s = history.Sight{ID: id, State: history.Absent, At: time.Now()}
	case a.Status == http.StatusOK:
		var r record
		if json.Unmarshal(a.Body, &r) != nil {
			return s, false
		}
		s = r.sight(time.Now())
	default:
		return s, false
	}
	l.h.Saw(s)
	return s, true
}

func (l *Load) get(ctx context.Context, who User, path string) Answer {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return l.g.Do(ctx, who, http.MethodGet, path, nil)
}

// follow sees an activation to its end, and reads its result and its log.
func (l *Load) follow(ctx context.Context, who User, id string, result []byte) {
	for ctx.Err() == nil {
		s, told := l.look(ctx, who, id)
		if !told || !s.Ended() {
			pause(ctx, look)
			continue
		}
		if s.State != "succeeded" {
			return
		}
		if s.Attempt > 1 {
			l.readLog(ctx, who, id)
		}
		for ctx.Err() == nil {
			a := l.get(ctx, who, "/v1/activations/"+id+"/result")
			if a.Err == nil && a.Status == http.StatusOK {
				l.h.Read(id, a.Body, result)
				return
			}
			pause(ctx, look)
		}
	}
}

// readLog reads of which attempt the log is.
func (l *Load) readLog(ctx context.Context, who User, id string) {
	for ctx.Err() == nil {
		a := l.get(ctx, who, "/v1/activations/"+id+"/logs")
		if a.Err == nil && a.Status == http.StatusOK {
			attempt := 0
			_, _ = fmt.Sscanf(strings.TrimSpace(string(a.Body)), "attempt %d", &attempt) // 0 is never right
			l.h.ReadLog(id, attempt)
			return
		}
		pause(ctx, look)
	}
}

// List reads all activations that a user has, and Letters all dead letters: their ids.
func List(ctx context.Context, g *Gateway, who User) (all []history.Sight, err error) {
	records, err := list(ctx, g, who, "activations")
	for _, r := range records {
		all = append(all, r.sight(time.Now()))
	}
	return all, err
}

func Letters(ctx context.Context, g *Gateway, who User) (ids []string, err error) {
	letters, err := list(ctx, g, who, "deadletters")
	for _, l := range letters {
		ids = append(ids, l.ActivationID)
	}
	return ids, err
}

// list reads page by page.
func list(ctx context.Context, g *Gateway, who User, what string) (all []record, err error) {
	for cursor := ""; ; {
		a := g.Do(ctx, who, http.MethodGet, "/v1/"+what+"?limit=100&cursor="+cursor, nil)
		if a.Err != nil {
			return nil, a.Err
		}
		var page struct {
			Items []record `json:"items"`
			Next  string   `json:"next"`
		}
		if a.Status != http.StatusOK {
			return nil, fmt.Errorf("the list of %s of %s answers %d: %.300s", what, who.Name, a.Status, a.Body)
		}
		if err := json.Unmarshal(a.Body, &page); err != nil {
			return nil, fmt.Errorf("the list of %s of %s: %w", what, who.Name, err)
		}
		all = append(all, page.Items...)
		if cursor = page.Next; cursor == "" {
			return all, nil
		}
	}
}
