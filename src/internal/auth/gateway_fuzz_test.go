package auth

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"

	"faena.dev/faena/internal/faena"
)

// FuzzGateway_Headers: of a request with the gateway's certificate and whatever headers, somebody is believed only where one line, in
// whatever spelling, says who it is, and then exactly that; without the certificate nobody is.
func FuzzGateway_Headers(f *testing.F) {
	for _, s := range []string{"X-Consumer-Username: ann", "x-consumer-username: ann", "X_Consumer_Username: ann", "X-Consumer_Username: ann\nX-Consumer-Username: bob",
		"X-Consumer-Username: ann\nX-Consumer-Username: ann", "X-Consumer-Username: ann\nx_consumer_username: bob", "X-CONSUMER-USERNAME:ann", "X-Consumer-Username: ann,bob",
		"X-Consumer-Username:", "X-Consumer-Username : ann", " X-Consumer-Username: ann", "X-Consumer-Username: ann\n bob", "X-Consumer-Username: ../ann", "X-Consumer-Username: ann\x00",
		"Connection: X-Consumer-Username\nX-Consumer-Username: ann", "X-Consumer-Username: ann\nAuthorization: Basic YW5uOng=", "Trailer: X-Consumer-Username",
		"X-Consumer-Username: ann\nXConsumerUsername: bob"} {
		f.Add(s)
	}
	g := NewGateway(func(_ context.Context, name string) (faena.User, error) { return faena.User{Name: name}, nil }, "gateway.example")
	certificate := &x509.Certificate{DNSNames: []string{"gateway.example"}}
	verified := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate}, VerifiedChains: [][]*x509.Certificate{{certificate}}}
	f.Fuzz(func(t *testing.T, headers string) {
		raw := "GET / HTTP/1.1\r\nHost: faena.example\r\n" + strings.ReplaceAll(headers, "\n", "\r\n") + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		if user, err := g.Authenticate(r); err == nil {
			t.Errorf("%q without a certificate is %q", headers, user.Name)
		}
		r.TLS = verified
		user, err := g.Authenticate(r)
		if err != nil {
			if !faena.IsKind(err, faena.KindUnauthenticated) {
				t.Errorf("%q is refused as %v", headers, err)
			}
			return
		}
		var says []string
		for name, values := range r.Header {
			if strings.ToLower(strings.ReplaceAll(name, "_", "-")) == "x-consumer-username" {
				says = append(says, values...)
			}
		}
		if len(says) != 1 || says[0] != user.Name || !faena.ValidUser(user.Name) {
			t.Errorf("%q says %q, and is taken for %q", headers, says, user.Name)
		}
		// It stands there as it is, and is not made of other lines.
		if !strings.Contains(headers, user.Name) {
			t.Errorf("%q is taken for %q", headers, user.Name)
		}
	})
}
