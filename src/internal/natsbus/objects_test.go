package natsbus_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

// TestBus_Object_SlowServer: where one of the answers that an object comes in is late, the object is read all the same.
func TestBus_Object_SlowServer(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	b := join(t, c, natsbus.Options{})
	declared(t, b)
	want := bytes.Repeat([]byte("\x00\xff\r\n"), 1<<20)
	noError(t, b.PutObject(t.Context(), group, "out.1.1", want))
	link := newSlowLink(t, c.URLs()[0])
	reader, err := natsbus.Connect(t.Context(), natsbus.Options{Name: "reader", URLs: []string{link.url}})
	noError(t, err)
	t.Cleanup(reader.Close)
	link.left.Store(2 << 20)
	got, err := reader.Object(t.Context(), group, "out.1.1")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes of %d, %v", len(got), len(want), err)
	}
	if link.left.Load() > 0 {
		t.Error("no answer was late")
	}
}

// slowLink is a way to a server that stands still once, for longer than one request may take, after left bytes.
type slowLink struct {
	url  string
	left atomic.Int64
}

func newSlowLink(t *testing.T, to string) *slowLink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	s := &slowLink{url: "nats://" + l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(to, "nats://"))
			if err != nil {
				_ = client.Close()
				continue
			}
			wg.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
			wg.Go(func() { _, _ = io.Copy(writer{s, client}, server); _ = client.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() }) // the bus has closed its connection by then
	return s
}

type writer struct {
	link *slowLink
	to   io.Writer
}

func (w writer) Write(p []byte) (int, error) {
	n := int64(len(p))
	if left := w.link.left.Add(-n); left <= 0 && left+n > 0 {
		<-time.After(1500 * time.Millisecond)
	}
	return w.to.Write(p)
}
