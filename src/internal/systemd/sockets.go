package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// Sockets are the listeners that systemd opened for this process. They are for one goroutine.
type Sockets struct{ listeners map[string]net.Listener }

// TakeSockets takes the sockets that were passed, by the FileDescriptorName= of their units; there may be none. It is
// called once in a process: what it took is not passed on, to no child either.
func TakeSockets() (*Sockets, error) {
	s := &Sockets{listeners: map[string]net.Listener{}}
	for _, f := range activation.Files(true) {
		l, err := net.FileListener(f)
		_ = f.Close() // the listener has its own descriptor
		if err == nil && s.listeners[f.Name()] != nil {
			err = errors.Join(errors.New("another one has its name"), l.Close())
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("take the socket %s from systemd: %w", f.Name(), err), s.close())
		}
		s.listeners[f.Name()] = l
	}
	return s, nil
}

// Passed reports whether there is a socket of that name which nobody has taken.
func (s *Sockets) Passed(name string) bool { return s.listeners[name] != nil }

// Listen returns the socket of that name, or where none was passed listens on the TCP address.
func (s *Sockets) Listen(ctx context.Context, name, address string) (net.Listener, error) {
	if l := s.listeners[name]; l != nil {
		delete(s.listeners, name)
		return l, nil
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", name, err)
	}
	return l, nil
}

// Close closes the sockets that nobody took. Their connections would wait for ever, so that there are any is an
// error, which names them.
func (s *Sockets) Close() error {
	if len(s.listeners) == 0 {
		return nil
	}
	names := make([]string, 0, len(s.listeners))
	for name := range s.listeners {
		names = append(names, name)
	}
	slices.Sort(names)
	return errors.Join(fmt.Errorf("systemd passed sockets that this daemon does not know: %s", strings.Join(names, ", ")), s.close())
}

func (s *Sockets) close() (err error) {
	for _, l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	clear(s.listeners)
	return err
}
