package worker

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

func TestLogTail_Write(t *testing.T) {
	t.Run("short", func(t *testing.T) {
		var l logTail
		if offset, live := l.write([]byte("one\n"), time.Now()); offset != 0 || !live {
			t.Errorf("got offset %d, live %v", offset, live)
		}
		if offset, _ := l.write([]byte("two"), time.Now()); offset != 4 {
			t.Errorf("got offset %d, want 4", offset)
		}
		b := l.blob()
		if string(b.Inline) != "one\ntwo" || b.Truncated || b.Dropped != 0 || b.Size != 7 {
			t.Errorf("got %+v", b)
		}
	})
	t.Run("the tail of any sequence of writes", func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		var l logTail
		var all []byte
		for len(all) < 5*faena.MaxLogBytes {
			p := make([]byte, rng.IntN(300<<10))
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			offset, _ := l.write(p, time.Now())
			if offset != int64(len(all)) {
				t.Fatalf("got offset %d, want %d", offset, len(all))
			}
			all = append(all, p...)
			want := all[max(0, len(all)-faena.MaxLogBytes):]
			b := l.blob()
			if !bytes.Equal(b.Inline, want) || b.Dropped != int64(len(all)-len(want)) || b.Truncated != (b.Dropped > 0) {
				t.Fatalf("after %d bytes: size %d, dropped %d", len(all), b.Size, b.Dropped)
			}
			if cap(l.buf) > 6*faena.MaxLogBytes {
				t.Fatalf("holds %d bytes", cap(l.buf))
			}
		}
	})
	t.Run("one write larger than all that is kept", func(t *testing.T) {
		var l logTail
		l.write([]byte("before"), time.Now())
		p := bytes.Repeat([]byte("0123456789"), faena.MaxLogBytes/2)
		l.write(p, time.Now())
		b := l.blob()
		if !bytes.Equal(b.Inline, p[len(p)-faena.MaxLogBytes:]) || b.Dropped != int64(6+len(p)-faena.MaxLogBytes) {
			t.Errorf("size %d, dropped %d", b.Size, b.Dropped)
		}
	})
	t.Run("a flood is not sent on", func(t *testing.T) {
		var l logTail
		now := time.Now()
		sent := 0
		for range 10 * liveBytes / 4096 {
			if _, live := l.write(make([]byte, 4096), now); live {
				sent += 4096
			}
		}
		if sent != liveBytes {
			t.Errorf("%d bytes were sent in one window, want %d", sent, liveBytes)
		}
		if _, live := l.write([]byte("x"), now.Add(2*liveWindow)); !live {
			t.Error("the next window is closed as well")
		}
	})
}
