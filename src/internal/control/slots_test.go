package control

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"faena.dev/faena/internal/faena"
)

// stream is the server's side of slots: which hold a message. It may take its time to answer.
type stream struct {
	mu    sync.Mutex
	busy  map[int]struct{}
	asked int
	takes time.Duration
	err   error
}

func (s *stream) BusySlots(ctx context.Context, _, _ string) (map[int]struct{}, error) {
	s.mu.Lock()
	s.asked++
	busy := make(map[int]struct{}, len(s.busy))
	for slot := range s.busy {
		busy[slot] = struct{}{}
	}
	takes, err := s.takes, s.err
	s.mu.Unlock()
	if late := sleep(ctx, takes); late != nil {
		return nil, late
	}
	return busy, err
}

func (s *stream) put(slots ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, slot := range slots {
		s.busy[slot] = struct{}{}
	}
}

func (s *stream) remove(slots ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, slot := range slots {
		delete(s.busy, slot)
	}
}

func (s *stream) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// inBubble runs a test of one user's slots with a clock of its own.
func inBubble(t *testing.T, name string, test func(t *testing.T, s *stream, u *userSlots)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &stream{busy: make(map[int]struct{})}
			test(t, s, newSlots(s).of("default", "ann"))
		})
	})
}

// takes checks which slots a number of calls get, one after the other; -1 is none.
func takes(t *testing.T, u *userSlots, limit, below int, want ...int) {
	t.Helper()
	for i, w := range want {
		got, err := u.take(t.Context(), limit, below)
		if w < 0 {
			if !faena.IsKind(err, faena.KindLimit) {
				t.Errorf("call %d got slot %d, %v; want the limit", i, got, err)
			}
			continue
		}
		if err != nil || got != w {
			t.Errorf("call %d got slot %d, %v; want %d", i, got, err, w)
		}
	}
}

// publish is what becomes of a slot that was taken and published into.
func publish(s *stream, u *userSlots, slot int) {
	s.put(slot)
	u.occupied(slot)
}

func TestUserSlots_Take(t *testing.T) {
	inBubble(t, "GivesEachSlotOnce", func(t *testing.T, _ *stream, u *userSlots) {
		takes(t, u, 3, 3, 0, 1, 2, -1)
	})
	inBubble(t, "AsksBeforeTheFirst", func(t *testing.T, s *stream, u *userSlots) {
		s.put(0, 2) // by another API
		takes(t, u, 4, 4, 1, 3, -1)
	})
	inBubble(t, "AFreedSlotIsTakenWithoutAQuestion", func(t *testing.T, s *stream, u *userSlots) {
		takes(t, u, 1, 1, 0)
		asked := s.questions()
		for range 100 {
			publish(s, u, 0)
			s.remove(0)
			u.free(0)
			takes(t, u, 1, 1, 0)
		}
		if s.questions() != asked {
			t.Errorf("the stream was asked %d times", s.questions()-asked)
		}
	})
	inBubble(t, "WaitsForOneThatIsFreedWithoutAWord", func(t *testing.T, s *stream, u *userSlots) {
		takes(t, u, 1, 1, 0)
		publish(s, u, 0)
		start := time.Now()
		takes(t, u, 1, 1, -1)
		if waited := time.Since(start); waited > 2*slotMemory {
			t.Errorf("the limit was met after %v", waited)
		}
		time.AfterFunc(slotMemory/2, func() { s.remove(0) })
		takes(t, u, 1, 1, 0)
	})
	inBubble(t, "TheErrorNamesTheLimit", func(t *testing.T, s *stream, u *userSlots) {
		s.put(0)
		_, err := u.take(t.Context(), 1, 1)
		e, ok := errors.AsType[*faena.Error](err)
		if !ok || e.Reason != "limit_reached" || !e.Retryable || e.RetryAfter <= 0 || e.Component != faena.ComponentQueue {
			t.Fatalf("the error is %+v", err)
		}
		if want := "User ann has 1 active activation in group default, which is the limit. Try again when one has ended."; e.Message != want {
			t.Errorf("the message is %q", e.Message)
		}
	})
	inBubble(t, "AStreamThatDoesNotAnswerIsAnError", func(t *testing.T, s *stream, u *userSlots) {
		s.err = errors.New("away")
		if _, err := u.take(t.Context(), 1, 1); !errors.Is(err, s.err) {
			t.Errorf("the error is %v", err)
		}
		s.err = nil
		takes(t, u, 1, 1, 0)
	})
	inBubble(t, "ACallerThatGoesAwayDoesNotWait", func(t *testing.T, s *stream, u *userSlots) {
		s.put(0)
		takes(t, u, 1, 1, -1)
		ctx, cancel := context.WithTimeout(t.Context(), slotMemory/2)
		defer cancel()
		if _, err := u.take(ctx, 1, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestUserSlots_Take_LowerSlotsForAsynchronousCalls(t *testing.T) {
	inBubble(t, "TheRestIsForSynchronousOnes", func(t *testing.T, _ *stream, u *userSlots) {
		takes(t, u, 5, 4, 0, 1, 2, 3, -1)
		takes(t, u, 5, 5, 4, -1)
	})
	inBubble(t, "SynchronousOnesTakeTheLowerOnesToo", func(t *testing.T, _ *stream, u *userSlots) {
		takes(t, u, 5, 5, 0, 1, 2, 3)
		takes(t, u, 5, 4, -1)
		takes(t, u, 5, 5, 4)
	})
}

func TestUserSlots_Take_Overhang(t *testing.T) {
	inBubble(t, "ALoweredLimitCountsWhatIsAboveIt", func(t *testing.T, s *stream, u *userSlots) {
		takes(t, u, 4, 4, 0, 1, 2, 3)
		for slot := range 4 {
			publish(s, u, slot)
		}
		s.remove(0)
		u.free(0)
		takes(t, u, 2, 2, -1) // three are active, though slot 0 is free
		s.remove(1)
		u.free(1)
		takes(t, u, 2, 2, -1) // 2 and 3 are active
		s.remove(3)
		u.free(3)
		takes(t, u, 2, 2, 0, -1) // 2 is active
		s.remove(2)
		u.free(2)
		takes(t, u, 2, 2, 1, -1)
	})
	inBubble(t, "WithinOneMemoryOfTheAnswer", func(t *testing.T, s *stream, u *userSlots) {
		s.put(5, 6)
		takes(t, u, 3, 3, 0, -1)
	})
	inBubble(t, "ARaisedLimitHoldsAtOnce", func(t *testing.T, _ *stream, u *userSlots) {
		takes(t, u, 2, 2, 0, 1, -1)
		takes(t, u, 4, 4, 2, 3, -1)
	})
}

func TestUserSlots_Refresh(t *testing.T) {
	inBubble(t, "WhoAskedGoesAway", func(t *testing.T, s *stream, u *userSlots) {
		s.takes = slotMemory
		leader, resign := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := u.refresh(leader, slotMemory); !errors.Is(err, context.Canceled) {
				t.Errorf("who asked has the error %v", err)
			}
		})
		synctest.Wait()
		for range 3 {
			wg.Go(func() {
				if err := u.refresh(t.Context(), slotMemory); err != nil {
					t.Errorf("who waits with him has the error %v", err)
				}
			})
		}
		synctest.Wait()
		resign()
		wg.Wait()
		if n := s.questions(); n != 2 {
			t.Errorf("the stream was asked %d times", n)
		}
	})
	inBubble(t, "OneQuestionForAllWhoWait", func(t *testing.T, s *stream, u *userSlots) {
		s.put(0, 1)
		s.takes = 10 * time.Millisecond
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { takes(t, u, 2, 2, -1) })
		}
		wg.Wait()
		if asked := s.questions(); asked != 2 { // at first, and once more when that has grown old
			t.Errorf("the stream was asked %d times for 100 calls", asked)
		}
	})
	inBubble(t, "AnAnswerIsRemembered", func(t *testing.T, s *stream, u *userSlots) {
		s.put(0)
		takes(t, u, 1, 1, -1)
		asked := s.questions()
		if err := u.refresh(t.Context(), slotMemory); err != nil || s.questions() != asked {
			t.Errorf("the stream was asked %d times more, %v", s.questions()-asked, err)
		}
		if err := sleep(t.Context(), slotMemory); err != nil {
			t.Fatal(err)
		}
		if err := u.refresh(t.Context(), slotMemory); err != nil || s.questions() != asked+1 {
			t.Errorf("the stream was asked %d times more, %v", s.questions()-asked, err)
		}
	})
	inBubble(t, "AnOldAnswerDoesNotOverruleWhatHappenedSince", func(t *testing.T, s *stream, u *userSlots) {
		s.takes = 20 * time.Millisecond // the answer says that all are free
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := u.refresh(t.Context(), slotMemory); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		u.occupied(0)
		u.mu.Lock()
		slot, ok := u.reserve(3, 3)
		u.mu.Unlock()
		if slot != 1 || !ok {
			t.Fatalf("slot %d is reserved", slot)
		}
		wg.Wait()
		takes(t, u, 3, 3, 2)
	})
	inBubble(t, "AReservationIsNeverOverruled", func(t *testing.T, _ *stream, u *userSlots) {
		takes(t, u, 2, 2, 0)
		if err := sleep(t.Context(), 2*slotMemory); err != nil { // its publication takes long
			t.Fatal(err)
		}
		if err := u.refresh(t.Context(), slotMemory); err != nil {
			t.Fatal(err)
		}
		takes(t, u, 2, 2, 1, -1)
	})
}

// Whatever the belief is, nobody gets a slot twice without its having been freed.
func TestUserSlots_Parallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 7
		s := &stream{busy: make(map[int]struct{})}
		u := newSlots(s).of("default", "ann")
		var mu sync.Mutex
		held, most := make(map[int]bool), 0
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 20 {
					slot, err := u.take(t.Context(), limit, limit)
					if err != nil {
						continue
					}
					mu.Lock()
					if held[slot] {
						t.Errorf("slot %d is given twice", slot)
					}
					held[slot] = true
					most = max(most, len(held))
					mu.Unlock()
					publish(s, u, slot)
					if err := sleep(t.Context(), time.Millisecond); err != nil {
						t.Error(err)
					}
					mu.Lock()
					delete(held, slot)
					mu.Unlock()
					s.remove(slot)
					u.free(slot)
				}
			})
		}
		wg.Wait()
		if most != limit {
			t.Errorf("at most %d were held at once, the limit is %d", most, limit)
		}
	})
}

func TestSlots_Of(t *testing.T) {
	s := newSlots(&stream{})
	ann := s.of("a", "ann")
	if s.of("a", "ann") != ann || s.of("b", "ann") == ann || s.of("a", "bob") == ann {
		t.Error("slots are one user's in one group")
	}
	var owners []string
	for o := range s.users {
		owners = append(owners, o.group+"/"+o.user)
	}
	slices.Sort(owners)
	if want := []string{"a/ann", "a/bob", "b/ann"}; !slices.Equal(owners, want) {
		t.Errorf("the owners are %v", owners)
	}
}
