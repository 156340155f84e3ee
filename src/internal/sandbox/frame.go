package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Version is the protocol's. The worker and the init that it mounts are of one package; another version is refused.
const Version = 1

// Types of frames.
const (
	FrameHello  = 'h' // init is ready; the payload is Version, one byte
	FrameStart  = 's' // a process to run; see Start
	FrameStdin  = 'i' // a piece of its standard input
	FrameEOF    = 'e' // the end of its standard input; always sent where the start frame says that there is one
	FrameStdout = 'o'
	FrameStderr = 'r'
	FrameExit   = 'x' // how it ended; see Exit
)

const (
	// HeaderBytes is the size of a frame before its payload.
	HeaderBytes = 5
	// MaxPiece bounds a piece of input or output.
	MaxPiece = 64 << 10
	// MaxStart bounds a start frame: argv and environment that Linux could not take anyway are refused before.
	MaxStart = 8 << 20
	maxExit  = 4 << 10
)

// SocketName is the socket's name in its directory.
const SocketName = "s"

var errFrame = errors.New("a frame is damaged")

// Start is a process to run.
type Start struct {
	Argv []string // not empty; a name without a slash is looked up in the PATH of Env
	Env  []string // NAME=value; HOME is added where it is missing
	Dir  string   // working directory; "" is /
}

// Exit is how a process ended.
type Exit struct {
	Code       int    // exit code; 0 where Signal is set
	Signal     int    // that killed it, or 0
	StartError string // why it could not be executed, an errno's name such as ENOENT; nothing ran then
	Leftover   int    // processes that were left when it ended, and were killed
	RunUS      int64  // from its start to its end, in microseconds
	Tampered   string // what it changed of init, such as a limit: the container must not be used again
}

// AppendHeader appends the header of a frame with a payload of n bytes.
func AppendHeader(b []byte, kind byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, kind), uint32(n))
}

// ParseHeader reads a header. The length is not checked: what is allowed depends on the type.
func ParseHeader(b []byte) (kind byte, n int) {
	return b[0], int(binary.LittleEndian.Uint32(b[1:HeaderBytes]))
}

// AppendStart appends a whole start frame.
func AppendStart(b []byte, s *Start, hasStdin bool) ([]byte, error) {
	at := len(b)
	b = AppendHeader(b, FrameStart, 0)
	flag := byte(0)
	if hasStdin {
		flag = 1
	}
	b = append(b, flag)
	b = appendStrings(b, s.Argv)
	b = appendStrings(b, s.Env)
	b = appendString(b, s.Dir)
	n := len(b) - at - HeaderBytes
	if n > MaxStart {
		return nil, fmt.Errorf("arguments and environment are %d bytes, at most %d can be sent", n, MaxStart)
	}
	binary.LittleEndian.PutUint32(b[at+1:], uint32(n))
	return b, nil
}

// ParseStart reads the payload of a start frame.
func ParseStart(p []byte) (s Start, hasStdin bool, err error) {
	d := decoder{p: p}
	hasStdin = d.byte() == 1
	s.Argv, s.Env, s.Dir = d.strings(), d.strings(), d.string()
	if d.bad || len(d.p) > 0 || len(s.Argv) == 0 {
		return Start{}, false, errFrame
	}
	return s, hasStdin, nil
}

// AppendExit appends a whole exit frame.
func AppendExit(b []byte, e *Exit) []byte {
	at := len(b)
	b = AppendHeader(b, FrameExit, 0)
	for _, n := range []int64{int64(e.Code), int64(e.Signal), int64(e.Leftover), e.RunUS} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	b = appendString(b, e.StartError)
	b = appendString(b, e.Tampered)
	binary.LittleEndian.PutUint32(b[at+1:], uint32(len(b)-at-HeaderBytes))
	return b
}

// ParseExit reads the payload of an exit frame. Numbers that no process can end with are refused.
func ParseExit(p []byte) (Exit, error) {
	d := decoder{p: p}
	code, signal, left, run := d.number(), d.number(), d.number(), d.number()
	e := Exit{Code: int(code), Signal: int(signal), Leftover: int(left), RunUS: run, StartError: d.string(), Tampered: d.string()}
	if d.bad || len(d.p) > 0 || code < 0 || code > 255 || signal < 0 || signal > 64 || left < 0 || run < 0 {
		return Exit{}, errFrame
	}
	return e, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// decoder reads a payload. After the first thing that does not fit, bad is set and everything is empty.
type decoder struct {
	p   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.p) {
		d.bad = true
		return nil
	}
	p := d.p[:n]
	d.p = d.p[n:]
	return p
}

func (d *decoder) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) number() int64 {
	if p := d.take(8); p != nil {
		return int64(binary.LittleEndian.Uint64(p))
	}
	return 0
}

func (d *decoder) length() int {
	if p := d.take(4); p != nil {
		return int(binary.LittleEndian.Uint32(p))
	}
	return 0
}

func (d *decoder) string() string { return string(d.take(d.length())) }

func (d *decoder) strings() []string {
	n := d.length()
	if n > len(d.p)/4 { // each has at least its length
		d.bad = true
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		list = append(list, d.string())
	}
	return list
}
