package registry

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"faena.dev/faena/internal/faena"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// Without a word of the operator only addresses of the internet are dialled, in whatever form they are written.
func TestRules_ReachPublicOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		addresses string
		public    bool
	}{
		{"Public", "1.1.1.1 8.8.8.8 93.184.216.34 100.63.255.255 100.128.0.0 172.15.255.255 172.32.0.0 192.0.1.0 198.17.255.255 198.20.0.0 223.255.255.255 2606:4700::1111 2a00::1", true},
		{"PublicInIPv6", "::ffff:8.8.8.8", true},
		{"Loopback", "127.0.0.1 127.0.0.2 127.255.255.255 ::1", false},
		{"Private", "10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 fc00::1 fd12:3456::1", false},
		{"LinkLocal", "169.254.0.1 fe80::1 fe80::1%eth0", false},
		{"Metadata", "169.254.169.254 fd00:ec2::254 100.100.100.200 192.0.0.192", false},
		{"SharedByCarriers", "100.64.0.0 100.127.255.255", false},
		{"ThisHost", "0.0.0.0 0.1.2.3 ::", false},
		{"Multicast", "224.0.0.1 239.255.255.255 ff02::1 ff0e::1", false},
		{"Reserved", "240.0.0.1 255.255.255.255 198.18.0.1 198.19.255.255 fec0::1", false},
		{"PrivateInIPv6", "::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254", false},
		{"PrivateBehindATranslator", "64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::a00:1 ::ffff:0:10.0.0.1 2002:7f00:1:: 2002:a00:1:: ::127.0.0.1 2001:0:a00:1::", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for address := range strings.FieldsSeq(c.addresses) {
				err := (&Rules{}).reach("registry.example.org:443", netip.MustParseAddr(address))
				if c.public && err != nil || !c.public && !errors.Is(err, errRefused) {
					t.Errorf("%s: %v", address, err)
				}
				if err != nil && !strings.Contains(err.Error(), "of registry.example.org:443 is private or reserved and not allowed by the operator") {
					t.Errorf("%s: the error is %v", address, err)
				}
			}
		})
	}
}

func TestRules_ReachAllowed(t *testing.T) {
	t.Parallel()
	r := &Rules{PrivateNetworks: prefixes("10.20.0.0/16", "fd00:20::/32", "127.0.0.1/32"), PrivateHosts: []string{"images.corp", "cache.corp:5000", "[::1]:5001", "10.9.9.9", "fd00:9::9"}}
	for _, c := range []struct {
		host, ip string
		allowed  bool
	}{
		{"a.example.org:443", "10.20.3.4", true},
		{"a.example.org:443", "10.21.0.1", false},
		{"a.example.org:443", "::ffff:10.20.3.4", true},
		{"a.example.org:443", "fd00:20::1", true},
		{"a.example.org:443", "fd00:21::1", false},
		{"a.example.org:443", "127.0.0.1", true},
		{"a.example.org:443", "127.0.0.2", false},
		{"images.corp:443", "192.168.1.1", true},
		{"IMAGES.corp:8443", "192.168.1.1", true},
		{"images.corp.example.org:443", "192.168.1.1", false},
		{"x.images.corp:443", "192.168.1.1", false},
		{"cache.corp:5000", "192.168.1.1", true},
		{"cache.corp:443", "192.168.1.1", false},
		{"[::1]:5001", "::1", true},
		{"[::1]:5002", "::1", false},
		{"10.9.9.9:5000", "10.9.9.9", true},
		{"[fd00:9::9]:443", "fd00:9::9", true},
		{"b.example.org:443", "10.9.9.9", false}, // the name is allowed, not whoever points to it
	} {
		if err := r.reach(c.host, netip.MustParseAddr(c.ip)); (err == nil) != c.allowed {
			t.Errorf("%s at %s: %v", c.host, c.ip, err)
		}
	}
}

// The operator can say which registries images come from; nobody else is asked anything.
func TestRules_Registries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		registries, image string
		allowed           bool
	}{
		{"registry.example.org", "registry.example.org/app", true},
		{"registry.example.org", "registry.example.org:5000/app", true},
		{"registry.example.org:5000", "registry.example.org:5000/app", true},
		{"registry.example.org:5000", "registry.example.org/app", false},
		{"registry.example.org:443", "registry.example.org/app", true},
		{"registry.example.org", "registry.example.org:443/app", true},
		{"Registry.Example.org", "registry.example.org/app", true},
		{"registry.example.org", "registry.example.org.evil.example/app", false},
		{"registry.example.org", "evil.example/registry.example.org/app", false},
		{"registry.example.org", "alpine", false},
		{"docker.io", "alpine", true},
		{"docker.io", "index.docker.io/library/alpine", true},
		{"docker.io", "registry-1.docker.io/library/alpine", true},
		{"index.docker.io", "docker.io/library/alpine", true},
		{"docker.io", "ghcr.io/app", false},
		{"10.0.0.5:5000 ghcr.io", "10.0.0.5:5000/app", true},
		{"10.0.0.5:5000 ghcr.io", "10.0.0.5:5001/app", false},
		{"[::1]:5000", "[::1]:5000/app", true},
	} {
		r := NewResolver(Rules{Registries: strings.Fields(c.registries)})
		_, err := r.parse(c.image)
		if c.allowed && err == nil {
			continue
		}
		if c.allowed || err == nil {
			t.Errorf("%s: %s is %v", c.registries, c.image, err)
			continue
		}
		refusal(t, err, faena.KindInvalid, "image_refused", "is not allowed by the operator: images come from "+strings.Join(strings.Fields(c.registries), ", "))
		if _, err := r.Resolve(t.Context(), c.image, creds, arch); !faena.IsKind(err, faena.KindInvalid) {
			t.Errorf("%s: %s is resolved: %v", c.registries, c.image, err)
		}
		host, _, _ := strings.Cut(c.image, "/")
		if host != c.image && r.Check(t.Context(), host) == nil {
			t.Errorf("%s: %s may be pulled", c.registries, c.image)
		}
	}
}

func TestRules_Plain(t *testing.T) {
	t.Parallel()
	r := &Rules{Insecure: []string{"old.corp", "older.corp:5000"}, PrivateNetworks: prefixes("10.0.0.0/8")}
	for hostport, want := range map[string]bool{"127.0.0.1:5000": true, "127.9.9.9": true, "localhost:5000": true, "localhost": true, "[::1]:5000": true,
		"[::ffff:127.0.0.1]:80": true, "old.corp": true, "old.corp:80": true, "older.corp:5000": true, "older.corp": false, "10.0.0.5:5000": false,
		"192.168.1.1": false, "registry.local": false, "registry.localhost": false, "localhost.example.org": false, "127.0.0.1.example.org": false, "registry.example.org": false} {
		if got := r.plain(hostport); got != want {
			t.Errorf("%s: %v", hostport, got)
		}
	}
}

// Just before the engine's own pull addresses are looked at again.
func TestResolver_Check(t *testing.T) {
	t.Parallel()
	r := NewResolver(Rules{PrivateHosts: []string{"cache.corp:5000", "images.corp:443", "127.0.0.1:5001"}, PrivateNetworks: prefixes("10.20.0.0/16", "fd00:20::/32")})
	for host, allowed := range map[string]bool{"8.8.8.8": true, "8.8.8.8:5000": true, "[2606:4700::1111]:5000": true, "[2606:4700::1111]": true,
		"127.0.0.1": false, "127.0.0.1:5000": false, "127.0.0.1:5001": true, "localhost:5000": false, "localhost:5001": false, "[::1]:5000": false, "10.20.1.1": true, "10.21.1.1:80": false,
		"[fd00:20::1]:5000": true, "[fd00:21::1]:5000": false, "169.254.169.254": false, "[::ffff:127.0.0.1]:5000": false, "cache.corp:5000": true, "images.corp": true} {
		if err := r.Check(t.Context(), host); (err == nil) != allowed {
			t.Errorf("%s: %v", host, err)
		} else if err != nil && !strings.Contains(err.Error(), "not allowed by the operator") {
			t.Errorf("%s: the error is %v", host, err)
		}
	}
}

// What is pulled is named as the engine names it, so that it finds it again.
func TestFamiliar(t *testing.T) {
	t.Parallel()
	for repository, want := range map[string]string{"index.docker.io/library/alpine": "alpine", "index.docker.io/me/app": "me/app", "index.docker.io/library/a/b": "library/a/b",
		"ghcr.io/library/app": "ghcr.io/library/app", "127.0.0.1:5000/app": "127.0.0.1:5000/app", "index.docker.io.example.org/app": "index.docker.io.example.org/app"} {
		if got := familiar(repository); got != want {
			t.Errorf("%s is %s, want %s", repository, got, want)
		}
	}
}
