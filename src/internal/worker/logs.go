package worker

import (
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// liveWindow and liveBytes bound what of a log is sent to followers: a function that floods its stderr does not
	// flood the network. Who follows reads the rest from logTail.
	liveWindow = time.Second
	liveBytes  = 1 << 20
)

// logTail keeps the last faena.MaxLogBytes of a log and knows how much came before. It is safe for concurrent use:
// the run writes it while followers ask for it.
type logTail struct {
	mu      sync.Mutex
	buf     []byte // at most twice the limit: it is moved down in large steps
	dropped int64  // bytes before buf[0]

	window time.Time // since when sent counts
	sent   int
}

// write appends p and returns its offset in the whole log, and whether it should be sent to followers.
func (l *logTail) write(p []byte, now time.Time) (offset int64, live bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	offset = l.dropped + int64(len(l.buf))
	if over := len(l.buf) + len(p) - 2*faena.MaxLogBytes; over > 0 {
		l.trim(max(len(l.buf)-faena.MaxLogBytes, over))
	}
	l.buf = append(l.buf, p...)
	if now.Sub(l.window) > liveWindow {
		l.window, l.sent = now, 0
	}
	l.sent += len(p)
	return offset, l.sent <= liveBytes
}

// trim drops the first n bytes.
func (l *logTail) trim(n int) {
	n = min(n, len(l.buf))
	l.dropped += int64(n)
	l.buf = l.buf[:copy(l.buf, l.buf[n:])]
}

// tail returns a copy of what is kept and the offset of its first byte.
func (l *logTail) tail() (offset int64, p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := max(0, len(l.buf)-faena.MaxLogBytes)
	return l.dropped + int64(from), append([]byte(nil), l.buf[from:]...)
}

// blob returns the log as the record holds it, its bytes inline.
func (l *logTail) blob() faena.Blob {
	offset, p := l.tail()
	return faena.Blob{Size: int64(len(p)), Inline: p, Truncated: offset > 0, Dropped: offset}
}
