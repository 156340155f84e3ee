package faenatest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is a certificate authority of one test. Its files are gone when the test ends.
type CA struct {
	File string // its own certificate, PEM

	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Certificate is one that a CA has issued: the two files, and the same as crypto/tls takes it.
type Certificate struct {
	CertFile, KeyFile string
	TLS               tls.Certificate
}

// NewCA makes an authority that nobody else trusts.
func NewCA(t testing.TB) *CA {
	t.Helper()
	c := &CA{t: t, dir: t.TempDir(), key: newKey(t)}
	c.File = filepath.Join(c.dir, "ca.pem")
	c.cert = &x509.Certificate{SerialNumber: serial(t), Subject: pkix.Name{CommonName: "CA of " + t.Name()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c.cert, c.cert, &c.key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, c.File, "CERTIFICATE", der)
	return c
}

// Issue makes the certificate of a server on this host, which it may also show as a client: for 127.0.0.1, localhost and
// the names. name is that of the files and of the subject; a second certificate of a name replaces the files.
func (c *CA) Issue(name string, dns ...string) Certificate {
	c.t.Helper()
	return c.issue(name, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: append([]string{"localhost"}, dns...),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
}

// IssueExpired is Issue of a certificate that was valid until an hour ago.
func (c *CA) IssueExpired(name string, dns ...string) Certificate {
	c.t.Helper()
	return c.issue(name, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: append([]string{"localhost"}, dns...),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, NotAfter: time.Now().Add(-time.Hour)})
}

// IssueClient makes a certificate that a client shows, for the names and nothing else.
func (c *CA) IssueClient(name string, dns ...string) Certificate {
	c.t.Helper()
	return c.issue(name, &x509.Certificate{DNSNames: dns, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

func (c *CA) issue(name string, cert *x509.Certificate) Certificate {
	c.t.Helper()
	cert.SerialNumber, cert.Subject, cert.KeyUsage = serial(c.t), pkix.Name{CommonName: name}, x509.KeyUsageDigitalSignature
	cert.NotBefore = time.Now().Add(-2 * time.Hour)
	if cert.NotAfter.IsZero() {
		cert.NotAfter = c.cert.NotAfter
	}
	key := newKey(c.t)
	der, err := x509.CreateCertificate(rand.Reader, cert, c.cert, &key.PublicKey, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	out := Certificate{CertFile: filepath.Join(c.dir, name+".pem"), KeyFile: filepath.Join(c.dir, name+".key")}
	writePEM(c.t, out.CertFile, "CERTIFICATE", der)
	writePEM(c.t, out.KeyFile, "PRIVATE KEY", private)
	if out.TLS, err = tls.LoadX509KeyPair(out.CertFile, out.KeyFile); err != nil {
		c.t.Fatal(err)
	}
	return out
}

// Pool is this authority and no other.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool
}

// Client is for a client that trusts this authority alone and shows the certificates, if any.
func (c *CA) Client(own ...Certificate) *tls.Config {
	config := &tls.Config{RootCAs: c.Pool(), MinVersion: tls.VersionTLS12}
	for _, o := range own {
		config.Certificates = append(config.Certificates, o.TLS)
	}
	return config
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
