package natsbus_test

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

// hanging is an address of a NATS server which at some moment says nothing more, and keeps its connections, as a server that is frozen.
type hanging struct {
	url string

	mu      sync.Mutex
	conns   []net.Conn
	silent  bool
	serving sync.WaitGroup
}

func startHanging(t *testing.T, to string) *hanging {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hanging{url: "nats://" + l.Addr().String()}
	t.Cleanup(func() {
		_ = l.Close()
		h.mu.Lock()
		for _, c := range h.conns {
			_ = c.Close()
		}
		h.mu.Unlock()
		h.serving.Wait()
	})
	h.serving.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(to, "nats://"))
			if err != nil {
				_ = client.Close()
				return
			}
			h.mu.Lock()
			h.conns = append(h.conns, client, server)
			h.mu.Unlock()
			h.serving.Go(func() { h.carry(server, client) })
			h.serving.Go(func() { h.carry(client, server) })
		}
	})
	return h
}

// carry copies until an end is closed, and while there is no silence.
func (h *hanging) carry(to, from net.Conn) {
	for buffer := make([]byte, 32<<10); ; {
		n, err := from.Read(buffer)
		h.mu.Lock()
		silent := h.silent
		h.mu.Unlock()
		if err == nil && !silent {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			_, _ = to.Close(), from.Close()
			return
		}
	}
}

// hang begins the silence where there are connections, and reports whether there are.
func (h *hanging) hang() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = len(h.conns) > 0
	return h.silent
}

// A bus does not stay with a server that hangs: calls that need the queue fail as long as it does.
func TestBus_ServerHangs(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t, natstest.Options{})
	one, other := startHanging(t, nats.URLs()[0]), startHanging(t, nats.URLs()[0])
	b, err := natsbus.Connect(t.Context(), natsbus.Options{Name: "test", URLs: []string{one.url, other.url}, MaxStore: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	back := make(chan struct{}, 1)
	defer b.OnReconnect(func() { back <- struct{}{} })()
	if !one.hang() && !other.hang() {
		t.Fatal("the bus has no connection")
	}
	select {
	case <-back:
	case <-time.After(9 * time.Second):
		t.Fatal("after 9 s the bus is still with the server that hangs")
	}
	if err := b.Declare(t.Context()); err != nil {
		t.Errorf("after that it cannot declare: %v", err)
	}
}
