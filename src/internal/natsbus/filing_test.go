package natsbus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
)

// filer is an API's recorder of a test: it says what was put and recorded, and fails where it is told to.
type filer struct {
	mu       sync.Mutex
	puts     map[string]int // tries, by id
	put      []string       // ids that were taken, in order
	recorded []string
	fails    func(id string, try int) error
}

func (f *filer) file(_ context.Context, r *faena.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts[r.ID]++
	if err := f.fails(r.ID, f.puts[r.ID]); err != nil {
		return err
	}
	f.put = append(f.put, r.ID)
	return nil
}

func (f *filer) record(_ context.Context, rs []faena.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range rs {
		f.recorded = append(f.recorded, r.ID)
	}
	return nil
}

// has waits until what was put, and recorded, is as it should be.
func (f *filer) has(t *testing.T, within time.Duration, what string, is func(f *filer) bool) {
	t.Helper()
	faenatest.EventuallyNil(t, within, what, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !is(f) {
			return fmt.Errorf("put are %q in %v tries, recorded %q", f.put, f.puts, f.recorded)
		}
		return nil
	})
}

// files runs a recorder until the test ends, or stop is called.
func files(t *testing.T, b *natsbus.Bus, fails func(id string, try int) error) (f *filer, stop func()) {
	t.Helper()
	f = &filer{puts: make(map[string]int), fails: fails}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.Terminal(ctx, group, 16, time.Millisecond, f.record, f.file); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return f, stop
}

// putBack makes the record of an activation that a worker has put back for a later retry, and returns it with its revision.
func putBack(t *testing.T, b *natsbus.Bus) (*faena.Record, uint64) {
	t.Helper()
	r := record("ana", 0)
	now := time.Now().UTC()
	noError(t, r.Claim("w1", 1, now))
	noError(t, r.Requeue(faena.ReasonTimeout, "Too slow.", time.Minute, 0, &faena.Blob{Size: 1, Inline: []byte("p")}, now, now))
	rev, err := b.CreateRecord(t.Context(), r)
	noError(t, err)
	return r, rev
}

func ended(t *testing.T, b *natsbus.Bus) *faena.Record {
	t.Helper()
	r := record("ana", 0)
	noError(t, r.Fail(faena.ReasonCancelled, "", time.Now().UTC()))
	_, err := b.CreateRecord(t.Context(), r)
	noError(t, err)
	return r
}

var errAway = errors.New("the store is away")

// TestBus_Terminal_Files: what workers have put back is given to be filed; what fails is tried again soon, by this process.
func TestBus_Terminal_Files(t *testing.T) {
	t.Parallel()
	_, b := start(t, natsbus.Options{})
	f, _ := files(t, b, func(_ string, try int) error {
		if try < 3 {
			return errAway
		}
		return nil
	})
	live := record("ana", 0)
	_, err := b.CreateRecord(t.Context(), live)
	noError(t, err)
	waiting := record("ana", 0) // filed already, or by an API that admitted it
	waiting.Backlogged = true
	_, err = b.CreateRecord(t.Context(), waiting)
	noError(t, err)
	r, _ := putBack(t, b)
	f.has(t, 20*time.Second, "it is filed at the third try", func(f *filer) bool {
		return slices.Equal(f.put, []string{r.ID}) && f.puts[r.ID] == 3 && len(f.puts) == 1
	})
	last := ended(t, b)
	f.has(t, 20*time.Second, "what has ended is recorded", func(f *filer) bool { return slices.Equal(f.recorded, []string{last.ID}) })
	if got, _, err := b.Record(t.Context(), group, "ana", r.ID); err != nil || got.Parameter == nil {
		t.Errorf("the record is %+v, %v: filing changes nothing of it", got, err)
	}
}

// TestBus_Terminal_Files_Apart: what cannot be filed keeps nothing from being recorded, or filed.
func TestBus_Terminal_Files_Apart(t *testing.T) {
	t.Parallel()
	_, b := start(t, natsbus.Options{})
	var mu sync.Mutex
	bad := make(map[string]bool)
	f, _ := files(t, b, func(id string, _ int) error {
		mu.Lock()
		defer mu.Unlock()
		if bad[id] {
			return errAway
		}
		return nil
	})
	const n = 100 // more than are kept
	mu.Lock()
	var all []string
	for range n {
		r, _ := putBack(t, b)
		bad[r.ID] = true
		all = append(all, r.ID)
	}
	mu.Unlock()
	f.has(t, 20*time.Second, "they are tried", func(f *filer) bool { return len(f.puts) == n })
	good, _ := putBack(t, b)
	f.has(t, 20*time.Second, "another one is filed", func(f *filer) bool { return slices.Equal(f.put, []string{good.ID}) })
	last := ended(t, b)
	f.has(t, 20*time.Second, "what has ended is recorded", func(f *filer) bool { return slices.Equal(f.recorded, []string{last.ID}) })
	mu.Lock()
	clear(bad)
	mu.Unlock()
	f.has(t, 30*time.Second, "those that were kept are filed", func(f *filer) bool { return len(f.put) >= 50 })
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.put {
		if id != good.ID && !slices.Contains(all, id) {
			t.Errorf("%s is filed", id)
		}
	}
}

// TestBus_Terminal_Files_Superseded: what has changed meanwhile is not filed as it was.
func TestBus_Terminal_Files_Superseded(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*faena.Record) error{
		"cancelled": func(r *faena.Record) error { return r.Fail(faena.ReasonCancelled, "", time.Now().UTC()) },
		"released":  func(r *faena.Record) error { return r.Release(3, 0) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			_, b := start(t, natsbus.Options{})
			f, _ := files(t, b, func(string, int) error { return errAway })
			r, rev := putBack(t, b)
			f.has(t, 20*time.Second, "it is tried", func(f *filer) bool { return f.puts[r.ID] > 0 })
			noError(t, change(r))
			_, err := b.UpdateRecord(t.Context(), r, rev)
			noError(t, err)
			probe, _ := putBack(t, b)
			before := 0 // a try may have been on its way
			f.has(t, 20*time.Second, "another one is tried", func(f *filer) bool { before = f.puts[r.ID]; return f.puts[probe.ID] >= 1 })
			f.has(t, 20*time.Second, "it is tried twice more", func(f *filer) bool { return f.puts[probe.ID] >= 3 })
			f.has(t, time.Second, "the first is tried no more", func(f *filer) bool { return f.puts[r.ID] == before })
		})
	}
}

// TestBus_Terminal_Files_Stop: an API that stops hands back what it could not file: another one is given it at once.
func TestBus_Terminal_Files_Stop(t *testing.T) {
	t.Parallel()
	s, b := start(t, natsbus.Options{})
	first, stop := files(t, b, func(string, int) error { return errAway })
	r, _ := putBack(t, b)
	first.has(t, 20*time.Second, "it is tried", func(f *filer) bool { return f.puts[r.ID] > 0 })
	stop()
	second, _ := files(t, connect(t, s, natsbus.Options{}), func(string, int) error { return nil })
	second.has(t, 20*time.Second, "another one files it", func(f *filer) bool { return slices.Equal(f.put, []string{r.ID}) })
}
