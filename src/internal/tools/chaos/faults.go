package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
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

// rounds are all of them.
func rounds() []round {
	return []round{
		{"worker-killed", []fault{workerKilled}},
	}
}

// restartedWithin is the budget for what a killed worker ran if it is back at once, and goneWithin if it is not.
const (
	restartedWithin = 15 * time.Second
	goneWithin      = faena.AckWait + 10*time.Second
)

var workerKilled = fault{"kill -9 of worker, started again", func(s *suite, random *rand.Rand) (act, string) {
	w := s.worker(random)
	return func(ctx context.Context) error {
		s.busy(ctx)
		stop := history.Stop{Worker: w.Name, At: time.Now(), Within: goneWithin}
		if err := w.Kill(); err != nil {
			return err
		}
		s.h.Stopped(stop)
		return w.Run(ctx)
	}, w.Name
}}

func (s *suite) worker(random *rand.Rand) *site.Daemon {
	return s.site.Workers()[random.IntN(len(s.site.Workers()))]
}

// busy lets calls go on for a moment, so that something runs.
func (s *suite) busy(ctx context.Context) { pause(ctx, 1500*time.Millisecond) }

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
