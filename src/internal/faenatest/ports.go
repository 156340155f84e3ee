package faenatest

import (
	"syscall"
	"testing"
)

// Ports finds ports of 127.0.0.1 that nobody uses, and keeps everybody else from being given them until the test ends: a server
// that is stopped has to find its port again. A socket that is bound but does not listen does that: the kernel gives a port that
// has one to nobody who asks for any, and refuses nobody who asks for this one with SO_REUSEADDR, as Go's listeners do.
func Ports(t testing.TB, n int) (ports []int) {
	t.Helper()
	for range n {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(fd) })
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		address, err := syscall.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, address.(*syscall.SockaddrInet4).Port)
	}
	return ports
}
