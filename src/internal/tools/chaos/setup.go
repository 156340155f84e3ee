package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"faena.dev/faena/internal/tools/chaos/load"
	"faena.dev/faena/internal/tools/chaos/site"
)

// users call at the limit and a little beyond, but for the last; the sum of their limits is about twice what the workers run at once.
var users = []load.User{
	{Name: "ann", Password: "a-password-of-ann", Limit: 2, Waiting: 1, Async: 2},
	{Name: "bob", Password: "a-password-of-bob", Limit: 5, Waiting: 2, Async: 4},
	{Name: "cid", Password: "a-password-of-cid", Limit: 6, Waiting: 3, Async: 4},
	{Name: "dot", Password: "a-password-of-dot", Limit: 40, Every: 500 * time.Millisecond},
}

// functions are deployed for each user.
var functions = []load.Function{
	{Name: "short", Longest: 50 * time.Millisecond},
	{Name: "long", Shortest: time.Second, Longest: 3 * time.Second},
	{Name: "again", Retries: 2, Longest: 50 * time.Millisecond},
	{Name: "long-again", Retries: 1, Shortest: time.Second, Longest: 3 * time.Second},
	{Name: "fails", Retries: 1, Longest: 50 * time.Millisecond, Fails: true},
	{Name: "large", Longest: 200 * time.Millisecond, Large: true},
	{Name: "large-again", Retries: 1, Longest: 200 * time.Millisecond, Large: true},
}

// prepare makes known the group, the users and their functions.
func (s *suite) prepare(ctx context.Context) error {
	admin := load.User{Name: site.AdminName, Password: s.site.Admin}
	if err := s.put(ctx, admin, "/v1/groups/"+site.Group, json.RawMessage(s.site.Keys)); err != nil {
		return err
	}
	for _, w := range s.site.Workers() {
		if err := w.Await(ctx); err != nil {
			return err
		}
	}
	for _, u := range users {
		if err := s.put(ctx, admin, "/v1/users/"+u.Name, map[string]any{"role": "user", "groups": map[string]int{site.Group: u.Limit}, "password": u.Password}); err != nil {
			return err
		}
		for _, f := range functions {
			if err := s.put(ctx, u, "/v1/functions/"+f.Name, s.spec(f)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *suite) spec(f load.Function) map[string]any {
	spec := map[string]any{"image": s.site.Image, "args": []string{s.site.LedgerAddress(), s.ledger.Port()}, "memory_bytes": 32 << 20,
		"timeout_ms": load.Timeout.Milliseconds()}
	if f.Large {
		spec["input"] = "stdin"
	}
	if f.Retries > 0 {
		spec["retries"], spec["retry_delay_ms"] = f.Retries, 200
	}
	return spec
}

// put repeats what an API cannot do yet, since it, or the group's first worker, has just started.
func (s *suite) put(ctx context.Context, who load.User, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(time.Minute)
	for {
		a := s.gateway.Do(ctx, who, http.MethodPut, path, text, "Content-Type", "application/json")
		switch {
		case a.Err == nil && a.Status/100 == 2:
			return nil
		case ctx.Err() != nil || time.Now().After(deadline) || a.Err == nil && a.Status/100 == 4 && !bytes.Contains(a.Body, []byte("is pending")):
			return fmt.Errorf("PUT %s answers %d: %.500s (%v)", path, a.Status, a.Body, a.Err)
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
