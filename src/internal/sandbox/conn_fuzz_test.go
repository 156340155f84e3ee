package sandbox

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// told is what a stream of frames from init means, read in the plainest way; Conn is held against it.
type told struct {
	hello  bool      // it begins as it must
	out    [3][]byte // what a run is given, by stream
	exit   *Exit     // how the run ended
	broken bool      // there is something in it that breaks the protocol, before the run's end
}

func readPlainly(stream []byte) (m told) {
	for len(stream) >= HeaderBytes {
		kind, n := ParseHeader(stream)
		limit := MaxPiece
		if kind == FrameHello || kind == FrameExit {
			limit = maxExit
		}
		if m.broken = n > limit; m.broken || len(stream) < HeaderBytes+n {
			return m
		}
		p := stream[HeaderBytes : HeaderBytes+n]
		stream = stream[HeaderBytes+n:]
		switch {
		case !m.hello:
			m.hello = kind == FrameHello && bytes.Equal(p, []byte{Version})
			m.broken = !m.hello
		case kind == FrameStdout:
			m.out[1] = append(m.out[1], p...)
		case kind == FrameStderr:
			m.out[2] = append(m.out[2], p...)
		case kind == FrameExit:
			e, err := ParseExit(p)
			if m.broken = err != nil; !m.broken {
				m.exit = &e
				return m
			}
		default:
			m.broken = true
		}
		if m.broken {
			return m
		}
	}
	return m
}

// FuzzConn_HostileInit: whatever a container sends, in whatever pieces, and whether it then goes away or says nothing more: the
// worker's run ends, it has been given what the frames say and no byte more, and what breaks the protocol ends the connection.
func FuzzConn_HostileInit(f *testing.F) {
	hello, end := frame(FrameHello, Version), AppendExit(nil, &Exit{Code: 3, Leftover: 1, RunUS: 5})
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, s := range [][]byte{nil, hello, join(hello, end), join(hello, frame(FrameStdout, 'a', 'b'), frame(FrameStderr, 'c'), frame(FrameStdout, 'd'), end),
		join(hello, end, end), join(hello, frame(FrameStdout), frame(FrameStderr), end), join(end, hello), join(hello, hello), frame(FrameHello, Version+1),
		join(hello, frame(FrameStart, 0)), join(hello, frame(FrameStdin, 'x')), join(hello, frame(FrameEOF)), join(hello, frame(FrameExit, 1, 2)),
		join(hello, AppendHeader(nil, FrameStdout, MaxPiece+1)), join(hello, AppendHeader(nil, FrameStdout, 1<<32-1)), join(hello, AppendHeader(nil, FrameExit, maxExit+1)),
		join(hello, AppendHeader(nil, FrameStdout, 300), bytes.Repeat([]byte{'x'}, 300), end), join(hello, AppendHeader(nil, FrameStdout, 9), []byte("half")),
		join(hello, []byte{FrameStdout, 1, 0}), join(hello, AppendExit(nil, &Exit{StartError: "ENOENT"})), join(hello, AppendExit(nil, &Exit{Signal: 9, Tampered: "a limit"}))} {
		f.Add(s, uint16(0), true, false)
		f.Add(s, uint16(7), false, true)
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16, goes, input bool) {
		conn, init := sockets(t)
		want := readPlainly(stream)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		silent := !goes && !want.broken && want.exit == nil // for ever
		if !want.hello {
			go say(init, stream, int(cut), goes)
			if silent {
				cancel()
			}
			if err := conn.Ready(ctx); err == nil {
				t.Errorf("init is taken for ready after %x", clip(stream))
			}
			if !silent {
				<-conn.Dead()
			}
			return
		}
		say(init, stream[:HeaderBytes+1], 0, false)
		if err := conn.Ready(ctx); err != nil {
			t.Fatalf("init has greeted, and is not ready: %v", err)
		}
		go func() { // as soon as the run has begun
			if _, err := io.ReadFull(init, make([]byte, HeaderBytes)); err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, init) }() // ends with the connection
			say(init, stream[HeaderBytes+1:], int(cut), goes)
			if silent {
				cancel()
			}
		}()
		var stdin []byte
		if input {
			stdin = make([]byte, MaxPiece+1)
		}
		var got [3][]byte
		exit, err := conn.Run(ctx, Start{Argv: []string{"a"}}, stdin, func(stream int, p []byte) error {
			got[stream] = append(got[stream], p...)
			return nil
		})
		if want.exit != nil && (err != nil || exit != *want.exit) || want.exit == nil && err == nil {
			t.Errorf("%x ended with %+v, %v, want %+v", clip(stream), exit, err, want.exit)
		}
		for n := 1; n <= 2; n++ {
			if !bytes.HasPrefix(want.out[n], got[n]) || !silent && len(got[n]) != len(want.out[n]) {
				t.Errorf("of %x stream %d has %x, want %x", clip(stream), n, clip(got[n]), clip(want.out[n]))
			}
		}
		if err != nil {
			<-conn.Dead()
		}
	})
}

// say writes bytes in two pieces, and then closes the connection where init goes. The worker may have gone first.
func say(init net.Conn, p []byte, cut int, goes bool) {
	cut = min(cut, len(p))
	_, _ = init.Write(p[:cut])
	_, _ = init.Write(p[cut:])
	if goes {
		_ = init.Close()
	}
}

func clip(p []byte) []byte { return p[:min(len(p), 64)] }

// sockets is pair without a file, for many times a second.
func sockets(t *testing.T) (*Conn, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(file)
		_ = file.Close() // the connection has a descriptor of its own
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	conn := newConn(ends[0])
	t.Cleanup(func() { _, _ = conn.Close(), ends[1].Close() })
	return conn, ends[1]
}
