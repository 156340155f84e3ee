package sandbox

import (
	"bytes"
	"net"
	"reflect"
	"strings"
	"testing"
)

func TestStart_RoundTrip(t *testing.T) {
	for name, want := range map[string]Start{
		"least":    {Argv: []string{"a"}, Env: []string{}},
		"usual":    {Argv: []string{"/bin/sh", "-c", "exit 1"}, Env: []string{"A=1", "B="}, Dir: "/srv"},
		"odd":      {Argv: []string{"", "\x00\xff", "\n"}, Env: []string{"", "=", "\xc3\x28"}, Dir: "\xff"},
		"numerous": {Argv: strings.Split(strings.Repeat("x", 5000), ""), Env: strings.Split(strings.Repeat("y", 5000), "")},
	} {
		t.Run(name, func(t *testing.T) {
			for _, wantStdin := range []bool{true, false} {
				b, err := AppendStart([]byte("before"), &want, wantStdin)
				if err != nil {
					t.Fatal(err)
				}
				got, hasStdin, err := ParseStart(payload(t, b[len("before"):], FrameStart))
				if err != nil || hasStdin != wantStdin || !reflect.DeepEqual(got, want) {
					t.Errorf("got %+v, %v, %v; want %+v, %v", got, hasStdin, err, want, wantStdin)
				}
			}
		})
	}
}

func TestAppendStart_TooLarge(t *testing.T) {
	s := Start{Argv: []string{"a", strings.Repeat("x", MaxStart)}}
	if b, err := AppendStart(nil, &s, false); err == nil {
		t.Errorf("a frame of %d bytes was made", len(b))
	}
}

func TestExit_RoundTrip(t *testing.T) {
	for _, want := range []Exit{{}, {Code: 255, Leftover: 1 << 20, RunUS: 1 << 50}, {Signal: 64, Tampered: "a limit"}, {StartError: "ENOENT"}} {
		b := AppendExit([]byte("before"), &want)
		got, err := ParseExit(payload(t, b[len("before"):], FrameExit))
		if err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestParseExit_Refuses(t *testing.T) {
	whole := payload(t, AppendExit(nil, &Exit{Code: 1, StartError: "ENOENT", Tampered: "x"}), FrameExit)
	for n := range whole {
		if e, err := ParseExit(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes are %+v", n, len(whole), e)
		}
	}
	for name, p := range map[string][]byte{
		"more":              append(bytes.Clone(whole), 0),
		"code below":        exitPayload(-1, 0, 0, 0),
		"code above":        exitPayload(256, 0, 0, 0),
		"signal below":      exitPayload(0, -1, 0, 0),
		"signal above":      exitPayload(0, 65, 0, 0),
		"leftover below":    exitPayload(0, 0, -1, 0),
		"duration below":    exitPayload(0, 0, 0, -1),
		"length of 4 GB":    append(exitPayload(0, 0, 0, 0)[:32], 0xff, 0xff, 0xff, 0xff),
		"code of more bits": exitPayload(1<<32+1, 0, 0, 0),
	} {
		if e, err := ParseExit(p); err == nil {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestParseStart_Refuses(t *testing.T) {
	b, err := AppendStart(nil, &Start{Argv: []string{"a", "b"}, Env: []string{"C=d"}, Dir: "/"}, true)
	if err != nil {
		t.Fatal(err)
	}
	whole := payload(t, b, FrameStart)
	for n := range whole {
		if s, _, err := ParseStart(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes are %+v", n, len(whole), s)
		}
	}
	for name, p := range map[string][]byte{
		"more":             append(bytes.Clone(whole), 0),
		"no argv":          make([]byte, 1+3*4),
		"argv of 4 G":      {0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"argument of 4 GB": {0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
	} {
		if s, _, err := ParseStart(p); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// TestConn_HostileInit: whatever a container sends instead of the protocol ends the connection, and a run with it.
func TestConn_HostileInit(t *testing.T) {
	hello := frame(FrameHello, Version)
	for name, sent := range map[string][]byte{
		"nothing":              {},
		"another version":      frame(FrameHello, Version+1),
		"a long hello":         frame(FrameHello, Version, 0),
		"a huge hello":         AppendHeader(nil, FrameHello, 1<<30),
		"output before hello":  frame(FrameStdout, 'x'),
		"output before a run":  append(bytes.Clone(hello), frame(FrameStdout, 'x')...),
		"an end before a run":  append(bytes.Clone(hello), AppendExit(nil, &Exit{})...),
		"a type of the worker": append(bytes.Clone(hello), frame(FrameStart)...),
	} {
		t.Run(name, func(t *testing.T) {
			conn, init := pair(t)
			send(t, init, sent)
			if len(sent) == 0 {
				_ = init.Close()
			}
			<-conn.Dead()
			if _, err := conn.Run(t.Context(), Start{Argv: []string{"a"}}, nil, discard); err == nil {
				t.Error("a process ran")
			}
		})
	}
	for name, sent := range map[string][]byte{
		"a piece too large":  AppendHeader(nil, FrameStdout, MaxPiece+1),
		"a piece of 4 GB":    AppendHeader(nil, FrameStderr, 1<<32-1),
		"an unknown type":    frame('?'),
		"hello again":        frame(FrameHello, Version),
		"a damaged end":      frame(FrameExit, 1, 2, 3),
		"an end too large":   AppendHeader(nil, FrameExit, maxExit+1),
		"half a header":      {FrameStdout, 1},
		"half a piece":       append(AppendHeader(nil, FrameStdout, 10), "half"...),
		"an impossible code": append(AppendHeader(nil, FrameExit, 40), exitPayload(1000, 0, 0, 0)...),
	} {
		t.Run(name, func(t *testing.T) {
			conn, init := pair(t)
			send(t, init, hello)
			if err := conn.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() {
				_, err := conn.Run(t.Context(), Start{Argv: []string{"a"}}, nil, discard)
				ended <- err
			}()
			if _, err := init.Read(make([]byte, 100)); err != nil { // the start frame
				t.Fatal(err)
			}
			send(t, init, sent)
			_ = init.Close()
			if err := <-ended; err == nil {
				t.Error("the run ended well")
			}
			<-conn.Dead()
		})
	}
}

func FuzzParseExit(f *testing.F) {
	f.Add(AppendExit(nil, &Exit{Code: 3, StartError: "EACCES", Tampered: "t"})[HeaderBytes:])
	f.Fuzz(func(t *testing.T, p []byte) {
		e, err := ParseExit(p)
		if err != nil {
			return
		}
		if again := AppendExit(nil, &e)[HeaderBytes:]; !bytes.Equal(again, p) {
			t.Errorf("%x is %+v, which is %x", p, e, again)
		}
	})
}

func FuzzParseStart(f *testing.F) {
	b, err := AppendStart(nil, &Start{Argv: []string{"a", ""}, Env: []string{"B=c"}, Dir: "/d"}, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[HeaderBytes:])
	f.Fuzz(func(t *testing.T, p []byte) {
		s, hasStdin, err := ParseStart(p)
		if err != nil {
			return
		}
		b, err := AppendStart(nil, &s, hasStdin)
		if err != nil {
			t.Fatal(err)
		}
		if again := b[HeaderBytes:]; !bytes.Equal(again[1:], p[1:]) { // any flag but 1 is 0
			t.Errorf("%x is %+v, which is %x", p, s, again)
		}
	})
}

func payload(t *testing.T, b []byte, kind byte) []byte {
	t.Helper()
	k, n := ParseHeader(b)
	if k != kind || n != len(b)-HeaderBytes {
		t.Fatalf("the header says %q and %d bytes, there are %d", k, n, len(b)-HeaderBytes)
	}
	return b[HeaderBytes:]
}

func frame(kind byte, p ...byte) []byte { return append(AppendHeader(nil, kind, len(p)), p...) }

// exitPayload is the payload of an exit frame that AppendExit takes any numbers for.
func exitPayload(code, signal, leftover int, us int64) []byte {
	return AppendExit(nil, &Exit{Code: code, Signal: signal, Leftover: leftover, RunUS: us})[HeaderBytes:]
}

func discard(int, []byte) error { return nil }

func send(t *testing.T, c net.Conn, p []byte) {
	t.Helper()
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
}

// pair is a connection and the other end of it.
func pair(t *testing.T) (*Conn, net.Conn) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	init, err := net.Dial("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	conn := newConn(c)
	t.Cleanup(func() { _, _ = conn.Close(), init.Close() })
	return conn, init
}
