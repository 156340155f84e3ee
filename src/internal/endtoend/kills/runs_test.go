package kills_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// runs is the ledger that the functions write: each process of one connects to it when it starts. It also tells them what to do.
// Safe for concurrent use.
type runs struct {
	port int

	mu      sync.Mutex
	of      map[string][]*run
	orders  map[string]*order
	serving sync.WaitGroup
}

// run is one process of a function.
type run struct {
	attempt      int
	began, ended time.Time // ended is zero while it runs
	failed       bool      // it was told to
}

// order is what the runs of one activation are told.
type order struct {
	held  chan struct{} // closed when they may end; nil: at once
	fails int           // as many runs end badly, the first ones
}

func listen(t testing.TB) *runs {
	t.Helper()
	l, err := net.Listen("tcp", ":0") // containers reach this host by an address that is not known before their network is there
	if err != nil {
		t.Fatal(err)
	}
	r := &runs{port: l.Addr().(*net.TCPAddr).Port, of: make(map[string][]*run), orders: make(map[string]*order)}
	t.Cleanup(func() {
		_ = l.Close()
		r.serving.Wait() // the containers are gone by now
	})
	r.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.serving.Go(func() { r.serve(t, c) })
		}
	})
	return r
}

// serve takes down one run, and tells it to end when it may.
func (r *runs) serve(t testing.TB, c net.Conn) {
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	var attempt int
	first, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if _, scanned := fmt.Sscan(first, &attempt); err != nil || scanned != nil {
		return // it was killed while it began
	}
	now := &run{attempt: attempt, began: time.Now()}
	r.mu.Lock()
	o := r.order(name)
	now.failed = len(r.of[name]) < o.fails
	r.of[name] = append(r.of[name], now)
	held := o.held
	r.mu.Unlock()

	gone := make(chan struct{})
	r.serving.Go(func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, in)
		r.mu.Lock()
		now.ended = time.Now()
		r.mu.Unlock()
	})
	if held != nil {
		select {
		case <-held:
		case <-gone:
			return
		case <-t.Context().Done():
			return
		}
	}
	told := "g"
	if now.failed {
		told = "x"
	}
	_, _ = io.WriteString(c, told) // it may have been killed
	<-gone
}

// order is what a name is told. The caller holds mu.
func (r *runs) order(name string) *order {
	if r.orders[name] == nil {
		r.orders[name] = &order{}
	}
	return r.orders[name]
}

// hold makes runs of a name wait until the returned function is called.
func (r *runs) hold(name string) (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := make(chan struct{})
	r.order(name).held = held
	return sync.OnceFunc(func() { close(held) })
}

// fail makes the first n runs of a name end badly.
func (r *runs) fail(name string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.order(name).fails = n
}

// list is all runs of a name, in the order in which they began.
func (r *runs) list(name string) (list []run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.of[name] {
		list = append(list, *x)
	}
	slices.SortFunc(list, func(a, b run) int { return a.began.Compare(b.began) })
	return list
}
