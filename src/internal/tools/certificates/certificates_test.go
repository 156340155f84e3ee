package certificates_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"

	"faena.dev/faena/internal/tools/certificates"
)

func TestAuthority_Issue(t *testing.T) {
	ours, err := certificates.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	others, err := certificates.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := ours.Issue("server", net.IPv4(198, 18, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = conn.(*tls.Conn).HandshakeContext(t.Context()) // what it says is the client's to judge
				_ = conn.Close()
			}()
		}
	}()
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	for _, c := range []struct {
		who    string
		trusts *certificates.Authority
		server string
		as     any
	}{
		{"who trusts it", ours, "127.0.0.1", nil},
		{"who trusts it, at the other address", ours, "198.18.0.1", nil},
		{"who trusts it, at an address of somebody else", ours, "198.18.0.2", &wrongName},
		{"who trusts another", others, "127.0.0.1", &unknown},
	} {
		t.Run(c.who, func(t *testing.T) {
			config := c.trusts.Client()
			config.ServerName = c.server
			conn, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: config}).DialContext(t.Context(), "tcp", l.Addr().String())
			if err == nil {
				_ = conn.Close()
			}
			if c.as == nil && err != nil || c.as != nil && !errors.As(err, c.as) {
				t.Errorf("the handshake ends with %v", err)
			}
		})
	}
	if (*certificates.Authority)(nil).Client() != nil {
		t.Error("there is TLS without an authority")
	}
}
