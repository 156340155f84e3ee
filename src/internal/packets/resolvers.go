package packets

import (
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Where the engine finds the resolvers of its host. Where the first has the stub of systemd-resolved, the engine reads the second.
const (
	resolvConf        = "/etc/resolv.conf"
	resolvConfSystemd = "/run/systemd/resolve/resolv.conf"
)

// port53 is DNS.
const port53 = 53

// resolvers are the exceptions that make names work. The engine's resolver, 127.0.0.11 in every container, asks those of the host
// from within the container, so their packets come over the bridge. One on the host's own loopback the engine asks from the host.
// A file that cannot be read has none.
func resolvers() (list []Exception) {
	for _, path := range []string{resolvConf, resolvConfSystemd} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if len(words) < 2 || words[0] != "nameserver" {
				continue
			}
			ip, err := netip.ParseAddr(words[1])
			if err != nil || ip.IsLoopback() || ip.IsUnspecified() || ip.Zone() != "" {
				continue
			}
			ip = ip.Unmap()
			e := Exception{Prefix: netip.PrefixFrom(ip, ip.BitLen()), Port: port53}
			if !slices.Contains(list, e) {
				list = append(list, e)
			}
		}
	}
	return list
}
