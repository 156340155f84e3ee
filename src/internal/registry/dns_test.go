package registry

import (
	"bytes"
	"context"
	"encoding/binary"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// names is a DNS server on loopback: what each name resolves to. Tests that run side by side use different names.
type names struct {
	mu    sync.Mutex
	table map[string][]netip.Addr
}

// dns is the one server that this process asks, from before the first test on: changing that later would be a race.
var dns = &names{table: map[string][]netip.Addr{}}

func TestMain(m *testing.M) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go dns.serve(conn)
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	m.Run()
}

// serve answers until the process ends.
func (n *names) serve(conn net.PacketConn) {
	for buf := make([]byte, 1500); ; {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo(n.answer(buf[:size]), from) // who asked asks again
	}
}

func (n *names) set(name string, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.table[name] = nil
	for _, a := range addresses {
		n.table[name] = append(n.table[name], netip.MustParseAddr(a))
	}
}

// answer answers one question (RFC 1035, section 4).
func (n *names) answer(q []byte) []byte {
	const header, typeA, typeAAAA = 12, 1, 28
	end := header
	var labels []string
	for end < len(q) && q[end] != 0 {
		labels = append(labels, string(q[end+1:end+1+int(q[end])]))
		end += 1 + int(q[end])
	}
	kind := binary.BigEndian.Uint16(q[end+1:])
	end += 5
	n.mu.Lock()
	addresses, known := n.table[strings.ToLower(strings.Join(labels, "."))]
	n.mu.Unlock()
	var answers bytes.Buffer
	count := 0
	for _, a := range addresses {
		if a.Is4() != (kind == typeA) || kind != typeA && kind != typeAAAA {
			continue
		}
		count++
		answers.Write([]byte{0xc0, header, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(a.AsSlice()))}) // the name asked for, with no time to live
		answers.Write(a.AsSlice())
	}
	flags := byte(0x80)
	if !known {
		flags |= 3 // there is no such name
	}
	out := append([]byte{q[0], q[1], 0x81, flags, 0, 1, 0, byte(count), 0, 0, 0, 0}, q[header:end]...)
	return append(out, answers.Bytes()...)
}

// victim is a service inside the network: it counts who comes.
func victim(t *testing.T) (port string, came *atomic.Int64) {
	t.Helper()
	came = new(atomic.Int64)
	addr := faenatest.Registry(t, faenatest.RegistryOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			came.Add(1)
			next.ServeHTTP(w, r)
		})
	}})
	_, port = split(addr)
	return port, came
}

// A name says nothing about where it leads, and may lead elsewhere a moment later: what counts is the address that is
// dialled.
func TestResolver_NamesOfPrivateAddresses(t *testing.T) {
	t.Parallel()
	port, came := victim(t)
	host := "registry.faena.test:" + port
	for name, addresses := range map[string][]string{"Loopback": {"127.0.0.1"}, "Private": {"10.0.0.1"}, "Metadata": {"169.254.169.254"}, "IPv6": {"::1"},
		"Several": {"127.0.0.1", "10.0.0.1", "::1"}} {
		t.Run(name, func(t *testing.T) {
			dns.set("registry.faena.test", addresses...)
			r := NewResolver(Rules{Insecure: []string{host}})
			_, err := r.Resolve(t.Context(), host+"/app", creds, arch)
			refusal(t, err, faena.KindInvalid, "image_refused", " of "+host+" is private or reserved and not allowed by the operator")
			if err := r.Check(t.Context(), host); err == nil || !strings.Contains(err.Error(), "is private or reserved") {
				t.Errorf("it may be pulled: %v", err)
			}
		})
	}
	t.Run("OneOfSeveral", func(t *testing.T) {
		dns.set("registry.faena.test", "192.0.2.1", "127.0.0.1")
		if err := NewResolver(Rules{}).Check(t.Context(), host); err == nil {
			t.Error("it may be pulled")
		}
	})
	t.Run("ItLeadsElsewhereNow", func(t *testing.T) {
		r := NewResolver(Rules{Insecure: []string{host}})
		dns.set("registry.faena.test", "192.0.2.1")
		if err := r.Check(t.Context(), host); err != nil {
			t.Errorf("a public address is refused: %v", err)
		}
		dns.set("registry.faena.test", "127.0.0.1")
		_, err := r.Resolve(t.Context(), host+"/app", creds, arch)
		refusal(t, err, faena.KindInvalid, "image_refused", "address 127.0.0.1 of "+host)
	})
	t.Run("NoSuchName", func(t *testing.T) {
		r := NewResolver(Rules{})
		_, err := r.Resolve(t.Context(), "absent.faena.test/app", nil, arch)
		refusal(t, err, faena.KindUnavailable, "registry_unavailable", "no such host")
		if err := r.Check(t.Context(), "absent.faena.test"); err == nil || !strings.HasPrefix(err.Error(), "the address of absent.faena.test cannot be found: ") {
			t.Errorf("it may be pulled: %v", err)
		}
	})
	if n := came.Load(); n != 0 {
		t.Errorf("%d requests came into the network", n)
	}
	t.Run("Allowed", func(t *testing.T) {
		dns.set("registry.faena.test", "127.0.0.1")
		img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
		faenatest.Push(t, "127.0.0.1:"+port, "app", img, nil)
		for _, rules := range []Rules{{Insecure: []string{host}, PrivateHosts: []string{"registry.faena.test"}}, {Insecure: []string{"registry.faena.test"}, PrivateNetworks: loopback.PrivateNetworks}} {
			r := NewResolver(rules)
			got, err := r.Resolve(t.Context(), host+"/app", nil, arch)
			if err != nil || got.Digest != digestOf(t, img) || !strings.HasPrefix(got.Pull, host+"/app@") {
				t.Errorf("%+v: it is %+v, %v", rules, got, err)
			}
			if err := r.Check(t.Context(), host); err != nil {
				t.Errorf("%+v: it may not be pulled: %v", rules, err)
			}
		}
	})
	// Names of which the library thinks that they are local get no plain HTTP from us all the same.
	t.Run("NoPlainHTTP", func(t *testing.T) {
		before := came.Load()
		for _, name := range []string{"registry.local", "registry.localhost", "registry.faena.test"} {
			dns.set(name, "127.0.0.1")
			_, err := NewResolver(loopback).Resolve(t.Context(), name+":"+port+"/app", creds, arch)
			if err == nil {
				t.Errorf("%s is answered", name)
			}
			secretFree(t, err)
		}
		if came.Load() != before {
			t.Error("requests came in clear")
		}
	})
}

// The engine's pull of what comes from Docker Hub goes to another host than the name says.
func TestResolver_CheckDockerHub(t *testing.T) {
	t.Parallel()
	dns.set("index.docker.io", "192.0.2.1")
	for _, host := range []string{"docker.io", "index.docker.io", "registry-1.docker.io"} {
		dns.set("registry-1.docker.io", "192.0.2.1")
		if err := NewResolver(Rules{}).Check(t.Context(), host); err != nil {
			t.Errorf("%s may not be pulled from: %v", host, err)
		}
		dns.set("registry-1.docker.io", "10.0.0.1")
		if err := NewResolver(Rules{}).Check(t.Context(), host); err == nil || !strings.Contains(err.Error(), "address 10.0.0.1 of registry-1.docker.io is private") {
			t.Errorf("%s in the network may be pulled from: %v", host, err)
		}
	}
}
