package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
)

// harness lets this program use the helpers of tests: it is what they know of a test. What fails a test ends the
// goroutine of try, as a test's.
type harness struct {
	testing.TB // for the methods that no helper here calls

	ctx context.Context

	mu       sync.Mutex
	cleanups []func()
	errs     []error
}

func (h *harness) Helper()                           {}
func (h *harness) Name() string                      { return "chaos" }
func (h *harness) Context() context.Context          { return h.ctx }
func (h *harness) Logf(string, ...any)               {}
func (h *harness) Log(...any)                        {}
func (h *harness) Error(args ...any)                 { h.note(errors.New(fmt.Sprint(args...))) }
func (h *harness) Errorf(format string, args ...any) { h.note(fmt.Errorf(format, args...)) }

// Fatal is Error, and the end of what is tried.
func (h *harness) Fatal(args ...any) {
	h.Error(args...)
	runtime.Goexit()
}

// Fatalf is Errorf, and the end of what is tried.
func (h *harness) Fatalf(format string, args ...any) {
	h.Errorf(format, args...)
	runtime.Goexit()
}

func (h *harness) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errs = append(h.errs, err)
}

func (h *harness) Cleanup(fn func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cleanups = append(h.cleanups, fn)
}

func (h *harness) TempDir() string {
	dir, err := os.MkdirTemp("", "fc")
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// try calls fn, and returns what it has failed with.
func (h *harness) try(fn func()) error {
	var tried sync.WaitGroup
	tried.Go(fn)
	tried.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	err := errors.Join(h.errs...)
	h.errs = nil
	return err
}

// end cleans up, the last first.
func (h *harness) end() error {
	var errs []error
	for {
		h.mu.Lock()
		n := len(h.cleanups)
		if n == 0 {
			h.mu.Unlock()
			return errors.Join(errs...)
		}
		fn := h.cleanups[n-1]
		h.cleanups = h.cleanups[:n-1]
		h.mu.Unlock()
		errs = append(errs, h.try(fn))
	}
}
