package main

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/sandbox"
)

// Nothing is started by these targets: what a process leaves init kills with everything else that it may kill, and here that would be
// the machine.

// read is one frame.
type read struct {
	kind    byte
	payload []byte
}

// readPlainly reads frames of at most limit bytes from a stream; broken is whether a longer one ended it.
func readPlainly(stream []byte, limit int) (frames []read, broken bool) {
	for len(stream) >= sandbox.HeaderBytes {
		kind, n := sandbox.ParseHeader(stream)
		if n > limit {
			return frames, true
		}
		if len(stream) < sandbox.HeaderBytes+n {
			break
		}
		frames = append(frames, read{kind, stream[sandbox.HeaderBytes : sandbox.HeaderBytes+n]})
		stream = stream[sandbox.HeaderBytes+n:]
	}
	return frames, false
}

func frame(kind byte, p string) []byte {
	return append(sandbox.AppendHeader(nil, kind, len(p)), p...)
}

// seeds are streams from a worker, right and wrong ones.
func seeds(f *testing.F) (list [][]byte) {
	start, err := sandbox.AppendStart(nil, &sandbox.Start{Argv: []string{"/bin/true", "x"}, Env: []string{"A=b"}, Dir: "/"}, true)
	if err != nil {
		f.Fatal(err)
	}
	eof := frame(sandbox.FrameEOF, "")
	return [][]byte{nil, start, append(bytes.Clone(start), eof...), append(frame(sandbox.FrameStdin, "input"), eof...), eof, append(eof, eof...),
		frame(sandbox.FrameStdin, ""), frame(sandbox.FrameHello, "\x01"), frame('?', "?"), {'i', 1}, {'i', 9, 0, 0, 0, 'h'},
		sandbox.AppendHeader(nil, sandbox.FrameStdin, 1<<32-1), sandbox.AppendHeader(nil, sandbox.FrameStdin, sandbox.MaxPiece+1),
		append(frame(sandbox.FrameStdin, string(make([]byte, 9000))), frame(sandbox.FrameStdin, "y")...), append(frame(sandbox.FrameStdin, "a"), start...)}
}

// FuzzInit_Frames: in whatever pieces a worker's bytes come, init reads the frames that they are, and no payload changes once it was
// given out; one that is too long ends the reading, and so does half a frame.
func FuzzInit_Frames(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, uint16(3), uint16(1<<10))
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut, limit uint16) {
		i, worker := connected(t)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			at := min(int(cut), len(stream))
			_ = writeAll(worker, stream[:at]) // init may have gone
			_ = writeAll(worker, stream[at:])
			_ = unix.Shutdown(worker, unix.SHUT_WR)
		}()
		var got []read
		var err error
		for err == nil {
			var r read
			if r.kind, r.payload, err = i.frame(int(limit)); err == nil {
				got = append(got, r)
			}
		}
		_ = unix.Shutdown(i.sock, unix.SHUT_RD) // what is not read is refused, so that the writer ends
		<-sent
		want, broken := readPlainly(stream, int(limit))
		if broken == errors.Is(err, io.EOF) {
			t.Errorf("the reading ended with %v; a frame is too long: %v", err, broken)
		}
		same(t, got, want)
	})
}

// FuzzProcess_Feed: of what a worker sends while a process runs, its standard input gets the bytes of the input frames and nothing
// else; anything but input ends the connection.
func FuzzProcess_Feed(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, stream []byte, reads bool) {
		if len(stream) > 32<<10 {
			return // of what a pipe holds
		}
		i, _ := connected(t)
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		if !reads {
			closeAll(pipe[0])
		}
		i.in = stream
		p := process{i: i, stdin: pipe[1], wantInput: true}
		err := p.feed()
		var want []byte
		wrong, ended := false, false
		frames, broken := readPlainly(stream, sandbox.MaxPiece)
		for _, r := range frames {
			switch {
			case wrong || ended:
			case r.kind == sandbox.FrameStdin:
				want = append(want, r.payload...)
			case r.kind == sandbox.FrameEOF:
				ended = true
			default:
				wrong = true
			}
		}
		if bad := wrong || broken && !ended; bad != (err != nil) {
			t.Errorf("%x is fed with %v", stream, err)
		}
		if err == nil && ended == p.wantInput || ended && err == nil && p.stdin >= 0 {
			t.Errorf("%x: the end was sent: %v, input is wanted: %v, the pipe is %d", stream, ended, p.wantInput, p.stdin)
		}
		closeAll(p.stdin)
		if reads {
			got := make([]byte, 64<<10)
			n, _ := unix.Read(pipe[0], got)
			closeAll(pipe[0])
			if !bytes.Equal(got[:max(n, 0)], want) {
				t.Errorf("%x: the process reads %x, want %x", stream, got[:max(n, 0)], want)
			}
		}
	})
}

func same(t *testing.T, got, want []read) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames were read, want %d", len(got), len(want))
	}
	for n := range got {
		if got[n].kind != want[n].kind || !bytes.Equal(got[n].payload, want[n].payload) {
			t.Errorf("frame %d is %q %x, want %q %x", n, got[n].kind, got[n].payload, want[n].kind, want[n].payload)
		}
	}
}

// connected is an init whose worker is the descriptor.
func connected(t *testing.T) (i *initProcess, worker int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(fds[0], fds[1]) })
	return &initProcess{sock: fds[0], buf: make([]byte, 8<<10), home: "/"}, fds[1]
}
