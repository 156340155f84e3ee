package control

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// verdict is what becomes of something that an API sends.
type verdict int

const (
	pass      verdict = iota
	cutBefore         // it does not reach the server, and nothing after it does
	cutAfter          // it is the last that does
)

// wire stands between an API and the server, and can be cut at any of the API's requests: what a kill of its process is to
// everybody else. It stays cut.
type wire struct {
	t      *testing.T
	server string
	l      net.Listener

	mu    sync.Mutex
	down  bool
	conns []net.Conn // of the API
	watch func(subject string) verdict
	wg    sync.WaitGroup
}

func (n *natsServer) newWire(t *testing.T) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	w := &wire{t: t, server: strings.TrimPrefix(n.URLs()[0], "nats://"), l: l}
	w.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.wg.Go(func() { w.serve(c) })
		}
	})
	t.Cleanup(func() { w.cut(); w.wg.Wait() })
	return w
}

func (w *wire) url() string { return "nats://" + w.l.Addr().String() }

// on makes fn judge each message from now on; it is called with one after the other.
func (w *wire) on(fn func(subject string) verdict) {
	w.mu.Lock()
	w.watch = fn
	w.mu.Unlock()
}

// cut cuts it now.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutLocked()
}

func (w *wire) cutLocked() {
	w.down = true
	_ = w.l.Close()
	for _, c := range w.conns {
		_ = c.Close()
	}
}

func (w *wire) isCut() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down
}

// serve carries one connection. What the server says to an API that is cut off is read to its end: what was sent before
// would be lost with a connection that is reset.
func (w *wire) serve(api net.Conn) {
	defer api.Close()
	server, err := net.Dial("tcp", w.server)
	if err != nil {
		return // it is stopped
	}
	defer server.Close()
	w.mu.Lock()
	if w.down {
		w.mu.Unlock()
		return
	}
	w.conns = append(w.conns, api)
	w.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(api, server)
		_, _ = io.Copy(io.Discard, server)
		_ = api.Close()
	})
	w.forward(server, bufio.NewReaderSize(api, 64<<10))
	_ = server.(*net.TCPConn).CloseWrite()
	back.Wait()
}

// forward hands on what the API sends, protocol message by protocol message, until it is cut.
func (w *wire) forward(server io.Writer, api *bufio.Reader) {
	for {
		line, err := api.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Fields(line)
		subject, message := "", []byte(line)
		if len(words) > 2 && (words[0] == "PUB" || words[0] == "HPUB") {
			subject = words[1]
			size, err := strconv.Atoi(words[len(words)-1])
			if err != nil {
				w.t.Errorf("the client says %q", line)
				return
			}
			body := make([]byte, size+2)
			if _, err := io.ReadFull(api, body); err != nil {
				return
			}
			message = append(message, body...)
		}
		if !w.send(server, subject, message) {
			return
		}
	}
}

// send hands one message on, as it is judged; false: the wire is cut.
func (w *wire) send(server io.Writer, subject string, message []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return false
	}
	v := pass
	if w.watch != nil && subject != "" {
		v = w.watch(subject)
	}
	if v != cutBefore {
		if _, err := server.Write(message); err != nil {
			return false
		}
	}
	if v != pass {
		w.cutLocked()
	}
	return v == pass
}
