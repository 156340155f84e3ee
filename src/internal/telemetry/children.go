package telemetry

import "sync"

// other stands for every label value beyond a metric's bound.
const other = "other"

// children keeps the metrics that were made for their label values, so that finding one is a map lookup without an
// allocation. It keeps at most a given number: values beyond come out as one, which is built of rest.
type children[K comparable, M any] struct {
	most  int
	rest  K
	build func(K) M

	mu   sync.RWMutex
	made map[K]M
}

func newChildren[K comparable, M any](most int, rest K, build func(K) M) *children[K, M] {
	return &children[K, M]{most: most, rest: rest, build: build, made: map[K]M{}}
}

func (c *children[K, M]) get(key K) M {
	c.mu.RLock()
	m, ok := c.made[key]
	c.mu.RUnlock()
	if ok {
		return m
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.made) >= c.most {
		key = c.rest
	}
	m, ok = c.made[key]
	if !ok {
		m = c.build(key)
		c.made[key] = m
	}
	return m
}
