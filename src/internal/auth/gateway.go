package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"faena.dev/faena/internal/faena"
)

// consumerHeader is where APISIX says which consumer it has authenticated.
const consumerHeader = "X-Consumer-Username"

// Gateway believes a gateway's word on who calls. The gateway is known by its client certificate: issued by a CA of its
// own, with the DNS name that is pinned here. Whoever comes without it is refused, whatever he says.
type Gateway struct {
	profiles Profiles
	san      string
}

// NewGateway makes it. san is the DNS name of the gateway's certificate, compared to the letter.
func NewGateway(profiles Profiles, san string) *Gateway {
	return &Gateway{profiles: profiles, san: san}
}

// Authenticate returns the user that the gateway names. A user without a profile is refused.
func (g *Gateway) Authenticate(r *http.Request) (faena.User, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.PeerCertificates) == 0 ||
		!slices.Contains(r.TLS.PeerCertificates[0].DNSNames, g.san) {
		return faena.User{}, unauthenticated("Calls are taken from the gateway only.")
	}
	name, err := consumer(r.Header)
	if err != nil {
		return faena.User{}, err
	}
	user, err := g.profiles(r.Context(), name)
	if faena.IsKind(err, faena.KindNotFound) || err == nil && user.Deleted {
		return faena.User{}, unauthenticated("The user is not known here.")
	}
	return user, err
}

// consumer reads the one value of the gateway's header. A second spelling of it would be somebody else's.
func consumer(h http.Header) (string, error) {
	values := 0
	for key, v := range h {
		if strings.EqualFold(strings.ReplaceAll(key, "_", "-"), consumerHeader) {
			values += len(v)
		}
	}
	name := h.Get(consumerHeader)
	if values != 1 || !faena.ValidUser(name) {
		return "", unauthenticated("The gateway names no user, or more than one.")
	}
	return name, nil
}

// Hash refuses: behind a gateway passwords are the gateway's.
func (*Gateway) Hash(context.Context, string) (string, error) {
	return "", &faena.Error{Kind: faena.KindInvalid, Reason: "password_at_gateway", Component: faena.ComponentCaller,
		Message: "Passwords are kept at the gateway: set it there.",
		Fields:  []faena.FieldError{{Field: "password", Message: "is kept at the gateway"}}}
}

// Forget does nothing: nothing is remembered.
func (*Gateway) Forget(string) {}

// ServerTLS is the TLS of a server that anybody may connect to, with the certificate in two PEM files' contents.
func ServerTLS(cert, key []byte) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read the server's certificate and key: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// GatewayTLS is the TLS of a server that gateways alone may connect to: those with a client certificate of their CA.
func GatewayTLS(cert, key, gatewayCA []byte) (*tls.Config, error) {
	c, err := ServerTLS(cert, key)
	if err != nil {
		return nil, err
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(gatewayCA) {
		return nil, errors.New("read the gateway's CA: there is no certificate in it")
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}
