package installation

import (
	"errors"
	"fmt"
	"syscall"
)

// ports are of 127.0.0.1. Nobody else is given one while it is held here: a socket that is bound and does not listen does
// that, and refuses nobody who asks for this very port with SO_REUSEADDR, as Go's listeners do.
type ports []int // file descriptors

// take reserves one more.
func (p *ports) take() (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("reserve a port: %w", err)
	}
	*p = append(*p, fd)
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, fmt.Errorf("reserve a port: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, fmt.Errorf("reserve a port: %w", err)
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("reserve a port: %w", err)
	}
	in, ok := address.(*syscall.SockaddrInet4)
	if !ok {
		return 0, errors.New("reserve a port: the socket has no IPv4 address")
	}
	return in.Port, nil
}

// address is take, as host:port.
func (p *ports) address() (string, error) {
	port, err := p.take()
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

func (p *ports) release() {
	for _, fd := range *p {
		_ = syscall.Close(fd) // nothing was written
	}
	*p = nil
}
