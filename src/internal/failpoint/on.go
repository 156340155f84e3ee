//go:build failpoints

package failpoint

import (
	"bufio"
	"fmt"
	"log"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/clock"
)

const variable = "FAENA_FAILPOINTS"

// armed is what is to happen, by name.
var armed struct {
	mu     sync.Mutex
	points map[string]point
	any    atomic.Bool // so that what is not armed costs next to nothing
}

type point struct {
	act  func()
	left int // hits until it acts
}

// The variable is gone before the settings are read, where one that nobody knows stops the program.
func init() {
	value, set := os.LookupEnv(variable)
	if !set {
		return
	}
	if err := os.Unsetenv(variable); err != nil {
		log.Panicf("%s: %v", variable, err)
	}
	socket, points, _ := strings.Cut(value, ",")
	for p := range strings.SplitSeq(points, ",") {
		if err := arm(p); p != "" && err != nil {
			log.Panicf("%s: %v", variable, err)
		}
	}
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) { // of one that was killed
		log.Panicf("%s: %v", variable, err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		log.Panicf("%s: %v", variable, err)
	}
	go serve(l) // for as long as the process lives
}

// Hit does what is armed for name, where anything is.
func Hit(name string) {
	if !armed.any.Load() {
		return
	}
	armed.mu.Lock()
	p, ok := armed.points[name]
	if p.left--; ok && p.left > 0 {
		armed.points[name] = p
	} else {
		delete(armed.points, name)
		armed.any.Store(len(armed.points) > 0)
	}
	armed.mu.Unlock()
	if ok && p.left <= 0 {
		p.act()
	}
}

// arm reads NAME=ACTION[@N].
func arm(text string) error {
	name, action, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is not NAME=ACTION[@N]", text)
	}
	p := point{left: 1}
	action, nth, counted := strings.Cut(action, "@")
	if counted {
		n, err := strconv.Atoi(nth)
		if err != nil || n < 1 {
			return fmt.Errorf("%q: %q is not a number of times", text, nth)
		}
		p.left = n
	}
	kind, long, _ := strings.Cut(action, ":")
	switch kind {
	case "kill":
		p.act = func() { signal(unix.SIGKILL); select {} }
	case "stop":
		p.act = func() { signal(unix.SIGSTOP) }
	case "delay":
		d, err := time.ParseDuration(long)
		if err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
		p.act = func() { time.Sleep(d) }
	default:
		return fmt.Errorf("%q: there is no action %q", text, kind)
	}
	armed.mu.Lock()
	defer armed.mu.Unlock()
	if armed.points == nil {
		armed.points = make(map[string]point)
	}
	armed.points[name] = p
	armed.any.Store(true)
	return nil
}

// signal sends a signal to this thread, which takes it before it does anything else.
func signal(s unix.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), s); err != nil {
		log.Panicf("signal %v to this process: %v", s, err)
	}
}

// serve answers one line on each connection.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			log.Printf("failpoint: %v", err)
			return
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		answer := "ok"
		if err == nil {
			err = obey(strings.Fields(line))
		}
		if err != nil {
			answer = err.Error()
		}
		fmt.Fprintln(c, answer)
		c.Close()
	}
}

func obey(words []string) error {
	switch {
	case len(words) == 2 && words[0] == "arm":
		return arm(words[1])
	case len(words) == 1 && words[0] == "clear":
		armed.mu.Lock()
		defer armed.mu.Unlock()
		clear(armed.points)
		armed.any.Store(false)
		return nil
	case len(words) == 2 && words[0] == "clock":
		d, err := time.ParseDuration(words[1])
		if err == nil {
			clock.Step(d)
		}
		return err
	}
	return fmt.Errorf("there is no command %q", words)
}
