package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Rules say which registries may be reached. The zero value allows every registry with a public address, over TLS.
type Rules struct {
	Registries      []string       // host or host:port that images may come from; empty is any
	PrivateNetworks []netip.Prefix // private addresses that may be dialled
	PrivateHosts    []string       // host or host:port that may have any address
	Insecure        []string       // host or host:port that is spoken to without TLS; a loopback address may be anyway
}

// errRefused is an address, scheme or registry that the rules do not allow.
var errRefused = errors.New("not allowed by the operator")

const (
	dialTimeout     = 5 * time.Second
	headerTimeout   = 15 * time.Second
	maxAnswerBytes  = 8 << 20 // of a manifest, a configuration or a token
	maxRedirects    = 10
	maxIdleConns    = 16
	dockerHub       = "index.docker.io"
	dockerHubServer = "registry-1.docker.io"
)

// listed reports whether a list of hosts has host:port, or host for any port. Without a port it is that of HTTPS.
func listed(list []string, hostport string) bool {
	host, port := split(hostport)
	if port == "" {
		hostport = net.JoinHostPort(host, "443")
	}
	return slices.ContainsFunc(list, func(entry string) bool {
		return strings.EqualFold(entry, hostport) || strings.EqualFold(strings.Trim(entry, "[]"), host)
	})
}

// split takes host:port apart; port may be missing. An IPv6 address loses its brackets.
func split(hostport string) (host, port string) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return strings.Trim(hostport, "[]"), ""
	}
	return host, port
}

// canonical gives Docker Hub its one name.
func canonical(host string) string {
	if host == "docker.io" || host == dockerHubServer || host == "registry.hub.docker.com" {
		return dockerHub
	}
	return host
}

// allows reports whether images may come from a registry, by its name alone.
func (r *Rules) allows(host string) error {
	if len(r.Registries) == 0 {
		return nil
	}
	for _, entry := range r.Registries {
		if listed([]string{canonical(entry)}, canonical(host)) {
			return nil
		}
	}
	return fmt.Errorf("registry %s is %w: images come from %s (FAENA_REGISTRIES)", host, errRefused, strings.Join(r.Registries, ", "))
}

// AllowsHub reports whether images may come from Docker Hub.
func (r *Rules) AllowsHub() bool { return r.allows(dockerHub) == nil }

// special are the addresses that netip does not already call private, loopback, link-local or multicast, and that lead
// into a network all the same (RFC 6890).
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("fec0::/10"),
	// Addresses of IPv6 that have one of IPv4 in them, which something on the way may go on to.
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("::/96"), netip.MustParsePrefix("::ffff:0:0:0/96"),
	netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("2002::/16"),
}

// reach reports whether an address may be dialled for a host.
func (r *Rules) reach(host string, ip netip.Addr) error {
	if listed(r.PrivateHosts, host) {
		return nil
	}
	ip = ip.Unmap().WithZone("")
	for _, p := range r.PrivateNetworks {
		if p.Contains(ip) {
			return nil
		}
	}
	public := ip.IsGlobalUnicast() && !ip.IsPrivate() && !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(ip) })
	if !public {
		return fmt.Errorf("address %s of %s is private or reserved and %w (FAENA_REGISTRY_PRIVATE_HOSTS, FAENA_REGISTRY_PRIVATE_NETWORKS)", ip, host, errRefused)
	}
	return nil
}

// dial connects to host:port; each address is checked as the kernel is about to connect to it.
func (r *Rules) dial(ctx context.Context, network, hostport string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return r.reach(hostport, to.Addr())
	}}
	return d.DialContext(ctx, network, hostport)
}

// transport is the only way to a registry: it knows no proxy, and speaks plain HTTP only to where that is allowed.
func (r *Rules) transport() http.RoundTripper {
	return &guarded{rules: r, next: &http.Transport{DialContext: r.dial, TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: headerTimeout,
		MaxIdleConns: maxIdleConns, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}}
}

// guarded refuses plain HTTP and bounds answers and redirects.
type guarded struct {
	rules *Rules
	next  http.RoundTripper
}

func (g *guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !g.rules.plain(req.URL.Host) {
		return nil, fmt.Errorf("plain HTTP to %s is %w (FAENA_REGISTRY_INSECURE)", req.URL.Host, errRefused)
	}
	if redirects(req) > maxRedirects {
		return nil, fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	res, err := g.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxAnswerBytes), res.Body}
	return res, nil
}

// redirects is how many redirects led to a request. The library has a check of its own in the place of net/http's, and
// does not count.
func redirects(req *http.Request) (n int) {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
		n++
	}
	return n
}

// plain reports whether a host may be spoken to without TLS.
func (r *Rules) plain(hostport string) bool {
	host, _ := split(hostport)
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || host == "localhost" || listed(r.Insecure, hostport)
}

// Check returns an error, in words for the user, for a registry whose addresses may not be reached now. It is asked just
// before the engine's own pull, which does not dial through this package: the rest of the way a firewall must close.
func (r *Resolver) Check(ctx context.Context, host string) error {
	if err := r.rules.allows(host); err != nil {
		return err
	}
	if canonical(host) == dockerHub {
		host = dockerHubServer
	}
	if listed(r.rules.PrivateHosts, host) {
		return nil
	}
	name, _ := split(host)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return fmt.Errorf("the address of %s cannot be found: %w", host, err)
	}
	for _, ip := range ips {
		if err := r.rules.reach(host, ip); err != nil {
			return err
		}
	}
	return nil
}
