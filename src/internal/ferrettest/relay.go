package ferrettest

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Fault is what a relay does with a command.
type Fault int

// The faults.
const (
	None        Fault = iota
	LoseCommand       // the connection ends before the server has it
	LoseReply         // the server carries it out, and the connection ends before the client knows
)

// Relay is a way from clients to a FerretDB. It takes commands apart for two reasons: a test may lose one, and FerretDB finds what
// it is to change first and changes it afterwards, so that of two that do it at once both may find the same. MongoDB changes
// a document in one step. So only one command at a time changes something, on all relays of a server.
type Relay struct {
	server *Server
	config *tls.Config // nil: no TLS

	mu       sync.Mutex
	address  string
	listener net.Listener // nil while it is shut
	clients  map[net.Conn]bool
	fault    func(command string) Fault
	running  sync.WaitGroup
}

// changing are the commands that change something.
var changing = map[string]bool{"insert": true, "update": true, "delete": true, "findAndModify": true, "create": true, "createIndexes": true,
	"drop": true, "dropDatabase": true, "dropIndexes": true}

// NewRelay opens another way to the server, until the test ends. It is of no use while the server is stopped.
func (s *Server) NewRelay(t testing.TB) *Relay {
	t.Helper()
	r := newRelay(t, s, Options{})
	r.open(t)
	t.Cleanup(r.shut)
	return r
}

func newRelay(t testing.TB, s *Server, o Options) *Relay {
	t.Helper()
	r := &Relay{server: s, address: "127.0.0.1:0"}
	if o.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		r.config = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	return r
}

// URI is what clients connect to. It stays the same when the server is started again.
func (r *Relay) URI() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	uri := "mongodb://" + r.address + "/"
	if r.config != nil {
		uri += "?tls=true"
	}
	return uri
}

// SetFault has fn asked about each command from now on, with its name: "insert", "update", "find". nil: no faults. fn is called by
// several goroutines.
func (r *Relay) SetFault(fn func(command string) Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = fn
}

// open takes connections, on the same port as before.
func (r *Relay) open(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.address, r.clients = l.Addr().String(), map[net.Conn]bool{}
	if r.config != nil {
		l = tls.NewListener(l, r.config)
	}
	r.listener = l
	r.running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			r.running.Go(func() { r.serve(l, client) })
		}
	})
}

// shut refuses connections, and ends those that there are.
func (r *Relay) shut() {
	r.mu.Lock()
	if r.listener != nil {
		_ = r.listener.Close()
		r.listener = nil
		for client := range r.clients {
			_ = client.Close()
		}
	}
	r.mu.Unlock()
	r.running.Wait()
}

// serve carries the commands of one client, one after the other, until either side has had enough.
func (r *Relay) serve(l net.Listener, client net.Conn) {
	defer func() { _ = client.Close() }()
	r.mu.Lock()
	if r.listener != l { // it was shut meanwhile
		r.mu.Unlock()
		return
	}
	r.clients[client] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.clients, client)
		r.mu.Unlock()
	}()
	server, err := net.DialTimeout("unix", r.server.socket, within)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	for {
		request, err := message(client)
		if err != nil {
			return
		}
		reply, err := r.carry(server, request)
		if err != nil {
			return
		}
		if _, err := client.Write(reply); err != nil {
			return
		}
	}
}

var errLost = errors.New("the command or its reply was lost")

// carry gives the server a command and returns its reply.
func (r *Relay) carry(server net.Conn, request []byte) ([]byte, error) {
	name := command(request)
	fault := None
	r.mu.Lock()
	fn := r.fault
	r.mu.Unlock()
	if fn != nil {
		fault = fn(name)
	}
	if fault == LoseCommand {
		return nil, errLost
	}
	if changing[name] {
		r.server.writes.Lock()
		defer r.server.writes.Unlock()
	}
	if err := server.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	if _, err := server.Write(request); err != nil {
		return nil, err
	}
	reply, err := message(server)
	if name == "createIndexes" && err == nil {
		err = r.server.index()
	}
	if fault == LoseReply {
		return nil, errLost
	}
	return reply, err
}

// headerSize is that of a message: its length, its id, the id that it answers, and its kind.
const headerSize = 16

// message reads one message.
func message(from io.Reader) ([]byte, error) {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(from, header); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(header)
	if size < headerSize || size > 64<<20 {
		return nil, fmt.Errorf("a message has %d bytes", size)
	}
	m := make([]byte, size)
	copy(m, header)
	_, err := io.ReadFull(from, m[headerSize:])
	return m, err
}

// command is the name of the command that a message has: the first key of its document; "" for a message of the old kind, of
// which only the first greeting is one.
func command(m []byte) string {
	const (
		kindMessage = 2013 // OP_MSG: flags, the kind of the section, which is 0 for the command, a document
		firstKey    = headerSize + 4 + 1 + 4 + 1
	)
	if len(m) < firstKey || binary.LittleEndian.Uint32(m[12:]) != kindMessage || m[headerSize+4] != 0 {
		return ""
	}
	for i, b := range m[firstKey:] {
		if b == 0 {
			return string(m[firstKey : firstKey+i])
		}
	}
	return ""
}
