package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Nothing that the appliance listens on can be reached from another host.
func testListens(a *account, s *site) {
	got := listens(a.t, s.cmd.Process.Pid)
	want := []string{strings.TrimPrefix(s.url, "http://"), s.operations, s.registry}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		a.t.Errorf("it listens on %v, want %v", got, want)
	}
	for _, address := range got {
		if ip, err := netip.ParseAddrPort(address); err != nil || !ip.Addr().IsLoopback() {
			a.t.Errorf("it listens on %s, %v", address, err)
		}
	}
}

var socketLink = regexp.MustCompile(`^socket:\[(\d+)\]$`)

// listens lists the addresses of a process's listening TCP sockets, as the kernel has them.
func listens(t *testing.T, pid int) (addresses []string) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	own := make(map[string]bool)
	for _, link := range links {
		to, _ := os.Readlink(link) // it may be closed meanwhile
		if m := socketLink.FindStringSubmatch(to); m != nil {
			own[m[1]] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			// sl local_address rem_address st … inode; state 0A is listening
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" && own[f[9]] {
				addresses = append(addresses, kernelAddress(t, f[1]))
			}
		}
	}
	slices.Sort(addresses)
	return addresses
}

// kernelAddress reads an address of /proc/net/tcp: words of the host's order, here little-endian, and the port.
func kernelAddress(t *testing.T, text string) string {
	t.Helper()
	address, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(address)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	ip, _ := netip.AddrFromSlice(raw)
	var n uint16
	if _, err := fmt.Sscanf(port, "%X", &n); err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(ip, n).String()
}

// With a certificate it may be reached from elsewhere, over TLS, and its first admin is logged in all the same.
func TestUp_Certificate(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	address := hostAddress(t)
	cert, key := certificate(t, address)
	u := a.up("FAENA_LISTEN=0.0.0.0:0", "FAENA_TLS_CERT_FILE="+cert, "FAENA_TLS_KEY_FILE="+key)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(u.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	there := "https://" + net.JoinHostPort(address.String(), port)
	if got := a.run(nil, "functions"); got.code != exitOK {
		t.Errorf("the login that up has made: %+v", got)
	}
	login := func(args ...string) answer {
		return a.run(strings.NewReader(a.password()), append([]string{"login", there, "--profile", "there", "-u", "admin", "--password-stdin"}, args...)...)
	}
	cmd := a.command(t.Context(), "faena", "login", there, "--profile", "there", "-u", "admin", "--password-stdin", "--cacert", "cert.pem")
	cmd.Dir = filepath.Dir(cert)
	if got := a.finish(cmd, strings.NewReader(a.password())); got.code != exitOK {
		t.Errorf("login with the CA: %+v", got)
	}
	if got := a.run(nil, "functions", "--profile", "there"); got.code != exitOK { // from another directory
		t.Errorf("called with the CA: %+v", got)
	}
	if got := login(); got.code != exitUnavailable || !strings.Contains(got.err, "certificate") || !strings.Contains(got.err, "with --cacert FILE") ||
		strings.Contains(got.err, "faena up") {
		t.Errorf("login without the CA: %+v", got)
	}
	if got := login("--cacert", key); got.code != exitUsage || !strings.Contains(got.err, "no certificate") {
		t.Errorf("login with what is no CA: %+v", got)
	}
	plain := a.run(strings.NewReader(a.password()), "login", "http://"+net.JoinHostPort(address.String(), port), "-u", "admin", "--password-stdin")
	if plain.code != exitUsage || !strings.Contains(plain.err, "plain HTTP to another host") {
		t.Errorf("login over plain HTTP: %+v", plain)
	}
}

// hostAddress is an address of this host that is not loopback: the engine's bridge has one at least.
func hostAddress(t *testing.T) netip.Addr {
	t.Helper()
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr()
		}
	}
	t.Fatal("this host has no address but loopback")
	return netip.Addr{}
}

// certificate makes a certificate of its own for an address.
func certificate(t *testing.T, address netip.Addr) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "faena"}, IPAddresses: []net.IP{address.AsSlice()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
