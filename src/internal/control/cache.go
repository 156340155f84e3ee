package control

import (
	"context"
	"errors"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// cacheAge bounds how long a change may go unnoticed when the message that announced it was lost.
	cacheAge = 30 * time.Second
	// cacheSize bounds the entries; beyond it the cache starts anew, which costs a read for each.
	cacheSize = 20_000
	// awayPause is how long a store that was away is not asked again for an entry that it had.
	awayPause = 5 * time.Second
)

// cache remembers documents by name, for cacheAge or until they are forgotten. While the store is away an entry is
// served however old it is: activations of known functions go on. Absence is never remembered. However many ask for one at
// once, it is loaded once. Safe for concurrent use.
type cache[T any] struct {
	load func(ctx context.Context, user, name string) (T, error)
	now  func() time.Time

	mu         sync.RWMutex
	entries    map[cacheKey]cacheEntry[T]
	loads      map[cacheKey]*load[T] // that are under way
	generation uint64                // raised by forget: what was loaded before is not kept
}

type cacheKey struct{ user, name string }

var errNotLoaded = errors.New("the document could not be loaded")

type cacheEntry[T any] struct {
	value  T
	loaded time.Time
	away   time.Time // when the store was away last, since then
}

// load is of one entry. Its value and error are there when done is closed.
type load[T any] struct {
	generation uint64
	done       chan struct{}
	value      T
	err        error
}

func newCache[T any](fn func(ctx context.Context, user, name string) (T, error)) *cache[T] {
	return &cache[T]{load: fn, now: time.Now, entries: make(map[cacheKey]cacheEntry[T]), loads: make(map[cacheKey]*load[T])}
}

func (c *cache[T]) get(ctx context.Context, user, name string) (T, error) {
	k := cacheKey{user, name}
	c.mu.RLock()
	e, ok := c.entries[k]
	c.mu.RUnlock()
	now := c.now()
	if ok && (now.Sub(e.loaded) < cacheAge || now.Sub(e.away) < awayPause) {
		return e.value, nil
	}
	l, own := c.join(k)
	switch {
	case own:
		c.fill(ctx, k, l)
	case ok && !e.away.IsZero(): // the store is away, and is being asked whether it still is
		return e.value, nil
	default:
		select {
		case <-l.done:
		case <-ctx.Done():
			var zero T
			return zero, ctx.Err()
		}
	}
	if ok && faena.IsKind(l.err, faena.KindUnavailable) {
		return e.value, nil
	}
	return l.value, l.err
}

// doubt makes every entry one that is loaded again before it is used; while the store is away it is served all the same.
func (c *cache[T]) doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	for k, e := range c.entries {
		e.loaded, e.away = time.Time{}, time.Time{}
		c.entries[k] = e
	}
}

// join returns the load of an entry that is under way, or one that the caller is to do. One that was begun before a change
// does not count.
func (c *cache[T]) join(k cacheKey) (l *load[T], own bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l = c.loads[k]; l != nil && l.generation == c.generation {
		return l, false
	}
	l = &load[T]{generation: c.generation, done: make(chan struct{})}
	c.loads[k] = l
	return l, true
}

// fill does a load. Whoever else waits for it must not lose it because this caller goes away.
func (c *cache[T]) fill(ctx context.Context, k cacheKey, l *load[T]) {
	l.err = errNotLoaded // until it is: the load may panic
	defer close(l.done)
	defer c.keep(k, l)
	l.value, l.err = c.load(context.WithoutCancel(ctx), k.user, k.name)
}

// keep remembers what a load has come to.
func (c *cache[T]) keep(k cacheKey, l *load[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loads[k] == l {
		delete(c.loads, k)
	}
	if c.generation != l.generation {
		return
	}
	if e, ok := c.entries[k]; ok && faena.IsKind(l.err, faena.KindUnavailable) {
		e.away = c.now()
		c.entries[k] = e
	}
	if l.err != nil {
		var zero T
		l.value = zero
		return
	}
	if len(c.entries) >= cacheSize {
		clear(c.entries)
	}
	c.entries[k] = cacheEntry[T]{value: l.value, loaded: c.now()}
}

// peek is what is remembered, however old it is.
func (c *cache[T]) peek(user, name string) (value T, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, ok := c.entries[cacheKey{user, name}]
	return e.value, ok
}

func (c *cache[T]) forget(user, name string) {
	c.mu.Lock()
	delete(c.entries, cacheKey{user, name})
	c.generation++
	c.mu.Unlock()
}
