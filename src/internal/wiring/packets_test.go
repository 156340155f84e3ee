package wiring_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/dockerengine"
	"faena.dev/faena/internal/faenatest"
)

// Where everything is in the network of this test. No packet leaves the machine, whatever it is addressed to.
var (
	containers = []string{"172.31.77.0/24", "fd31:77::/64"}
	// What a function must not reach: the host by the bridge's address and by others, what is private, and the metadata address.
	onHost    = []string{"172.31.77.1", "fd31:77::1", "10.77.0.1", "192.168.77.1", "fd77::1", "52.77.0.1"}
	elsewhere = []string{"10.1.2.3", "172.16.4.5", "192.168.5.6", "100.64.7.8", "169.254.169.254", "fd00:ec2::254", "fc00:1::1", "168.63.129.16"}
	// What it reaches: the internet, and the exceptions.
	internet   = []string{"52.1.2.3", "2600:1:2::3"}
	exceptions = []string{"10.9.9.9", "fd09::9"}
)

const (
	nameServer  = "10.53.0.53" // of the host, a private address
	known       = "db.example.org"
	servicePort = 7001
)

// world is a host (the network of this process) with an engine of its own, and another host, where all other addresses are.
type world struct {
	t      *testing.T
	engine *faenatest.OwnEngine
	away   *faenatest.Host
	began  int64    // the engine's last start, in seconds of Unix time
	forged sync.Map // where a packet with a forged source arrived
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, away: faenatest.NewHost(t)}
	w.away.Join("away")
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		faenatest.Sysctl(t, name, "1")
	}
	for _, link := range [][2]string{{"198.18.1.1/24", "198.18.1.2/24"}, {"fd18::1/64", "fd18::2/64"}} {
		faenatest.IP(t, "address add "+link[0]+" dev away nodad")
		w.away.IP("address add " + link[1] + " dev eth0 nodad")
		w.away.IP("route add default via " + netip.MustParsePrefix(link[0]).Addr().String())
	}
	there := slices.Concat(elsewhere, internet, exceptions, []string{nameServer})
	for _, a := range there {
		w.away.IP("address add " + a + " dev eth0 nodad")
		faenatest.IP(t, "route add "+a+" dev away")
	}
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver "+nameServer+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(path, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH) })
	w.engine = faenatest.NewEngine(t)
	network := config.DefaultUp().Engine.Network
	var ranges []map[string]string
	for _, c := range containers {
		ranges = append(ranges, map[string]string{"Subnet": c})
	}
	faenatest.Engine(t).Post(t, "/networks/create", map[string]any{"Name": network, "Driver": "bridge", "EnableIPv6": true,
		"IPAM": map[string]any{"Config": ranges}, "Options": map[string]string{"com.docker.network.bridge.enable_icc": "false",
			"com.docker.network.bridge.name": dockerengine.BridgeName(network)}}, nil)
	for _, a := range onHost[2:] {
		faenatest.IP(t, "address add "+a+" dev lo nodad")
	}
	here := func(f func()) { f() }
	w.serve(here, "::") // all of the host's
	w.serve(w.away.Do, there...)
	w.away.Do(func() { w.serveNames() })
	return w
}

// serve answers at addresses by TCP and UDP.
func (w *world) serve(in func(func()), addresses ...string) {
	w.t.Helper()
	for _, a := range addresses {
		at := net.JoinHostPort(a, fmt.Sprint(servicePort))
		var l net.Listener
		var c net.PacketConn
		var err, errUDP error
		in(func() { l, err = net.Listen("tcp", at); c, errUDP = net.ListenPacket("udp", at) })
		if err != nil || errUDP != nil {
			w.t.Fatal(err, errUDP)
		}
		w.t.Cleanup(func() { _, _ = l.Close(), c.Close() })
		go func() {
			b := make([]byte, 64)
			for {
				n, who, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				if string(b[:n]) == "forged" {
					w.forged.Store(a, who.String())
				}
				_, _ = c.WriteTo(b[:n], who)
			}
		}()
	}
}

// serveNames is a name server that says of every name that it is in the internet.
func (w *world) serveNames() {
	c, err := net.ListenPacket("udp", nameServer+":53")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	address := netip.MustParseAddr(internet[0]).As4()
	go func() {
		b := make([]byte, 512)
		for {
			n, who, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			end := 12 + strings.IndexByte(string(b[12:n]), 0) + 5 // of the question
			answer := append([]byte{}, b[:end]...)
			copy(answer[2:], []byte{0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0})
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
			_, _ = c.WriteTo(append(answer, address[:]...), who)
		}
	}()
}

// restart stops the engine, and so every container, and starts it again.
func (w *world) restart() {
	w.engine.Stop()
	w.began = time.Now().Unix()
	w.engine.Start()
}

// sweep removes the containers from before the engine's last start, as the worker does each minute.
func (w *world) sweep(t *testing.T) {
	d := faenatest.Engine(t)
	var list []struct {
		Id      string //nolint:revive // the engine's spelling
		Created int64
	}
	d.Get(t, "/containers/json?all=1", &list)
	for _, c := range list {
		if c.Created <= w.began {
			d.Delete(t, "/containers/"+c.Id+"?force=1&v=1")
		}
	}
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", program, args, err, out)
	}
	return string(out)
}

// TestPackets: what a function reaches, by real packets, in a network and with an engine of its own.
func TestPackets(t *testing.T) {
	t.Parallel()
	if !faenatest.OwnNetwork(t) {
		return
	}
	w := newWorld(t)
	t.Cleanup(func() { // after the appliance has stopped
		if tables := run(t, "nft", "list", "tables"); strings.Contains(tables, "faena-") {
			t.Errorf("these tables are left: %s", tables)
		}
	})
	i := install(t, func(c *config.Up) {
		if err := c.Worker.Allow.Decode(fmt.Sprintf("%s:%d,[%s]:%d", exceptions[0], servicePort, exceptions[1], servicePort)); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { w.sweep(t) }) // before the appliance stops
	w.deploy(t, i)
	neighbours := w.neighbour(t, i)
	check := func(t *testing.T) {
		t.Helper()
		for _, isolation := range []client.Isolation{client.IsolationReuse, client.IsolationFresh} {
			w.reaches(t, i, string(isolation), neighbours)
		}
	}
	t.Run("at first", check)
	t.Run("nft flush ruleset", func(t *testing.T) {
		run(t, "nft", "flush", "ruleset")
		check(t)
	})
	t.Run("bridge-nf-call 0", func(t *testing.T) {
		faenatest.Sysctl(t, "net/bridge/bridge-nf-call-iptables", "0")
		faenatest.Sysctl(t, "net/bridge/bridge-nf-call-ip6tables", "0")
		check(t)
	})
	t.Run("the engine starts again", func(t *testing.T) {
		w.restart()
		faenatest.EventuallyNil(t, 30*time.Second, "the worker takes activations", func() error {
			_, err := activate(t.Context(), i.admin, "reuse", []byte("1"))
			return err
		})
		neighbours = w.neighbour(t, i)
		check(t)
	})
	t.Run("another network of the name", func(t *testing.T) {
		w.testReplacedNetwork(t, i)
	})
}

// deploy deploys the probe in both modes of isolation, and one that serves.
func (w *world) deploy(t *testing.T, i *installation) {
	t.Helper()
	program, err := os.ReadFile(faenatest.CProgram(t, filepath.Join("testdata", "probe.c")))
	if err != nil {
		t.Fatal(err)
	}
	image := i.push(t, "probe", faenatest.ImageSpec{Bare: true, Entrypoint: []string{"/probe"}, Files: []faenatest.File{{Path: "/probe", Data: program}}})
	for name, isolation := range map[string]client.Isolation{"reuse": client.IsolationReuse, "fresh": client.IsolationFresh, "serve": client.IsolationReuse} {
		mode := "probe"
		if name == "serve" {
			mode = "serve"
		}
		i.deploy(t, i.admin, name, func(s *client.Spec) { s.Image, s.Isolation = image, isolation }, mode)
	}
}

// neighbour starts another container, and returns its addresses.
func (w *world) neighbour(t *testing.T, i *installation) (addresses []string) {
	t.Helper()
	id := async(t, i.admin, "serve", fmt.Sprint(servicePort))
	t.Cleanup(func() {
		_, _ = client.Read[client.Activation](i.admin.CancelActivation(context.WithoutCancel(t.Context()), id)) // an engine that stopped has ended it
	})
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	said := ""
	_, _ = i.admin.FollowLogs(ctx, id, 0, func(p []byte) error { // ends when its first line is there
		if said += string(p); strings.Contains(said, "\n") {
			stop()
		}
		return nil
	})
	if addresses = strings.Fields(said); len(addresses) < 2 {
		t.Fatalf("the neighbour says %q", said)
	}
	return addresses
}

// reaches checks what a function reaches.
func (w *world) reaches(t *testing.T, i *installation, function string, neighbours []string) {
	t.Helper()
	both := func(addresses ...string) (what []string) {
		for _, a := range addresses {
			what = append(what, fmt.Sprintf("tcp/%s/%d", a, servicePort), fmt.Sprintf("udp/%s/%d", a, servicePort))
		}
		return what
	}
	open := append(both(slices.Concat(internet, exceptions)...), "dns/"+known)
	faenatest.EventuallyNil(t, 30*time.Second, function+" reaches what it may", func() error {
		out, err := activate(t.Context(), i.admin, function, []byte("3000 "+strings.Join(open, " ")))
		if err != nil {
			return err
		}
		for n, got := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			want := "reached"
			if strings.HasPrefix(open[n], "dns") {
				want = internet[0]
			}
			if got != want {
				return fmt.Errorf("%s: %s", open[n], got) // an address of IPv6 cannot be used in its first moments
			}
		}
		return nil
	})
	shut := append(both(slices.Concat(onHost, elsewhere, neighbours, w.linkLocal(t))...),
		"tcp/"+nameServer+fmt.Sprintf("/%d", servicePort), "tcp/"+exceptions[0]+"/53")
	for n, got := range strings.Split(strings.TrimSpace(must(t, i.admin, function, "150 "+strings.Join(shut, " "))), "\n") {
		if got == "reached" || got == "" {
			t.Errorf("%s: %s: %q", function, shut[n], got)
		}
	}
	// In IPv4 no function may forge a source, in IPv6 everybody may: nothing arrives, not even where everything else may go.
	var forged []string
	for n, source := range []string{internet[0], internet[1]} {
		for _, to := range []string{onHost[n], elsewhere[map[int]int{0: 0, 1: 5}[n]], internet[n]} {
			forged = append(forged, fmt.Sprintf("raw/%s/%s/%d", source, to, servicePort))
		}
	}
	for n, got := range strings.Split(strings.TrimSpace(must(t, i.admin, function, "300 "+strings.Join(forged, " "))), "\n") {
		if want := map[bool]string{true: "sent", false: "Operation not permitted"}[strings.Count(forged[n], ":") > 2]; got != want {
			t.Errorf("%s: %s: %q, want %q", function, forged[n], got, want)
		}
	}
	must(t, i.admin, function, "3000 "+strings.Join(both(internet...), " ")) // what was sent before has arrived
	w.forged.Range(func(at, from any) bool {
		t.Errorf("%s: a forged packet from %v arrived at %v", function, from, at)
		return true
	})
}

// linkLocal is the bridge's own address of that kind.
func (w *world) linkLocal(t *testing.T) (addresses []string) {
	t.Helper()
	bridge, err := net.InterfaceByName(dockerengine.BridgeName(config.DefaultUp().Engine.Network))
	if err != nil {
		t.Fatal(err)
	}
	list, err := bridge.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsLinkLocalUnicast() {
			addresses = append(addresses, p.Addr().String())
		}
	}
	return addresses
}

// testReplacedNetwork puts another network into the place of Faena's: one whose bridge no rule knows. Where the worker makes its own
// again at the same moment, the engine has two of the name, which is no better: it starts no container then.
func (w *world) testReplacedNetwork(t *testing.T, i *installation) {
	name := config.DefaultUp().Engine.Network
	w.restart() // so that no container uses it
	docker := func(args ...string) (string, error) {
		out, err := exec.Command("docker", append([]string{"--host", w.engine.Host, "network"}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	var other string
	faenatest.EventuallyNil(t, 30*time.Second, "another network stands in its place", func() error {
		if have, err := docker("ls", "--quiet", "--filter", "name=^"+name+"$"); err != nil || have != "" {
			if _, err = docker(append([]string{"rm"}, strings.Fields(have)...)...); err != nil {
				return err
			}
		}
		var err error
		other, err = docker("create", name) // fails where the worker was faster
		return err
	})
	notReady := func(want bool) {
		t.Helper()
		faenatest.EventuallyNil(t, 30*time.Second, fmt.Sprintf("the worker is not ready: %v", want), func() error {
			list, err := client.Read[client.WorkerList](i.admin.ListWorkers(t.Context()))
			if err == nil && (len(list.Items) != 1 || strings.Contains(list.Items[0].NotReady, "not Faena's") != want || list.Items[0].Ready == want) {
				err = fmt.Errorf("the workers are %+v", list.Items)
			}
			return err
		})
	}
	notReady(true)
	run(t, "docker", "--host", w.engine.Host, "network", "rm", other)
	notReady(false)
	if got := must(t, i.admin, "reuse", fmt.Sprintf("300 tcp/%s/%d tcp/%s/%d", internet[0], servicePort, onHost[2], servicePort)); got != "reached\nConnection refused\n" {
		t.Errorf("on the network that the worker made again: %q", got)
	}
}
