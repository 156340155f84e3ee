package packets

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/faenatest"
)

func (s *site) open(t *testing.T) *Rules {
	t.Helper()
	o := Options{Name: "w-1", Bridge: bridge}
	for _, a := range excepted {
		o.Allow = append(o.Allow, Exception{Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	for _, a := range opened {
		o.Allow = append(o.Allow, Exception{Prefix: netip.PrefixFrom(a, a.BitLen()-8), Port: service})
	}
	for _, a := range ours { // a network, of which the host has an address: that one stays shut
		o.Allow = append(o.Allow, Exception{Prefix: netip.PrefixFrom(a, a.BitLen()-8)})
	}
	r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRules(t *testing.T) {
	t.Parallel()
	if !faenatest.OwnNetwork(t) {
		return
	}
	s := newSite(t)
	t.Run("without them all is open", func(t *testing.T) { // what shows that the rest of this test can fail
		s.serveLinkLocal(t)
		s.expect(t, true, gateway, ours, public, remote, link, far, beside, private, other, servers, excepted, opened,
			[]netip.Addr{s.linkLocal(t, false), s.linkLocal(t, true)})
		s.testForged(t, true)
	})
	r := s.open(t)
	t.Run("in force", s.filtered)
	t.Run("forged sources", func(t *testing.T) { s.testForged(t, false) })
	t.Run("calls from outside", s.testInbound)
	t.Run("nft flush table", func(t *testing.T) {
		want := nft(t, "list", "table", "inet", "faena-test.w-1.left")
		nft(t, "flush", "table", "inet", "faena-test.w-1.left")
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		if got := nft(t, "list", "table", "inet", "faena-test.w-1.left"); got != want {
			t.Errorf("after the check it has %s", got)
		}
	})
	t.Run("nft flush ruleset", func(t *testing.T) {
		nft(t, "flush", "ruleset")
		s.filtered(t)
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		if got := nft(t, "list", "tables"); got != "table inet faena-test.w-1\ntable inet faena-test.w-1.left\n" {
			t.Errorf("after the check the tables are %q", got)
		}
	})
	t.Run("the host leaves a network and comes back", func(t *testing.T) {
		link4 := fmt.Sprintf("%s/24 dev away", link[0])
		faenatest.IP(t, "address delete "+link4)
		faenatest.IP(t, fmt.Sprintf("route add %s dev away", beside[0]))
		for _, want := range []bool{true, false} {
			if err := r.Check(); err != nil {
				t.Fatal(err)
			}
			s.expect(t, want, beside[:1])
			if want {
				faenatest.IP(t, "address add "+link4)
			}
		}
	})
	for _, value := range []string{"1", "0"} {
		t.Run("bridge-nf-call "+value, func(t *testing.T) {
			faenatest.Sysctl(t, "net/bridge/bridge-nf-call-iptables", value)
			faenatest.Sysctl(t, "net/bridge/bridge-nf-call-ip6tables", value)
			s.filtered(t)
		})
	}
	t.Run("a new container", func(t *testing.T) {
		faenatest.IP(t, "link set port2 type bridge_slave isolated off")
		s.expect(t, true, other) // what shows that isolation is needed, and enough
		if err := r.Isolate(); err != nil {
			t.Fatal(err)
		}
		s.filtered(t)
	})
	t.Run("the bridge comes back", func(t *testing.T) {
		faenatest.IP(t, "link delete "+bridge)
		if err := r.Check(); err == nil || !strings.Contains(err.Error(), bridge) {
			t.Errorf("without the bridge the check says %v", err)
		}
		faenatest.IP(t, "link add "+bridge+" type bridge forward_delay 0 mcast_snooping 0")
		faenatest.IP(t, "link set "+bridge+" up")
		give(gateway, func(a string) { faenatest.IP(t, "address add "+a+" dev "+bridge) }, 24, 64)
		for _, name := range []string{"port1", "port2"} {
			faenatest.IP(t, "link set "+name+" master "+bridge)
		}
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		s.filtered(t)
	})
	for name, fail := range map[string]func(){
		"the sockets fail": func() { _ = errors.Join(r.socket.Close(), r.links.Close()) },
		"an answer is missed": func() {
			_, _ = r.socket.Send(netlink.Message{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
				Data: []byte{unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, 0}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			fail()
			if err := r.Check(); err != nil {
				t.Fatal(err)
			}
			s.filtered(t)
		})
	}
	t.Run("a name in use", func(t *testing.T) {
		if _, err := Open(Options{Name: "w-1", Bridge: bridge}); !errors.Is(err, ErrInUse) || errors.Is(err, ErrCannot) {
			t.Errorf("a second one of the name: %v", err)
		}
	})
	t.Run("killed", func(t *testing.T) {
		if err := r.closeConns(); err != nil { // all that the kernel sees of a kill
			t.Fatal(err)
		}
		if got := nft(t, "list", "tables"); got != "table inet faena-test.w-1.left\n" {
			t.Errorf("the tables are %q", got)
		}
		s.filtered(t)
		nft(t, "add", "table", "inet", "faena-other.w.left")
		nft(t, "add", "table", "inet", "faena-gone.w.left")
		nft(t, "add", "table", "inet", "faena-empty.w.left")
		faenatest.IP(t, "link add faena-other type bridge")
		faenatest.IP(t, "link add faena-empty type bridge")
		faenatest.IP(t, "link add dying type veth peer name dying2")
		faenatest.IP(t, "link set dying master faena-other")
		second, err := Open(Options{Name: "w-2", Bridge: bridge})
		if err != nil {
			t.Fatal(err)
		}
		if got := nft(t, "list", "tables"); strings.Contains(got, "w-1") || strings.Contains(got, "gone") || strings.Contains(got, "empty") ||
			!strings.Contains(got, "faena-other.w.left") {
			t.Errorf("with another worker on the bridge the tables are %q", got)
		}
		nft(t, "delete", "table", "inet", "faena-other.w.left")
		r = s.open(t)
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
		s.filtered(t)
	})
	t.Run("an address of the host that is an exception", func(t *testing.T) {
		o := Options{Name: "w-3", Bridge: bridge}
		for _, a := range ours {
			o.Allow = append(o.Allow, Exception{Prefix: netip.PrefixFrom(a, a.BitLen()), Port: service})
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		var err error
		if r, err = Open(o); err != nil {
			t.Fatal(err)
		}
		s.expect(t, true, ours)
		s.expect(t, false, gateway)
	})
	t.Run("closed", func(t *testing.T) {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if got := nft(t, "list", "ruleset"); got != "" {
			t.Errorf("this is left: %s", got)
		}
	})
}

// testForged sends what looks like an answer to the host itself, from a server that it has asked something.
func (s *site) testForged(t *testing.T, want bool) {
	for _, server := range far {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, service)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		answer := func(expected bool) string {
			wait := 300 * time.Millisecond
			if expected {
				wait = patience
			}
			b := make([]byte, 64)
			_ = conn.SetDeadline(time.Now().Add(wait))
			n, err := conn.Read(b)
			if err != nil {
				return ""
			}
			return string(b[:n])
		}
		if _, err := conn.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		if got := answer(true); got != "question" {
			t.Fatalf("%s answers the host %q", server, got)
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		s.from.Do(func() { err = forge(netip.AddrPortFrom(server, service), local) })
		if err != nil {
			t.Fatal(err)
		}
		if got := answer(want); (got == "forged") != want {
			t.Errorf("an answer that a container has forged in the name of %s: the host got %q", server, got)
		}
	}
}

// forge sends a UDP packet with any source: raw in IPv4, which takes CAP_NET_RAW; in IPv6 everybody may.
func forge(from, to netip.AddrPort) error {
	if to.Addr().Is6() {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet6{Port: int(from.Port()), Addr: from.Addr().As16()}); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte("forged"), 0, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	source, destination := from.Addr().As4(), to.Addr().As4()
	var p bytes.Buffer // the kernel fills in the length and both checksums; UDP's may be absent
	p.Write([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0})
	p.Write(append(source[:], destination[:]...))
	p.Write([]byte{byte(from.Port() >> 8), byte(from.Port()), byte(to.Port() >> 8), byte(to.Port()), 0, 8 + 6, 0, 0})
	p.WriteString("forged")
	return unix.Sendto(fd, p.Bytes(), 0, &unix.SockaddrInet4{Addr: destination})
}

// testInbound calls a container from another host, by a route through this one.
func (s *site) testInbound(t *testing.T) {
	for _, a := range other {
		var err error
		s.away.Do(func() {
			var conn net.Conn
			if conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(a, service).String(), 150*time.Millisecond); err == nil {
				_ = conn.Close()
			}
		})
		if err == nil {
			t.Errorf("another host reached the container at %s", a)
		}
	}
}

func TestOpen_WithoutTheCapability(t *testing.T) {
	t.Parallel()
	if !faenatest.OwnNetwork(t) {
		return
	}
	faenatest.IP(t, "link add "+bridge+" type bridge")
	if _, err := Open(Options{Name: "w", Bridge: "faena-none"}); !errors.Is(err, ErrCannot) || !strings.Contains(err.Error(), "faena-none") {
		t.Errorf("without the bridge: %v", err)
	}
	h := faenatest.NewHost(t) // a thread, whose capabilities can be lowered alone
	h.IP("link add " + bridge + " type bridge")
	var err error
	h.Do(func() {
		header, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
		if err = unix.Capset(&header, &data[0]); err == nil {
			_, err = Open(Options{Name: "w", Bridge: bridge})
		}
	})
	if !errors.Is(err, ErrCannot) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("without the capability: %v", err)
	}
}

// The resolvers that the engine asks from within a container are exceptions, of port 53 alone, also when they change.
func TestRules_Resolvers(t *testing.T) {
	t.Parallel()
	if !faenatest.OwnNetwork(t) {
		return
	}
	write := func(text string) {
		t.Helper()
		path := t.TempDir() + "/resolv.conf"
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(path, resolvConf, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(resolvConf, unix.MNT_DETACH) })
	}
	faenatest.IP(t, "link add "+bridge+" type bridge")
	write("# none\nnameserver 127.0.0.53\nsearch example.org\n")
	r, err := Open(Options{Name: "w", Bridge: bridge})
	if err != nil {
		t.Fatal(err)
	}
	if got := nft(t, "list", "ruleset"); strings.Contains(got, "dport") {
		t.Errorf("with a resolver on loopback: %s", got)
	}
	write("nameserver 10.0.0.2\nnameserver fd00::2\nnameserver fe80::1%eth0\nnameserver nonsense\n")
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	got := nft(t, "list", "ruleset")
	for _, want := range []string{"ip daddr 10.0.0.2 udp dport 53 accept", "ip daddr 10.0.0.2 tcp dport 53 accept", "ip6 daddr fd00::2 udp dport 53 accept"} {
		if strings.Count(got, want) != 4 { // two chains of two tables
			t.Errorf("%q is not in every chain: %s", want, got)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// As many exceptions as the settings allow, each with a port, can be written, and written again.
func TestRules_ManyExceptions(t *testing.T) {
	t.Parallel()
	if !faenatest.OwnNetwork(t) {
		return
	}
	faenatest.IP(t, "link add "+bridge+" type bridge")
	o := Options{Name: "w", Bridge: bridge}
	for n := range 100 {
		a := netip.AddrFrom16([16]byte{0xfd, 15: byte(n)})
		o.Allow = append(o.Allow, Exception{Prefix: netip.PrefixFrom(a, 128), Port: service})
	}
	many := o
	for range 7 { // more than one message of the kernel takes
		many.Allow = append(many.Allow, many.Allow...)
	}
	if _, err := Open(many); err == nil || errors.Is(err, ErrCannot) {
		t.Errorf("far too many: %v", err)
	}
	if got := nft(t, "list", "tables"); got != "" {
		t.Errorf("of what could not be opened this is left: %s", got)
	}
	r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	nft(t, "flush", "ruleset")
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	if err := r.Isolate(); err == nil || !strings.Contains(err.Error(), bridge) {
		t.Errorf("without a port on the bridge: %v", err)
	}
	if got, want := strings.Count(nft(t, "list", "ruleset"), "dport 7001 accept"), 2*2*2*len(o.Allow); got != want { // protocols, chains, tables
		t.Errorf("there are %d rules for exceptions, want %d", got, want)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
