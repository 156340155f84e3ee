package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

const san = "gateway.faena.test"

// quiet is where servers write of handshakes that failed, which here is what is wanted.
var quiet = log.New(io.Discard, "", 0)

// site is an API behind a gateway: its CAs, and what it serves.
type site struct {
	serverCA, gatewayCA *authority
	book                *book
	config              *tls.Config
	handler             http.Handler
	served              atomic.Int64
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{serverCA: newAuthority(t, "the API's CA"), gatewayCA: newAuthority(t, "the gateway's CA"), book: newBook()}
	cert, key := pemOf(t, s.serverCA.issue(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }))
	var err error
	if s.config, err = GatewayTLS(cert, key, s.gatewayCA.pem()); err != nil {
		t.Fatal(err)
	}
	answer := serve(NewGateway(s.book.profile, san).Authenticate)
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.served.Add(1)
		answer.ServeHTTP(w, r)
	})
	return s
}

// gateway is a certificate of the gateway's CA with its name, changed by edit.
func (s *site) gateway(t *testing.T, edit func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	return s.gatewayCA.issue(t, func(c *x509.Certificate) {
		c.DNSNames = []string{san}
		edit(c)
	})
}

func asIs(*x509.Certificate) {}

func named(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

func asAnn(r *http.Request) { r.Header.Set(consumerHeader, "ann") }

// Who has a certificate of the gateway's CA with the gateway's name is believed; others of that CA are told that they are not.
func TestGateway_CertificateName(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	url := serveTLS(t, s.handler, s.config)
	for name, c := range map[string]struct {
		edit     func(*x509.Certificate)
		believed bool
	}{
		"TheGateway":        {asIs, true},
		"OneOfSeveralNames": {named("other.faena.test", san), true},
		"ForClientsOnly":    {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, true},
		"AWorker":           {named("worker.faena.test"), false},
		"NoName":            {named(), false},
		"InTheSubjectOnly":  {func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, san }, false},
		"AsAnEmailAddress":  {func(c *x509.Certificate) { c.DNSNames, c.EmailAddresses = nil, []string{san} }, false},
		"AWildcard":         {named("*.faena.test"), false},
		"InCapitals":        {named(strings.ToUpper(san)), false},
		"WithADotAtTheEnd":  {named(san + "."), false},
		"BeginsWithIt":      {named(san + ".example.org"), false},
		"EndsWithIt":        {named("x." + san), false},
	} {
		t.Run(name, func(t *testing.T) {
			got := call(t, dialer(t, s.serverCA, s.gateway(t, c.edit)), url, asAnn)
			if want := "unauthenticated: Calls are taken from the gateway only."; c.believed && got != "ann" || !c.believed && got != want {
				t.Errorf("the answer is %q", got)
			}
		})
	}
}

// Without a certificate of the gateway's CA that is valid now, and for clients, nobody comes as far as a request.
func TestGatewayTLS_Refuses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	url := serveTLS(t, s.handler, s.config)
	twin := newAuthority(t, "the gateway's CA") // of the same name, with another key
	certs := map[string][]tls.Certificate{
		"NoCertificate":     nil,
		"OfAnotherCA":       {newAuthority(t, "another CA").issue(t, named(san))},
		"OfACAOfThatName":   {twin.issue(t, named(san))},
		"OfTheServersCA":    {s.serverCA.issue(t, named(san))},
		"SignedByItself":    {(&authority{}).issue(t, named(san))},
		"OfAGateway":        {issuedBy(t, s.gateway(t, asIs))},
		"Expired":           {s.gateway(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })},
		"NotYetValid":       {s.gateway(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })},
		"ForServersOnly":    {s.gateway(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })},
		"WithAnothersKey":   {{Certificate: s.gateway(t, asIs).Certificate, PrivateKey: s.gateway(t, asIs).PrivateKey}},
		"WithTheCAAppended": {{Certificate: [][]byte{twin.cert.Raw, s.gatewayCA.cert.Raw}, PrivateKey: twin.key}},
	}
	for name, c := range certs {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			asAnn(req)
			res, err := dialer(t, s.serverCA, c...).Do(req)
			if err == nil {
				_ = res.Body.Close()
				t.Errorf("it is answered %s", res.Status)
			} else if strings.Contains(err.Error(), "timeout") || strings.Contains(err.Error(), "refused") {
				t.Errorf("it is no handshake that fails: %v", err)
			}
		})
	}
	if n := s.served.Load(); n != 0 {
		t.Errorf("%d requests reached the API", n)
	}
	if got := call(t, dialer(t, s.serverCA, s.gateway(t, asIs)), url, asAnn); got != "ann" {
		t.Errorf("then the gateway is answered %q", got)
	}
}

// issuedBy makes a certificate that another one, which is no CA's, has signed.
func issuedBy(t *testing.T, by tls.Certificate) tls.Certificate {
	t.Helper()
	c := authorityOf(by).issue(t, named(san))
	c.Certificate = append(c.Certificate, by.Certificate...)
	return c
}

// A header that does not come from the gateway means nothing, on whatever listener it arrives.
func TestGateway_NotFromTheGateway(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const refused = "unauthenticated: Calls are taken from the gateway only."
	cert, key := pemOf(t, s.serverCA.issue(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }))
	open, err := ServerTLS(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	// A certificate that is shown and not verified.
	shown, mayShow := open.Clone(), s.config.Clone()
	shown.ClientAuth, mayShow.ClientAuth = tls.RequireAnyClientCert, tls.VerifyClientCertIfGiven
	plain := httptest.NewServer(s.handler)
	defer plain.Close()
	for _, c := range []struct {
		name   string
		url    string
		client *http.Client
	}{
		{"PlainHTTP", plain.URL, http.DefaultClient},
		{"NoneIsAskedFor", serveTLS(t, s.handler, open), dialer(t, s.serverCA, s.gateway(t, asIs))},
		{"NotVerified", serveTLS(t, s.handler, shown), dialer(t, s.serverCA, s.gateway(t, asIs))},
		{"NoneWhereOneMayBeShown", serveTLS(t, s.handler, mayShow), dialer(t, s.serverCA)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, edit := range map[string]func(*http.Request){"header": asAnn, "credentials": basic("ann", "ann's-password"),
				"what a proxy might add": func(r *http.Request) {
					asAnn(r)
					r.Header.Set("X-Ssl-Client-Verify", "SUCCESS")
					r.Header.Set("X-Forwarded-Proto", "https")
				}} {
				if got := call(t, c.client, c.url, edit); got != refused {
					t.Errorf("with the %s the answer is %q", name, got)
				}
			}
		})
	}
}

// What the gateway says is one name, in one header.
func TestGateway_Header(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.book.change(faena.User{Name: "jorgeSD"})
	s.book.change(faena.User{Name: "gone", Deleted: true})
	url := serveTLS(t, s.handler, s.config)
	client := dialer(t, s.serverCA, s.gateway(t, asIs))
	const none, unknown = "unauthenticated: The gateway names no user, or more than one.", "unauthenticated: The user is not known here."
	for _, c := range []struct {
		name    string
		headers http.Header
		want    string
	}{
		{"One", http.Header{consumerHeader: {"ann"}}, "ann"},
		{"InLowerCase", http.Header{"x-consumer-username": {"jorgeSD"}}, "jorgeSD"},
		{"None", http.Header{}, none},
		{"Empty", http.Header{consumerHeader: {""}}, none},
		{"Two", http.Header{consumerHeader: {"ann", "jorgeSD"}}, none},
		{"TheSameTwice", http.Header{consumerHeader: {"ann", "ann"}}, none},
		{"TwoSpellings", http.Header{consumerHeader: {"ann"}, "X_Consumer_Username": {"jorgeSD"}}, none},
		{"UnderscoresOnly", http.Header{"X_consumer-Username": {"ann"}}, none},
		{"AList", http.Header{consumerHeader: {"ann,jorgeSD"}}, none},
		{"NoUserName", http.Header{consumerHeader: {"ann/../jorgeSD"}}, none},
		{"OtherHeaders", http.Header{"X-Credential-Identifier": {"ann"}, "Authorization": {"Basic YW5uOmFubidzLXBhc3N3b3Jk"}}, none},
		{"InAnotherCase", http.Header{consumerHeader: {"Ann"}}, unknown},
		{"NoProfile", http.Header{consumerHeader: {"nobody"}}, unknown},
		{"Deleted", http.Header{consumerHeader: {"gone"}}, unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := call(t, client, url, func(r *http.Request) { r.Header = c.headers }); got != c.want {
				t.Errorf("the answer is %q, want %q", got, c.want)
			}
		})
	}
	s.book.err = errStore
	if got := call(t, client, url, asAnn); got != "unavailable: The documents cannot be read." {
		t.Errorf("without the store the answer is %q", got)
	}
}

// A session that is taken up again says who the gateway is, until its certificate has expired.
func TestGatewayTLS_Resumption(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	clock := newClock()
	clock.pass(time.Since(clock.now()))
	s.config.Time = clock.now
	url := serveTLS(t, s.handler, s.config)
	cert := s.gateway(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(10 * time.Minute) })
	client := dialer(t, s.serverCA, cert)
	tr := client.Transport.(*http.Transport)
	tr.DisableKeepAlives, tr.ForceAttemptHTTP2 = true, false
	tr.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	var resumed atomic.Bool
	tr.TLSClientConfig.VerifyConnection = func(c tls.ConnectionState) error {
		resumed.Store(c.DidResume)
		return nil
	}
	for i := range 3 {
		if got := call(t, client, url, asAnn); got != "ann" {
			t.Fatalf("call %d is answered %q", i, got)
		}
	}
	if !resumed.Load() {
		t.Fatal("no session was taken up again: this tests nothing")
	}
	clock.pass(11 * time.Minute)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	asAnn(req)
	if res, err := client.Do(req); err == nil {
		_ = res.Body.Close()
		t.Errorf("after its certificate has expired it is answered %s", res.Status)
	}
}

func TestGatewayTLS_BadFiles(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "a CA")
	cert, key := pemOf(t, ca.issue(t, asIs))
	_, otherKey := pemOf(t, ca.issue(t, asIs))
	for name, c := range map[string]struct {
		cert, key, ca []byte
		want          string
	}{
		"NoCertificate":   {nil, key, ca.pem(), "read the server's certificate and key: "},
		"NoKey":           {cert, nil, ca.pem(), "read the server's certificate and key: "},
		"AnothersKey":     {cert, otherKey, ca.pem(), "read the server's certificate and key: "},
		"NoCA":            {cert, key, nil, "read the gateway's CA: there is no certificate in it"},
		"AKeyAsCA":        {cert, key, key, "read the gateway's CA: there is no certificate in it"},
		"SomethingElse":   {cert, key, []byte("a CA"), "read the gateway's CA: there is no certificate in it"},
		"DERInsteadOfPEM": {cert, key, ca.cert.Raw, "read the gateway's CA: there is no certificate in it"},
	} {
		got, err := GatewayTLS(c.cert, c.key, c.ca)
		if got != nil || err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: it is %v, %v", name, got, err)
		}
	}
}

func TestServerTLS_Versions(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	url := serveTLS(t, s.handler, s.config)
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		client := dialer(t, s.serverCA, s.gateway(t, asIs))
		client.Transport.(*http.Transport).ForceAttemptHTTP2 = false // which needs TLS 1.2 itself
		c := client.Transport.(*http.Transport).TLSClientConfig
		c.MinVersion, c.MaxVersion = version, version
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err == nil {
			_ = res.Body.Close()
		}
		if got := err == nil; got != want {
			t.Errorf("%s: it is %v", tls.VersionName(version), err)
		}
	}
}

// Behind a gateway a password is set there, and the answer says so.
func TestGateway_Hash(t *testing.T) {
	t.Parallel()
	g := NewGateway(newBook().profile, san)
	phc, err := g.Hash(t.Context(), "a-password")
	e, ok := errors.AsType[*faena.Error](err)
	if phc != "" || !ok || e.Kind != faena.KindInvalid || e.Reason != "password_at_gateway" || len(e.Fields) != 1 || e.Fields[0].Field != "password" {
		t.Errorf("it is %q, %+v", phc, e)
	}
	g.Forget("ann") // remembers nothing
}
