package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/sandbox"
)

// stubProcess is a container's init that is only alive or dead.
type stubProcess struct {
	dead chan struct{}
	once sync.Once
}

func (s *stubProcess) Run(context.Context, sandbox.Start, []byte, func(int, []byte) error) (sandbox.Exit, error) {
	return sandbox.Exit{}, errors.New("not in this test")
}
func (s *stubProcess) Dead() <-chan struct{} { return s.dead }
func (s *stubProcess) Close() error          { s.once.Do(func() { close(s.dead) }); return nil }

type stubCgroup struct{}

func (stubCgroup) OOMKills() (uint64, error)     { return 0, nil }
func (stubCgroup) PeakMemory() (int64, error)    { return 0, nil }
func (stubCgroup) ResetPeak() error              { return nil }
func (stubCgroup) PIDsExceeded() (uint64, error) { return 0, nil }
func (stubCgroup) Close() error                  { return nil }

// bench is a pool whose launcher makes nothing, for tests of its bookkeeping.
type bench struct {
	t *testing.T
	*pool
	launches, removals atomic.Int64
	parallel, most     atomic.Int64
	fail               atomic.Pointer[error]
	gate               chan struct{} // when set, each launch waits for one
}

func newBench(t *testing.T, c Capacity) *bench {
	b := &bench{t: t}
	b.pool = newPool(c.withDefaults(), time.Hour, 2, b, slog.New(slog.DiscardHandler))
	b.open(context.WithoutCancel(t.Context()))
	t.Cleanup(func() {
		b.close()
		if n := b.launches.Load(); n != b.removals.Load() {
			t.Errorf("%d containers were made, %d removed", n, b.removals.Load())
		}
		if b.ledger.memory != 0 || b.ledger.cpu != 0 || b.ledger.containers != 0 || b.ledger.leaving != 0 || b.ledger.going != 0 {
			t.Errorf("the ledger is not balanced: %+v", b.ledger)
		}
		if len(b.shelves) > 0 && !allEmpty(b.shelves) {
			t.Errorf("shelves are left")
		}
	})
	return b
}

func allEmpty(shelves map[shelfKey]*shelf) bool {
	for _, s := range shelves {
		if !s.empty() {
			return false
		}
	}
	return true
}

func (b *bench) launch(ctx context.Context, rev *faena.Revision) (*container, error) {
	if n := b.parallel.Add(1); n > b.most.Load() {
		b.most.Store(n)
	}
	defer b.parallel.Add(-1)
	if b.gate != nil {
		select {
		case <-b.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if e := b.fail.Load(); e != nil {
		return nil, *e
	}
	b.launches.Add(1)
	c := &container{id: shortID(), conn: &stubProcess{dead: make(chan struct{})}, cgroup: stubCgroup{},
		made: time.Now(), removed: make(chan struct{})}
	c.dispose = func(context.Context) error { b.removals.Add(1); return nil }
	return c, nil
}

// get takes or waits, with a deadline.
func (b *bench) get(rev *faena.Revision) *container {
	b.t.Helper()
	if c := b.take(rev); c != nil {
		return c
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	c, err := b.wait(ctx, rev)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) eventually(what string, ok func(PoolStats) bool) {
	b.t.Helper()
	faenatest.Eventually(b.t, time.Minute, what, func() bool { return ok(b.stats()) })
}

func revision(user, function string, number int, change ...func(*faena.Spec)) *faena.Revision {
	spec := faena.Spec{Image: "registry.example.org/image:1"}.WithDefaults()
	for _, c := range change {
		c(&spec)
	}
	return &faena.Revision{User: user, Function: function, Number: number, Spec: spec, Pull: "registry.example.org/image@sha256:1",
		CreatedAt: time.Unix(int64(number), 0)}
}

func memory(mib int64) func(*faena.Spec) { return func(s *faena.Spec) { s.MemoryBytes = mib << 20 } }
func fresh(s *faena.Spec)                { s.Isolation = faena.IsolationFresh }
func warm(n int) func(*faena.Spec)       { return func(s *faena.Spec) { s.Warm = n } }

func TestPool_Reuse(t *testing.T) {
	b := newBench(t, Capacity{MemoryBytes: 1 << 30})
	rev := revision("ana", "f", 1)
	if b.take(rev) != nil {
		t.Fatal("an empty pool gave a container")
	}
	c := b.get(rev)
	b.release(c, false)
	if again := b.take(rev); again != c {
		t.Fatal("the warm container was not given again")
	}
	b.release(c, false)
	t.Run("never to another revision, function or user", func(t *testing.T) {
		madeAgain := revision("ana", "f", 1)
		madeAgain.CreatedAt = madeAgain.CreatedAt.Add(time.Second)
		for _, other := range []*faena.Revision{revision("ana", "f", 2), revision("ana", "g", 1), revision("bea", "f", 1), madeAgain} {
			if b.take(other) != nil {
				t.Errorf("given to %+v", keyOf(other))
			}
		}
	})
	t.Run("never after it was retired", func(t *testing.T) {
		c := b.get(rev)
		b.release(c, true)
		if b.take(rev) != nil {
			t.Error("a retired container was given again")
		}
		b.eventually("it is removed", func(s PoolStats) bool { return b.removals.Load() == 1 })
	})
	t.Run("never when its init is gone", func(t *testing.T) {
		c := b.get(rev)
		b.release(c, false)
		c.conn.Close()
		b.eventually("it is removed", func(s PoolStats) bool { return s.Idle == 0 && b.removals.Load() == 2 })
		c = b.get(rev)
		c.conn.Close()
		b.release(c, false)
		if b.take(rev) != nil {
			t.Error("a dead container was given")
		}
	})
}

func TestPool_Fresh(t *testing.T) {
	b := newBench(t, Capacity{MemoryBytes: 1 << 30})
	rev := revision("ana", "f", 1, fresh, warm(3))
	seen := map[*container]bool{}
	for range 10 {
		c := b.get(rev)
		if seen[c] {
			t.Fatal("a container was given twice")
		}
		seen[c] = true
		b.release(c, false)
	}
	b.eventually("the stock is full", func(s PoolStats) bool { return s.Idle == 3 && s.Starting == 0 })
	t.Run("one ahead without warm", func(t *testing.T) {
		rev := revision("bea", "f", 1, fresh)
		b.release(b.get(rev), false)
		faenatest.Eventually(t, time.Minute, "there is a spare one", func() bool {
			c := b.take(rev)
			if c != nil {
				b.release(c, false)
			}
			return c != nil
		})
	})
}

func TestPool_Warm(t *testing.T) {
	b := newBench(t, Capacity{MemoryBytes: 1 << 30})
	b.release(b.get(revision("ana", "f", 1, warm(2))), false)
	b.eventually("two are warm", func(s PoolStats) bool { return s.Idle == 2 })
	b.tidy(time.Now().Add(2 * time.Hour))
	b.eventually("two stay warm", func(s PoolStats) bool { return s.Idle == 2 && s.Starting == 0 })
	t.Run("only the revision used last", func(t *testing.T) {
		b.release(b.get(revision("ana", "f", 2, warm(2))), false)
		b.tidy(time.Now().Add(2 * time.Hour))
		b.eventually("the older ones are gone", func(s PoolStats) bool { return s.Idle == 2 && b.removals.Load() == 2 })
	})
}

func TestPool_IdleTTL(t *testing.T) {
	b := newBench(t, Capacity{MemoryBytes: 1 << 30})
	rev := revision("ana", "f", 1)
	b.release(b.get(rev), false)
	b.tidy(time.Now().Add(59 * time.Minute))
	if b.stats().Idle != 1 {
		t.Fatal("removed too early")
	}
	b.tidy(time.Now().Add(61 * time.Minute))
	b.eventually("it is gone", func(s PoolStats) bool { return s == PoolStats{} && b.removals.Load() == 1 })
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.shelves) != 0 || len(b.current) != 0 {
		t.Error("the function is not forgotten")
	}
}

func TestPool_Capacity(t *testing.T) {
	t.Run("the least recently used idle one makes room", func(t *testing.T) {
		b := newBench(t, Capacity{MemoryBytes: 300 << 20})
		older, newer := b.get(revision("ana", "a", 1, memory(100))), b.get(revision("ana", "b", 1, memory(100)))
		b.release(older, false)
		b.release(newer, false)
		b.release(b.get(revision("ana", "c", 1, memory(150))), false)
		<-older.removed
		if b.take(revision("ana", "b", 1, memory(100))) != newer {
			t.Error("the more recently used one is gone")
		}
		b.release(newer, false)
	})
	t.Run("who does not fit waits, and is not overtaken", func(t *testing.T) {
		b := newBench(t, Capacity{MemoryBytes: 300 << 20})
		small := b.get(revision("ana", "a", 1, memory(100)))
		type got struct {
			c   *container
			big bool
		}
		order := make(chan got, 2)
		var wg sync.WaitGroup
		wg.Go(func() { order <- got{b.get(revision("ana", "big", 1, memory(250))), true} })
		b.eventually("the large one waits", func(s PoolStats) bool { return s.Waiting == 1 })
		wg.Go(func() { order <- got{b.get(revision("ana", "b", 1, memory(100))), false} })
		b.eventually("both wait", func(s PoolStats) bool { return s.Waiting == 2 })
		b.release(small, false)
		first := <-order
		if !first.big {
			t.Error("the small one overtook the large one")
		}
		b.release(first.c, false)
		b.release((<-order).c, false)
		wg.Wait()
	})
	t.Run("a larger one than the worker fails at once", func(t *testing.T) {
		b := newBench(t, Capacity{MemoryBytes: 300 << 20})
		_, err := b.wait(t.Context(), revision("ana", "a", 1, memory(301)))
		if reasonOf(err) != faena.ReasonStartFailed || messageOf(err) == "" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("CPU is counted for busy ones", func(t *testing.T) {
		b := newBench(t, Capacity{MemoryBytes: 1 << 30, MilliCPUs: 2000})
		two := func(s *faena.Spec) { s.CPUs = 1.5 }
		a := b.get(revision("ana", "a", 1, two))
		rev := revision("ana", "b", 1)
		var c *container
		var wg sync.WaitGroup
		wg.Go(func() { c = b.get(rev) })
		b.eventually("it waits although its container is ready", func(s PoolStats) bool { return s.Waiting == 1 && s.Idle == 1 })
		b.release(a, false)
		wg.Wait()
		b.release(c, false)
	})
	t.Run("who gives up leaves nothing behind", func(t *testing.T) {
		b := newBench(t, Capacity{MemoryBytes: 300 << 20})
		c := b.get(revision("ana", "a", 1, memory(200)))
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := b.wait(ctx, revision("ana", "b", 1, memory(200))); !errors.Is(err, errCancelled) {
				t.Errorf("got %v", err)
			}
		})
		b.eventually("it waits", func(s PoolStats) bool { return s.Waiting == 1 })
		cancel(errCancelled)
		wg.Wait()
		b.release(c, false)
		if s := b.stats(); s.Waiting != 0 || s.Idle != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestPool_Starts(t *testing.T) {
	b := newBench(t, Capacity{MemoryBytes: 4 << 30, Places: 10})
	b.gate = make(chan struct{})
	rev := revision("ana", "f", 1)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { b.release(b.get(rev), false) })
	}
	b.eventually("all wait", func(s PoolStats) bool { return s.Waiting == 10 && s.Starting == 10 })
	close(b.gate)
	wg.Wait()
	if b.most.Load() > 2 {
		t.Errorf("%d were started at once, want at most 2", b.most.Load())
	}
}

func TestPool_LaunchFails(t *testing.T) {
	b := newBench(t, Capacity{MemoryBytes: 1 << 30})
	broken := errors.New("broken")
	b.fail.Store(&broken)
	rev := revision("ana", "f", 1, warm(2))
	if _, err := b.wait(t.Context(), rev); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if s := b.stats(); s != (PoolStats{}) {
		t.Errorf("got %+v", s)
	}
	b.fail.Store(nil)
	b.release(b.get(rev), false)
}

func TestPool_Storm(t *testing.T) {
	b := newBench(t, Capacity{MemoryBytes: 700 << 20, Places: 8})
	revs := []*faena.Revision{revision("ana", "a", 1), revision("ana", "b", 1, fresh), revision("bea", "a", 1, memory(300)),
		revision("bea", "b", 2, warm(2)), revision("cleo", "a", 1, fresh, warm(2)), revision("cleo", "b", 1, memory(600))}
	var holding sync.Map
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				rev := revs[(i+n*7)%len(revs)]
				c := b.get(rev)
				if _, taken := holding.LoadOrStore(c, true); taken {
					t.Error("a container was given to two")
				}
				if c.shelf.key != keyOf(rev) {
					t.Error("a container of another revision was given")
				}
				holding.Delete(c)
				b.release(c, n%17 == 0)
			}
		})
	}
	wg.Wait()
}
