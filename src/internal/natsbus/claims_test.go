package natsbus_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

const claimsStream = "KV_idempotency"

func claim(id string) *faena.IdempotencyClaim {
	return &faena.IdempotencyClaim{Schema: faena.SchemaVersion, ID: id, Group: group, Function: "f", ParameterSHA256: "x", ClaimedAt: time.Now().UTC()}
}

func TestBus_ClaimKey(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	b := join(t, c, natsbus.Options{})
	declared(t, b)
	ctx := t.Context()
	first := newID()
	there, mine, rev, age, err := b.ClaimKey(ctx, "ana", "k", claim(first))
	if err != nil || !mine || there.ID != first || rev == 0 || age > time.Second {
		t.Fatalf("got %+v, %v, %d, %v, %v", there, mine, rev, age, err)
	}
	t.Run("the same again is still its own", func(t *testing.T) {
		there, mine, again, _, err := b.ClaimKey(ctx, "ana", "k", claim(first))
		if err != nil || !mine || there.ID != first || again != rev {
			t.Errorf("got %+v, %v, %d, %v", there, mine, again, err)
		}
	})
	t.Run("another one is told whose it is, and how old that is", func(t *testing.T) {
		faenatest.EventuallyNil(t, 10*time.Second, "it is a while old", func() error {
			there, mine, again, age, err := b.ClaimKey(ctx, "ana", "k", claim(newID()))
			if err != nil || mine || there.ID != first || there.ParameterSHA256 != "x" || again != rev {
				t.Fatalf("got %+v, %v, %d, %v", there, mine, again, err)
			}
			if age < 50*time.Millisecond {
				return fmt.Errorf("it is %v old", age)
			}
			return nil
		})
	})
	t.Run("of another user, or key, it is another one", func(t *testing.T) {
		for user, key := range map[string]string{"bob": "k", "ana": "redrive." + first} {
			if _, mine, _, _, err := b.ClaimKey(ctx, user, key, claim(newID())); err != nil || !mine {
				t.Errorf("%s of %s: mine %v, %v", key, user, mine, err)
			}
		}
	})
	t.Run("it is dropped at its revision only", func(t *testing.T) {
		noError(t, b.DropKey(ctx, "ana", "k", rev-1))
		if _, mine, _, _, err := b.ClaimKey(ctx, "ana", "k", claim(newID())); err != nil || mine {
			t.Fatalf("dropped by another revision: mine %v, %v", mine, err)
		}
		for range 2 {
			noError(t, b.DropKey(ctx, "ana", "k", rev))
		}
		second := newID()
		_, mine, next, _, err := b.ClaimKey(ctx, "ana", "k", claim(second))
		if err != nil || !mine {
			t.Fatalf("after it was dropped: mine %v, %v", mine, err)
		}
		noError(t, b.DropKey(ctx, "ana", "k", rev)) // it is another's by now
		if there, _, again, _, err := b.ClaimKey(ctx, "ana", "k", claim(newID())); err != nil || there.ID != second || again != next {
			t.Errorf("got %+v at %d, %v", there, again, err)
		}
	})
	t.Run("it is renewed where it stands, and not dropped by who knew it before", func(t *testing.T) {
		id := newID()
		_, _, was, _, err := b.ClaimKey(ctx, "ana", "renewed", claim(id))
		noError(t, err)
		next, err := b.RenewKey(ctx, "ana", "renewed", claim(id), was)
		noError(t, err)
		if _, err := b.RenewKey(ctx, "ana", "renewed", claim(newID()), was); !errors.Is(err, faena.ErrStale) {
			t.Errorf("it is renewed once more: %v", err)
		}
		noError(t, b.DropKey(ctx, "ana", "renewed", was))
		if there, _, rev, _, err := b.ClaimKey(ctx, "ana", "renewed", claim(newID())); err != nil || there.ID != id || rev != next {
			t.Errorf("got %+v at %d, %v; want %s at %d", there, rev, err, id, next)
		}
		noError(t, b.DropKey(ctx, "ana", "renewed", next))
		if _, err := b.RenewKey(ctx, "ana", "renewed", claim(id), next); !errors.Is(err, faena.ErrStale) {
			t.Errorf("one that was dropped is renewed: %v", err)
		}
	})
	t.Run("all of a user are dropped", func(t *testing.T) {
		_, _, _, _, err := b.ClaimKey(ctx, "eve", "a", claim(first))
		noError(t, err)
		_, _, _, _, err = b.ClaimKey(ctx, "eve", "b", claim(first))
		noError(t, err)
		for range 2 {
			noError(t, b.DropKeys(ctx, "eve"))
		}
		for user, key := range map[string]string{"eve": "a", "bob": "k"} {
			if _, mine, _, _, err := b.ClaimKey(ctx, user, key, claim(newID())); err != nil || mine != (user == "eve") {
				t.Errorf("%s of %s: mine %v, %v", key, user, mine, err)
			}
		}
	})
	t.Run("one of another version is told", func(t *testing.T) {
		put(t, c, "$KV.idempotency.ana.new", "", map[string]any{"schema": otherSchema, "id": 7})
		if _, mine, _, _, err := b.ClaimKey(ctx, "ana", "new", claim(newID())); !errors.Is(err, faena.ErrSchema) || mine {
			t.Errorf("mine %v, %v", mine, err)
		}
	})
	t.Run("it runs out", func(t *testing.T) {
		js := c.JetStream(t)
		s, err := js.Stream(ctx, claimsStream)
		noError(t, err)
		if got := s.CachedInfo().Config.MaxAge; got != faena.IdempotencyTTL {
			t.Errorf("after %v, want %v", got, faena.IdempotencyTTL)
		}
		change(t, js, claimsStream, func(c *jetstream.StreamConfig) { c.MaxAge, c.Duplicates = time.Second, time.Second })
		faenatest.EventuallyNil(t, 20*time.Second, "the key is free", func() error {
			if _, mine, _, _, err := b.ClaimKey(ctx, "ana", "k", claim(newID())); err != nil || !mine {
				return fmt.Errorf("mine %v, %w", mine, err)
			}
			return nil
		})
	})
}

// TestBus_ClaimKey_Full: where there is no room nothing is claimed, and whoever has a key keeps it.
func TestBus_ClaimKey_Full(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	b := join(t, c, natsbus.Options{})
	declared(t, b)
	change(t, c.JetStream(t), claimsStream, func(c *jetstream.StreamConfig) { c.MaxBytes = 64 << 10 })
	var err error
	n := 0
	var held []uint64
	for ; err == nil && n < 1000; n++ {
		var rev uint64
		_, _, rev, _, err = b.ClaimKey(t.Context(), "ana", fmt.Sprint("k", n), claim(newID()))
		held = append(held, rev)
	}
	if !errors.Is(err, faena.ErrFull) || n < 50 {
		t.Fatalf("key %d: %v", n, err)
	}
	streams, err := b.Streams(t.Context(), nil)
	if i := slices.IndexFunc(streams, func(s faena.StreamHealth) bool { return s.Name == claimsStream }); err != nil || i < 0 || !strings.Contains(streams[i].Problem, "nearly full") {
		t.Errorf("the operator is told %+v, %v", streams, err)
	}
	if _, mine, rev, _, err := b.ClaimKey(t.Context(), "ana", "k0", claim(newID())); err != nil || mine || rev != held[0] {
		t.Errorf("who has one: mine %v, %v", mine, err)
	}
	noError(t, b.DropKey(t.Context(), "ana", "k0", held[0]))
	if _, mine, _, _, err := b.ClaimKey(t.Context(), "ana", "more", claim(newID())); err != nil || !mine {
		t.Errorf("after one was dropped: mine %v, %v", mine, err)
	}
}

// TestBus_ClaimKey_Cluster: of several APIs that claim a key at once one wins, also while a leader is killed: all say the same.
func TestBus_ClaimKey_Cluster(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 3, natstest.Options{MaxStore: 256 << 20})
	var apis []*natsbus.Bus
	for range 3 {
		apis = append(apis, join(t, c, natsbus.Options{Replicas: 3}))
	}
	declared(t, apis[0])
	for round := range 12 {
		if round == 4 {
			leader := c.Leader(t, claimsStream)
			c.Stop(leader)
			defer c.Start(t, leader)
		}
		key := fmt.Sprint("k", round)
		won := make([]string, len(apis))
		winners := 0
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i, api := range apis {
			wg.Go(func() {
				own := newID()
				for {
					there, mine, _, _, err := api.ClaimKey(t.Context(), "ana", key, claim(own))
					if errors.Is(err, faena.ErrRetry) || errors.Is(err, faena.ErrUnknown) {
						continue
					}
					mu.Lock()
					defer mu.Unlock()
					if won[i] = there.ID; mine {
						winners++
					}
					if err != nil || mine != (there.ID == own) {
						t.Errorf("mine %v, %+v, %v", mine, there, err)
					}
					return
				}
			})
		}
		wg.Wait()
		if winners != 1 || won[0] != won[1] || won[0] != won[2] {
			t.Errorf("of key %s there are %d winners: %q", key, winners, won)
		}
	}
}
