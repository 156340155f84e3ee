package packets

import "net/netip"

// denied4 is what is not the internet in IPv4: private, shared and special networks (RFC 6890 and its registry), multicast, and
// what is reserved; and the address by which Azure gives its machines certificates and settings. It is Azure's resolver too, which
// stays open where the host has it.
var denied4 = prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
	"240.0.0.0/4")

// nat64 are addresses that a translator makes IPv4 addresses of.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// allowed6 is the internet in IPv6, without denied6. All that is private, link-local or multicast is outside.
var allowed6 = append(prefixes("2000::/3"), nat64)

// denied6 is what is special within allowed6: tunnels that carry any IPv4 address, documentation, benchmarks, and, of nat64, what
// is denied in IPv4.
var denied6 = append(prefixes("2001::/32", "2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:db8::/32", "2002::/16", "3fff::/20"),
	translated(denied4)...)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// translated are IPv4 prefixes as addresses of nat64.
func translated(list []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		b, v4 := nat64.Addr().As16(), p.Addr().As4()
		copy(b[12:], v4[:])
		out = append(out, netip.PrefixFrom(netip.AddrFrom16(b), nat64.Bits()+p.Bits()))
	}
	return out
}
