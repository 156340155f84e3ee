package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"faena.dev/faena/internal/faena"
)

func TestPlural(t *testing.T) {
	for n, want := range map[int]string{0: "0 workers", 1: "1 worker", 2: "2 workers"} {
		if got := plural(n, "worker"); got != want {
			t.Errorf("%d is %q", n, got)
		}
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := sleep(t.Context(), time.Minute); err != nil || time.Since(start) != time.Minute {
			t.Errorf("slept %v, %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sleep(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute+time.Second {
			t.Errorf("slept %v, %v", time.Since(start), err)
		}
		if err := sleep(t.Context(), -time.Second); err != nil {
			t.Error(err)
		}
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, last := newPause(), time.Now()
		for _, want := range []time.Duration{10, 20, 40, 80, 160, 320, 320, 320} {
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(last); got != want*time.Millisecond {
				t.Errorf("waited %v, want %d ms", got, want)
			}
			last = time.Now()
		}
	})
}

// source is what a cache reads from.
type source struct {
	mu    sync.Mutex
	value string
	err   error
	loads int
	gate  chan struct{} // a load waits for it, where it is there
}

func (s *source) load(ctx context.Context, user, name string) (string, error) {
	s.mu.Lock()
	s.loads++
	value, err, gate := s.value, s.err, s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return user + "/" + name + "=" + value, err
}

func (s *source) set(value string, err error) {
	s.mu.Lock()
	s.value, s.err = value, err
	s.mu.Unlock()
}

func TestCache(t *testing.T) {
	run := func(name string, test func(t *testing.T, s *source, c *cache[string])) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &source{value: "1"}
				test(t, s, newCache(s.load))
			})
		})
	}
	is := func(t *testing.T, c *cache[string], want string, loads int, s *source) {
		t.Helper()
		got, err := c.get(t.Context(), "ann", "f")
		if err != nil || got != want || s.loads != loads {
			t.Errorf("got %q after %d loads, %v; want %q after %d", got, s.loads, err, want, loads)
		}
	}
	wait := func(t *testing.T, d time.Duration) {
		t.Helper()
		if err := sleep(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	run("RemembersForACacheAge", func(t *testing.T, s *source, c *cache[string]) {
		is(t, c, "ann/f=1", 1, s)
		s.set("2", nil)
		wait(t, cacheAge-1)
		is(t, c, "ann/f=1", 1, s)
		wait(t, 1)
		is(t, c, "ann/f=2", 2, s)
	})
	run("ForgetsWhatItIsTold", func(t *testing.T, s *source, c *cache[string]) {
		is(t, c, "ann/f=1", 1, s)
		s.set("2", nil)
		c.forget("ann", "g")
		is(t, c, "ann/f=1", 1, s)
		c.forget("ann", "f")
		is(t, c, "ann/f=2", 2, s)
	})
	run("ServesWhatIsOldWhileTheStoreIsAway", func(t *testing.T, s *source, c *cache[string]) {
		is(t, c, "ann/f=1", 1, s)
		s.set("", faena.Unavailable(faena.ComponentStore, "store_unavailable", "Away.", nil))
		wait(t, 24*time.Hour)
		is(t, c, "ann/f=1", 2, s)
		if _, err := c.get(t.Context(), "ann", "g"); !faena.IsKind(err, faena.KindUnavailable) {
			t.Errorf("what it does not know gives %v", err)
		}
	})
	run("AsksAStoreThatIsAwayNowAndThen", func(t *testing.T, s *source, c *cache[string]) {
		is(t, c, "ann/f=1", 1, s)
		s.set("", faena.Unavailable(faena.ComponentStore, "store_unavailable", "Away.", nil))
		wait(t, cacheAge)
		is(t, c, "ann/f=1", 2, s)
		wait(t, awayPause-1)
		is(t, c, "ann/f=1", 2, s)
		wait(t, 1)
		s.gate = make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { is(t, c, "ann/f=1", 3, s) })
		synctest.Wait()
		is(t, c, "ann/f=1", 3, s) // it does not wait for the answer
		s.set("2", nil)
		close(s.gate)
		wg.Wait()
		s.gate = nil
		wait(t, awayPause)
		is(t, c, "ann/f=2", 4, s)
		s.set("3", nil)
		wait(t, cacheAge-1)
		is(t, c, "ann/f=2", 4, s) // the pause is over
	})
	run("LoadsOnceForAll", func(t *testing.T, s *source, c *cache[string]) {
		s.gate = make(chan struct{})
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.get(first, "ann", "f") })
		synctest.Wait()
		for range 10 {
			wg.Go(func() { is(t, c, "ann/f=1", 1, s) })
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		if _, err := c.get(gone, "ann", "f"); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller who has gone gets %v", err)
		}
		cancel() // the one that loads goes away, the others have it all the same
		synctest.Wait()
		close(s.gate)
		wg.Wait()
		is(t, c, "ann/f=1", 1, s)
	})
	run("LoadsAnewAfterAChange", func(t *testing.T, s *source, c *cache[string]) {
		gate := make(chan struct{})
		s.gate = gate
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.get(t.Context(), "ann", "f") })
		synctest.Wait()
		s.set("2", nil)
		s.gate = nil
		c.forget("ann", "f")
		is(t, c, "ann/f=2", 2, s) // it does not join what was begun before
		close(gate)
		wg.Wait()
		is(t, c, "ann/f=2", 2, s)
	})
	run("DoesNotServeWhatIsGone", func(t *testing.T, s *source, c *cache[string]) {
		is(t, c, "ann/f=1", 1, s)
		s.set("", faena.NotFound("function", "f"))
		wait(t, cacheAge)
		if got, err := c.get(t.Context(), "ann", "f"); !faena.IsKind(err, faena.KindNotFound) || got != "" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	run("NeverRemembersAbsence", func(t *testing.T, s *source, c *cache[string]) {
		s.set("", faena.NotFound("function", "f"))
		if _, err := c.get(t.Context(), "ann", "f"); !faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("got %v", err)
		}
		s.set("1", nil)
		is(t, c, "ann/f=1", 2, s)
	})
	run("DoesNotKeepWhatWasLoadedBeforeAChange", func(t *testing.T, s *source, c *cache[string]) {
		s.gate = make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { is(t, c, "ann/f=1", 1, s) }) // read before the change, so it may see the old
		synctest.Wait()
		s.set("2", nil)
		c.forget("ann", "f")
		close(s.gate)
		wg.Wait()
		is(t, c, "ann/f=2", 2, s)
	})
	run("IsBounded", func(t *testing.T, _ *source, c *cache[string]) {
		for i := range cacheSize + 10 {
			if _, err := c.get(t.Context(), "ann", strconv.Itoa(i)); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(c.entries); n > cacheSize {
			t.Errorf("it has %d entries", n)
		}
	})
}

func TestTally(t *testing.T) {
	tl := newTally()
	tl.touch("ann")
	tl.touch("ann")
	tl.touch("bob")
	if users := tl.take(); len(users) != 2 {
		t.Errorf("touched are %v", users)
	}
	if users := tl.take(); len(users) != 0 {
		t.Errorf("touched are still %v", users)
	}
}

func TestWaiters(t *testing.T) {
	run := func(name string, test func(t *testing.T, w *waiters)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test(t, newWaiters()) }) })
	}
	drained := func(w *waiters) bool {
		select {
		case <-w.drained:
			return true
		default:
			return false
		}
	}
	run("DeliverReachesTheOneThatWaits", func(t *testing.T, w *waiters) {
		a, b := w.add(&faena.Record{ID: "a"}), w.add(&faena.Record{ID: "b"})
		for range 3 { // a hint may come more than once
			w.deliver(&faena.Record{ID: "a"})
		}
		w.deliver(&faena.Record{ID: "nobody"})
		if r := <-a.done; r.ID != "a" || len(b.done) != 0 {
			t.Errorf("delivered was %v", r)
		}
		w.remove("a")
		w.deliver(&faena.Record{ID: "a"})
	})
	run("OfAnotherUserOrGroupReachesNobody", func(t *testing.T, w *waiters) {
		a := w.add(&faena.Record{ID: "a", User: "ann", Group: "default"})
		w.deliver(&faena.Record{ID: "a", User: "bob", Group: "default"})
		w.deliver(&faena.Record{ID: "a", User: "ann", Group: "gpu"})
		if len(a.done) != 0 {
			t.Error("it was delivered")
		}
	})
	run("LookAgainReachesAll", func(_ *testing.T, w *waiters) {
		a, b := w.add(&faena.Record{ID: "a"}), w.add(&faena.Record{ID: "b"})
		w.lookAgain()
		w.lookAgain()
		<-a.again
		<-b.again
	})
	run("DrainOfNothingReturnsAtOnce", func(t *testing.T, w *waiters) {
		start := time.Now()
		w.drain(t.Context(), time.Hour)
		if time.Since(start) != 0 || drained(w) {
			t.Errorf("it took %v", time.Since(start))
		}
	})
	run("DrainEndsWithTheLastCall", func(t *testing.T, w *waiters) {
		w.add(&faena.Record{ID: "a"})
		time.AfterFunc(time.Second, func() { w.remove("a") })
		start := time.Now()
		w.drain(t.Context(), time.Hour)
		if time.Since(start) != time.Second || drained(w) {
			t.Errorf("it took %v", time.Since(start))
		}
	})
	run("DrainMakesTheRestAnswer", func(t *testing.T, w *waiters) {
		w.add(&faena.Record{ID: "a"})
		go func() { <-w.drained; w.remove("a") }()
		start := time.Now()
		w.drain(t.Context(), 20*time.Second)
		if time.Since(start) != 20*time.Second {
			t.Errorf("it took %v", time.Since(start))
		}
		w.drain(t.Context(), 20*time.Second) // once more does no harm
	})
	run("DrainEndsWithItsContext", func(t *testing.T, w *waiters) {
		w.add(&faena.Record{ID: "a"}) // and never answers
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		w.drain(ctx, time.Hour)
		if time.Since(start) != time.Second || !drained(w) {
			t.Errorf("it took %v", time.Since(start))
		}
	})
}

func TestTransient(t *testing.T) {
	for err, want := range map[error]bool{faena.ErrRetry: true, faena.ErrUnknown: true, faena.ErrSlotTaken: false, faena.ErrFull: false, faena.ErrStale: false} {
		if got := transient(fmt.Errorf("publish: %w", err)); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// Workers that were drained take nothing until somebody ends that, one that is being stopped is back soon.
func TestGauge_HasWorker_Draining(t *testing.T) {
	for name, has := range map[string]bool{"": true, "It was drained: faena workers resume w": false} {
		synctest.Test(t, func(t *testing.T) {
			g := newGauge(nil, nil, nil)
			for began := time.Now(); time.Since(began) < 2*notReadyGrace; _ = sleep(t.Context(), gaugeEvery) {
				g.seenNow([]faena.Worker{{ID: "w", Group: "g", Places: 1, Draining: true, NotReady: name}})
				if got, why := g.hasWorker("g"); got != (has || time.Since(began) < notReadyGrace) || !strings.HasSuffix(why, name) {
					t.Fatalf("%q: after %v it has one is %v, because %q", name, time.Since(began), got, why)
				}
			}
		})
	}
}

// Workers that are there but take nothing are told at once, and count as none after a while.
func TestGauge_HasWorker(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, c := range map[string]struct {
		seen sighting
		age  time.Duration // of the instance
		has  bool
		why  string
	}{
		"ready":               {sighting{any: now, ready: now}, time.Hour, true, ""},
		"not ready now":       {sighting{any: now, ready: ago(notReadyGrace - time.Second), why: "No disk."}, time.Hour, true, "No disk."},
		"not ready for long":  {sighting{any: now, ready: ago(notReadyGrace), why: "No disk."}, time.Hour, false, "No disk."},
		"gone":                {sighting{any: ago(noWorkerGrace), ready: ago(noWorkerGrace), why: "No disk."}, time.Hour, false, "none in group g"},
		"never seen, just up": {sighting{}, time.Second, true, ""},
		"never seen":          {sighting{}, noWorkerGrace, false, "none in group g"},
	} {
		t.Run(name, func(t *testing.T) {
			g := &gauge{seen: map[string]sighting{"g": c.seen}, started: ago(c.age)}
			if has, why := g.hasWorker("g"); has != c.has || !strings.Contains(why, c.why) || c.why == "" && why != "" {
				t.Errorf("it has one is %v, because %q", has, why)
			}
		})
	}
}
