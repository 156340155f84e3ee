package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// progress tells what is done and how long it takes: on a terminal in one line that is written again and again,
// otherwise a line at the end of each step, and now and then what a long one is at.
type progress struct {
	out   io.Writer
	every time.Duration
	live  bool
}

func newProgress(out io.Writer) *progress {
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return &progress{out: out, every: 200 * time.Millisecond, live: true}
		}
	}
	return &progress{out: out, every: 10 * time.Second}
}

// step runs do and reports it. say, which may be called from anywhere until do returns, tells what it is at.
func (p *progress) step(name string, do func(say func(string)) error) error {
	var mu sync.Mutex
	var at string
	say := func(s string) {
		mu.Lock()
		at = s
		mu.Unlock()
	}
	begin := time.Now()
	line := func(mark, end string) {
		mu.Lock()
		defer mu.Unlock()
		start := ""
		if p.live {
			start = "\r\x1b[K"
		}
		told := strings.TrimSpace(fmt.Sprintf("%s %s (%.1f s) %s", mark, name, time.Since(begin).Seconds(), oneLine(at, 60)))
		fmt.Fprint(p.out, start, told, end)
	}
	end := "\n"
	if p.live {
		end = ""
	}
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(p.every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				line("…", end)
			}
		}
	}()
	err := do(say)
	close(done)
	<-stopped
	if err != nil {
		line("✗", "\n")
		return fmt.Errorf("%s: %w", name, err)
	}
	line("✓", "\n")
	return nil
}

// oneLine is the first line of s, cut to at most n characters.
func oneLine(s string, n int) string {
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// lineWriter calls say with each line that is written to it, and keeps the end of what was written.
type lineWriter struct {
	say  func(string)
	tail []byte
}

const keepTail = 2 << 10

func (w *lineWriter) Write(b []byte) (int, error) {
	w.tail = append(w.tail, b...)
	if n := len(w.tail) - keepTail; n > 0 {
		w.tail = append(w.tail[:0], w.tail[n:]...)
	}
	if lines := strings.Split(strings.TrimSpace(string(w.tail)), "\n"); w.say != nil {
		w.say(lines[len(lines)-1])
	}
	return len(b), nil
}
