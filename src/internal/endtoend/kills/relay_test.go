package kills_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// relay is one API's way to NATS, on which the answers may be held up.
type relay struct {
	address string

	mu    sync.Mutex // held while answers are held up
	conns []net.Conn
	all   sync.Mutex // guards conns
	wg    sync.WaitGroup
}

func startRelay(t testing.TB, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: l.Addr().String()}
	t.Cleanup(func() {
		_ = l.Close()
		r.all.Lock()
		for _, c := range r.conns {
			_ = c.Close()
		}
		r.all.Unlock()
		r.wg.Wait()
	})
	r.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			r.all.Lock()
			r.conns = append(r.conns, client, server)
			r.all.Unlock()
			r.wg.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
			r.wg.Go(func() { _, _ = io.Copy(answers{r, client}, server); _ = client.Close() })
		}
	})
	return r
}

// answers writes to a client while nothing is held up.
type answers struct {
	r      *relay
	client net.Conn
}

func (a answers) Write(p []byte) (int, error) {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	return a.client.Write(p)
}

// hold holds answers up until the returned function is called.
func (r *relay) hold() (release func()) {
	r.mu.Lock()
	return r.mu.Unlock
}
