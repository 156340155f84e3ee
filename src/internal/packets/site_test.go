package packets

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

const bridge = "faena-test"

// The addresses of the test. Everything is in namespaces of the test: no packet leaves this machine, whatever it is addressed to.
var (
	gateway = addresses("172.30.0.1", "fd30::1")   // of the bridge
	caller  = addresses("172.30.0.2", "fd30::2")   // of the container that calls
	other   = addresses("172.30.0.3", "fd30::3")   // of another one
	ours    = addresses("10.77.0.1", "fd77::1")    // of the host, on another interface
	public  = addresses("52.77.0.1", "2600:77::1") // of the host, in the internet
	remote  = addresses("198.18.1.1", "fd18::1")   // of the host, on the way to all others
	far     = addresses("198.18.1.2", "fd18::2")   // of the host where all others are
	link    = addresses("54.77.1.1", "2600:54::1") // of the host, in a network with addresses of the internet
	beside  = addresses("54.77.1.2", "2600:54::2") // in that network
	servers = addresses("52.1.2.3", "2600:1:2::3") // in the internet
	private = addresses("10.1.2.3", "100.64.3.4", "169.254.169.254", "168.63.129.16", "172.16.4.5", "192.0.0.8", "192.168.5.6", "198.51.100.7", "fc00:1::1", "fd00:ec2::254",
		"2001:db8::1", "2002:a01:203::1", "64:ff9b::a01:203", "64:ff9b::a9fe:a9fe", "100::1", "fec0::1")
	excepted = addresses("10.9.9.9", "fd09::9")
	opened   = addresses("10.9.8.8", "fd09:8::8") // at service alone
)

const service, otherPort = 7001, 7002

func addresses(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// site is a host (the namespace of the process) with a bridge, two containers and a cable to where everything else is.
type site struct {
	t                *testing.T
	from, next, away *faenatest.Host
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, from: faenatest.NewHost(t), next: faenatest.NewHost(t), away: faenatest.NewHost(t)}
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		faenatest.Sysctl(t, name, "1")
	}
	for _, name := range []string{"net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"} {
		faenatest.Sysctl(t, name, "0") // each refusal is answered
	}
	for _, name := range []string{"all", "default"} { // as loose as can be
		faenatest.Sysctl(t, "net/ipv4/conf/"+name+"/rp_filter", "0")
	}
	faenatest.IP(t, "link add "+bridge+" type bridge forward_delay 0 mcast_snooping 0")
	faenatest.IP(t, "link set "+bridge+" up")
	give(gateway, func(a string) { faenatest.IP(t, "address add "+a+" dev "+bridge) }, 24, 64)
	s.container(s.from, "port1", caller)
	s.container(s.next, "port2", other)
	s.away.Join("away")
	give(remote, func(a string) { faenatest.IP(t, "address add "+a+" dev away") }, 24, 64)
	give(link, func(a string) { faenatest.IP(t, "address add "+a+" dev away") }, 24, 64)
	give(slices.Concat(far, beside), func(a string) { s.away.IP("address add " + a + " dev eth0") }, 24, 64)
	for _, a := range remote {
		s.away.IP("route add default via " + a.String())
	}
	faenatest.IP(t, "link add extra type bridge")
	faenatest.IP(t, "link set extra up")
	give(slices.Concat(ours, public), func(a string) { faenatest.IP(t, "address add "+a+" dev extra") }, 32, 128)
	there := slices.Concat(servers, private, excepted, opened)
	give(there, func(a string) { s.away.IP("address add " + a + " dev eth0") }, 32, 128)
	for _, a := range there {
		faenatest.IP(t, "route add "+a.String()+" dev away")
	}
	s.serve(func(f func()) { f() }, gateway, ours, public, remote, link)
	s.serve(s.next.Do, other)
	s.serve(s.away.Do, far, beside, there)
	return s
}

func give(list []netip.Addr, to func(string), bits4, bits6 int) {
	for _, a := range list {
		if a.Is4() {
			to(fmt.Sprintf("%s/%d", a, bits4))
		} else {
			to(fmt.Sprintf("%s/%d nodad", a, bits6))
		}
	}
}

func (s *site) container(h *faenatest.Host, name string, list []netip.Addr) {
	s.t.Helper()
	h.Join(name)
	faenatest.IP(s.t, "link set "+name+" master "+bridge)
	give(list, func(a string) { h.IP("address add " + a + " dev eth0") }, 24, 64)
	for _, a := range gateway {
		h.IP("route add default via " + a.String())
	}
}

// serve answers at both ports of all addresses, by TCP and UDP.
func (s *site) serve(in func(func()), lists ...[]netip.Addr) {
	s.t.Helper()
	for _, a := range slices.Concat(lists...) {
		for _, p := range []uint16{service, otherPort} {
			at := netip.AddrPortFrom(a, p).String()
			var l net.Listener
			var c net.PacketConn
			var err, errUDP error
			in(func() { l, err = net.Listen("tcp", at); c, errUDP = net.ListenPacket("udp", at) })
			if err != nil || errUDP != nil {
				s.t.Fatal(err, errUDP)
			}
			s.t.Cleanup(func() { _, _ = l.Close(), c.Close() })
			go acceptAll(l)
			go echo(c)
		}
	}
}

func acceptAll(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

func echo(c net.PacketConn) {
	b := make([]byte, 64)
	for {
		n, who, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(b[:n], who)
	}
}

// patience is how long an answer may take that is expected.
const patience = 30 * time.Second

// reaches tries an address from the container, and waits long for an answer only where one is expected.
func (s *site) reaches(network string, to netip.AddrPort, expected bool) (reached bool, why error) {
	wait := 150 * time.Millisecond
	if expected {
		wait = patience
	}
	s.from.Do(func() {
		conn, err := (&net.Dialer{Timeout: wait}).Dial(network, to.String())
		if err != nil {
			why = err
			return
		}
		defer func() { _ = conn.Close() }()
		if network == "tcp" {
			reached = true
			return
		}
		_ = conn.SetDeadline(time.Now().Add(wait))
		if _, why = conn.Write([]byte("ping")); why == nil {
			_, why = conn.Read(make([]byte, 8))
		}
		reached = why == nil
	})
	return reached, why
}

// expect checks what the container reaches.
func (s *site) expect(t *testing.T, want bool, lists ...[]netip.Addr) {
	t.Helper()
	for _, a := range slices.Concat(lists...) {
		s.expectPort(t, want, netip.AddrPortFrom(a, service))
	}
}

func (s *site) expectPort(t *testing.T, want bool, to netip.AddrPort) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		if got, why := s.reaches(network, to, want); got != want {
			t.Errorf("%s to %s: reached is %v, want %v (%v)", network, to, got, want, why)
		}
	}
}

// filtered checks all that holds while rules are in force.
func (s *site) filtered(t *testing.T) {
	t.Helper()
	s.expect(t, true, servers, excepted, opened)
	s.expect(t, false, gateway, ours, public, remote, link, far, beside, private, other, []netip.Addr{s.linkLocal(t, false), s.linkLocal(t, true)})
	for _, a := range opened {
		s.expectPort(t, false, netip.AddrPortFrom(a, otherPort))
	}
}

// linkLocal is an address of the host on the bridge, or of the other container.
func (s *site) linkLocal(t *testing.T, container bool) (found netip.Addr) {
	t.Helper()
	name, in := bridge, func(f func()) { f() }
	if container {
		name, in = "eth0", s.next.Do
	}
	in(func() {
		i, err := net.InterfaceByName(name)
		if err != nil {
			t.Error(err)
			return
		}
		list, _ := i.Addrs()
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsLinkLocalUnicast() {
				found = p.Addr().WithZone("eth0")
			}
		}
	})
	if !found.IsValid() {
		t.Fatalf("%s has no link-local address", name)
	}
	return found
}

func nft(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

// serveLinkLocal answers at the link-local addresses too.
func (s *site) serveLinkLocal(t *testing.T) {
	t.Helper()
	for _, container := range []bool{false, true} {
		zone, in := bridge, func(f func()) { f() }
		if container {
			zone, in = "eth0", s.next.Do
		}
		var at netip.Addr
		faenatest.Eventually(t, patience, "the link-local address can be used", func() bool {
			at = s.linkLocal(t, container).WithZone(zone)
			var err error
			in(func() {
				var l net.Listener
				if l, err = net.Listen("tcp", netip.AddrPortFrom(at, 1).String()); err == nil {
					_ = l.Close()
				}
			})
			return err == nil
		})
		s.serve(in, []netip.Addr{at})
	}
}
