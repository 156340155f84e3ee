package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"syscall"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/tools/chaos/history"
	"faena.dev/faena/internal/tools/chaos/load"
	"faena.dev/faena/internal/tools/chaos/site"
)

// act injects a fault, and heals it.
type act func(ctx context.Context) error

// fault is one kind of failure. choose decides, by the seed, whom it meets.
type fault struct {
	name   string
	choose func(s *suite, random *rand.Rand) (a act, target string)
}

// round is faults that happen at the same time.
type round struct {
	name   string
	faults []fault
}

// rounds are all of them. What takes long because it must outlast AckWait shares its time with what does not need the same parts.
func rounds() []round {
	return []round{
		{"worker-killed", []fault{workerKilled}},
		{"worker-told", []fault{workerTold, documentsAway}},
		{"worker-gone", []fault{workerGone, apiCut}},
		{"worker-cut", []fault{workerCut, apiKilled}},
		{"frozen", []fault{workerFrozen, leaderFrozen}},
		{"leader-killed", []fault{leaderKilled, engineEnded}},
		{"server-killed", []fault{serverKilled}},
		{"server-frozen", []fault{serverFrozen, engineHangs, apiTold}},
		{"servers-killed", []fault{serversKilled}},
		{"server-wiped", []fault{serverWiped}},
		{"server-full", []fault{serverFull}},
		{"full", []fault{workerFull, objectsFull}},
		{"clocks", []fault{clockOfAPI, clockOfWorker}},
	}
}

const (
	// restartedWithin is the budget for what a killed worker ran if it is back at once, and goneWithin if it is not.
	restartedWithin = 15 * time.Second
	goneWithin      = faena.AckWait + 10*time.Second
	// outlasting is longer than AckWait.
	outlasting = faena.AckWait + 4*time.Second
	// while is how long most other faults last.
	while = 10 * time.Second
)

// busy lets calls go on for a moment, so that something runs.
func busy(ctx context.Context) { pause(ctx, 1500*time.Millisecond) }

// busyWith waits until a worker is seen to run something, for a while.
func (s *suite) busyWith(ctx context.Context, w *site.Daemon) {
	_ = s.eventually(ctx, while, func() error { // it may be that there is nothing for it
		if s.h.Holds(w.Name) == 0 {
			return errors.New("it runs nothing")
		}
		return nil
	})
}

// one of them, by the seed.
func one[T any](random *rand.Rand, list []T) T { return list[random.IntN(len(list))] }

var workerKilled = fault{"kill -9 of a worker that is started again", func(s *suite, random *rand.Rand) (act, string) {
	w := one(random, s.site.Workers())
	return func(ctx context.Context) error {
		s.busyWith(ctx, w)
		at := time.Now()
		if err := w.Kill(); err != nil {
			return err
		}
		s.h.Stopped(history.Stop{Worker: w.Name, At: at, Within: restartedWithin})
		return w.Run(ctx)
	}, w.Name
}}

var workerGone = fault{"kill -9 of a worker that does not come back", func(s *suite, random *rand.Rand) (act, string) {
	w := one(random, s.site.Workers())
	return func(ctx context.Context) error {
		s.busyWith(ctx, w)
		at := time.Now()
		if err := w.Kill(); err != nil {
			return err
		}
		s.h.Stopped(history.Stop{Worker: w.Name, At: at, Within: goneWithin})
		pause(ctx, goneWithin)
		return w.Run(ctx) // the next fault needs it
	}, w.Name
}}

var workerTold = fault{"SIGTERM of a worker", func(s *suite, random *rand.Rand) (act, string) {
	w := one(random, s.site.Workers())
	return func(ctx context.Context) error {
		s.busyWith(ctx, w)
		s.h.Stopped(history.Stop{Worker: w.Name, At: time.Now(), Gently: true})
		if err := w.Stop(); err != nil {
			return err
		}
		return w.Run(ctx)
	}, w.Name
}}

var workerFrozen = fault{"SIGSTOP of a worker for longer than AckWait", func(s *suite, random *rand.Rand) (act, string) {
	w := one(random, s.site.Workers())
	return func(ctx context.Context) error {
		s.busyWith(ctx, w)
		s.h.Stopped(history.Stop{Worker: w.Name, At: time.Now(), Within: goneWithin})
		return frozen(ctx, w, outlasting)
	}, w.Name
}}

func frozen(ctx context.Context, p interface{ Signal(syscall.Signal) error }, d time.Duration) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	pause(ctx, d)
	return p.Signal(syscall.SIGCONT)
}

var workerCut = fault{"a worker is cut off from the NATS servers for longer than AckWait", func(s *suite, random *rand.Rand) (act, string) {
	w := one(random, s.site.Workers())
	return func(ctx context.Context) error {
		s.busyWith(ctx, w)
		s.h.Stopped(history.Stop{Worker: w.Name, At: time.Now(), Within: goneWithin})
		return cut(ctx, w.Cable, outlasting)
	}, w.Name
}}

func cut(ctx context.Context, c *site.Cable, d time.Duration) error {
	if err := c.Pull(ctx); err != nil {
		return err
	}
	pause(ctx, d)
	return c.Plug(context.WithoutCancel(ctx))
}

var apiKilled = fault{"kill -9 of an API", func(s *suite, random *rand.Rand) (act, string) {
	d := one(random, s.site.APIs())
	return func(ctx context.Context) error {
		busy(ctx)
		return errors.Join(d.Kill(), d.Run(ctx))
	}, d.Name
}}

var leaderKilled = fault{"kill -9 of the API that leads", func(s *suite, _ *rand.Rand) (act, string) {
	return func(ctx context.Context) error {
		busy(ctx)
		d, err := s.leader(ctx)
		if err != nil {
			return err
		}
		if err := d.Kill(); err != nil {
			return err
		}
		pause(ctx, while)
		return d.Run(ctx)
	}, ""
}}

var leaderFrozen = fault{"SIGSTOP of the API that leads for longer than AckWait", func(s *suite, _ *rand.Rand) (act, string) {
	return func(ctx context.Context) error {
		d, err := s.leader(ctx)
		if err != nil {
			return err
		}
		return frozen(ctx, d, outlasting)
	}, ""
}}

var apiTold = fault{"SIGTERM of an API", func(s *suite, random *rand.Rand) (act, string) {
	d := one(random, s.site.APIs())
	return func(ctx context.Context) error {
		busy(ctx)
		stop := history.Stop{At: time.Now(), Gently: true}
		err := errors.Join(d.Stop(), d.Run(ctx))
		if stop.Until = time.Now(); err == nil {
			s.h.Stopped(stop)
		}
		return err
	}, d.Name
}}

var apiCut = fault{"an API is cut off from the NATS servers", func(s *suite, random *rand.Rand) (act, string) {
	d := one(random, s.site.APIs())
	return func(ctx context.Context) error { return cut(ctx, d.Cable, 2*while) }, d.Name
}}

var documentsAway = fault{"the document store goes away", func(s *suite, random *rand.Rand) (act, string) {
	kill := random.IntN(2) == 0
	return func(ctx context.Context) error {
		if err := s.site.StopDocuments(kill); err != nil {
			return err
		}
		pause(ctx, while)
		return s.site.StartDocuments()
	}, map[bool]string{true: "killed", false: "stopped"}[kill]
}}

// clockStep is how far a clock is wrong.
const clockStep = 5 * time.Minute

var clockOfAPI = fault{"the clock of an API is wrong", func(s *suite, random *rand.Rand) (act, string) {
	return s.wrong(one(random, s.site.APIs()), random)
}}

var clockOfWorker = fault{"the clock of a worker is wrong", func(s *suite, random *rand.Rand) (act, string) {
	return s.wrong(one(random, s.site.Workers()), random)
}}

func (s *suite) wrong(d *site.Daemon, random *rand.Rand) (act, string) {
	by := clockStep
	if random.IntN(2) == 0 {
		by = -by
	}
	return func(ctx context.Context) error {
		if err := d.StepClock(by); err != nil {
			return err
		}
		pause(ctx, while)
		return d.StepClock(0)
	}, fmt.Sprintf("%s by %v", d.Name, by)
}

// leader is the API that leads, by what the APIs say.
func (s *suite) leader(ctx context.Context) (*site.Daemon, error) {
	var says struct {
		Leader string `json:"leader"`
	}
	var found *site.Daemon
	return found, s.eventually(ctx, while, func() error {
		a := s.gateway.Do(ctx, load.User{Name: site.AdminName, Password: s.site.Admin}, http.MethodGet, "/v1/diagnosis", nil)
		if a.Err != nil {
			return a.Err
		}
		if err := json.Unmarshal(a.Body, &says); err != nil {
			return err
		}
		for _, d := range s.site.APIs() {
			if d.Name == says.Leader {
				found = d
				return nil
			}
		}
		return fmt.Errorf("no API leads: it is %q", says.Leader)
	})
}

// pools is how many containers each worker says that it has.
func (s *suite) pools(ctx context.Context) (map[string]int, error) {
	a := s.gateway.Do(ctx, load.User{Name: site.AdminName, Password: s.site.Admin}, http.MethodGet, "/v1/workers", nil)
	if a.Err != nil || a.Status != http.StatusOK {
		return nil, fmt.Errorf("list the workers: %d %.300s: %w", a.Status, a.Body, a.Err)
	}
	var list struct {
		Items []struct {
			ID         string `json:"id"`
			Containers int    `json:"containers"`
		} `json:"items"`
	}
	if err := json.Unmarshal(a.Body, &list); err != nil {
		return nil, err
	}
	pools := make(map[string]int)
	for _, w := range list.Items {
		pools[w.ID] = w.Containers
	}
	return pools, nil
}
