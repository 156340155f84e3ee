package load

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"faena.dev/faena/internal/tools/chaos/history"
)

// Ledger takes down what functions tell.
type Ledger struct {
	listener net.Listener
	h        *history.History
	running  sync.WaitGroup
}

// OpenLedger takes lines "start ID ATTEMPT TOKEN" and "end ID ATTEMPT TOKEN" on an address, and answers each with a byte once it
// is in the history.
func OpenLedger(address string, h *history.History) (*Ledger, error) {
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	ledger := &Ledger{listener: l, h: h}
	ledger.running.Go(ledger.accept)
	return ledger, nil
}

// Port is where it listens.
func (l *Ledger) Port() string {
	_, port, _ := net.SplitHostPort(l.listener.Addr().String())
	return port
}

func (l *Ledger) accept() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		go l.serve(c) // it ends with its function
	}
}

func (l *Ledger) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		at := time.Now()
		var word string
		var s history.Step
		if n, err := fmt.Sscan(strings.TrimSpace(lines.Text()), &word, &s.ID, &s.Attempt, &s.Token); n != 4 || err != nil {
			return
		}
		s.At, s.End = at, word == "end"
		l.h.Did(s)
		if _, err := c.Write([]byte{'\n'}); err != nil {
			return
		}
	}
}

// Close takes nothing more.
func (l *Ledger) Close() {
	_ = l.listener.Close()
	l.running.Wait()
}
