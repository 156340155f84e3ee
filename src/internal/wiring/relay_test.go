package wiring_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"faena.dev/faena/internal/faenatest"
)

// relay is a socket before the Docker Engine's own, so that the engine can be away without being stopped.
type relay struct {
	path, engine string
	listener     net.Listener
	mu           sync.Mutex
	gone         bool
	open         map[net.Conn]struct{}
	wg           sync.WaitGroup
}

func relayEngine(t *testing.T, path string) *relay {
	t.Helper()
	r := &relay{path: path, engine: strings.TrimPrefix(faenatest.Engine(t).Host, "unix://"), open: map[net.Conn]struct{}{}}
	r.back(t)
	t.Cleanup(r.away)
	return r
}

// back lets the engine be reached.
func (r *relay) back(t *testing.T) {
	t.Helper()
	var err error
	if r.listener, err = net.Listen("unix", r.path); err != nil {
		t.Fatal(err)
	}
	listener := r.listener
	r.mu.Lock()
	r.gone = false
	r.mu.Unlock()
	r.wg.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.serve(c) })
		}
	})
}

// away closes the socket and every connection through it.
func (r *relay) away() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.gone = true
	for c := range r.open {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *relay) serve(from net.Conn) {
	to, err := net.Dial("unix", r.engine)
	if err != nil {
		_ = from.Close()
		return
	}
	r.mu.Lock()
	if r.gone {
		_, _ = from.Close(), to.Close()
	}
	r.open[from], r.open[to] = struct{}{}, struct{}{}
	r.mu.Unlock()
	var pair sync.WaitGroup
	pair.Go(func() { _, _ = io.Copy(to, from); _ = to.Close(); _ = from.Close() })
	pair.Go(func() { _, _ = io.Copy(from, to); _ = to.Close(); _ = from.Close() })
	pair.Wait()
	r.mu.Lock()
	delete(r.open, from)
	delete(r.open, to)
	r.mu.Unlock()
}
