package control

import (
	"context"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// cacheAge bounds how long a change may go unnoticed when the message that announced it was lost.
	cacheAge = 30 * time.Second
	// cacheSize bounds the entries; beyond it the cache starts anew, which costs a read for each.
	cacheSize = 20_000
)

// cache remembers documents by name, for cacheAge or until they are forgotten. While the store is away an entry is
// served however old it is: activations of known functions go on. Absence is never remembered. Safe for concurrent use.
type cache[T any] struct {
	load func(ctx context.Context, user, name string) (T, error)
	now  func() time.Time

	mu         sync.RWMutex
	entries    map[cacheKey]cacheEntry[T]
	generation uint64 // raised by forget: what was loaded before is not kept
}

type cacheKey struct{ user, name string }

type cacheEntry[T any] struct {
	value  T
	loaded time.Time
}

func newCache[T any](load func(ctx context.Context, user, name string) (T, error)) *cache[T] {
	return &cache[T]{load: load, now: time.Now, entries: make(map[cacheKey]cacheEntry[T])}
}

func (c *cache[T]) get(ctx context.Context, user, name string) (T, error) {
	k := cacheKey{user, name}
	c.mu.RLock()
	e, ok := c.entries[k]
	generation := c.generation
	c.mu.RUnlock()
	if ok && c.now().Sub(e.loaded) < cacheAge {
		return e.value, nil
	}
	v, err := c.load(ctx, user, name)
	if err != nil {
		if ok && faena.IsKind(err, faena.KindUnavailable) {
			return e.value, nil
		}
		var zero T
		return zero, err
	}
	c.mu.Lock()
	if c.generation == generation {
		if len(c.entries) >= cacheSize {
			clear(c.entries)
		}
		c.entries[k] = cacheEntry[T]{v, c.now()}
	}
	c.mu.Unlock()
	return v, nil
}

func (c *cache[T]) forget(user, name string) {
	c.mu.Lock()
	delete(c.entries, cacheKey{user, name})
	c.generation++
	c.mu.Unlock()
}
