package packets

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// chain is one of a table. Without a hook it is one that other chains jump to.
type chain struct {
	name  string
	hook  *nftables.ChainHook
	rules []rule
}

// write puts the rules of both tables into force, for a host with these resolvers and networks, each table at once. The caller holds mu.
func (r *Rules) write(resolvers []Exception, networks []netip.Prefix) error {
	allow := slices.Concat(resolvers, r.o.Allow)
	chains := []chain{{refusing, nil, refuse}, {"forward", nftables.ChainHookForward, forward(r.o.Bridge, allow, networks)},
		{"input", nftables.ChainHookInput, input(r.o.Bridge, allow)}}
	for _, t := range []*nftables.Table{r.owned, r.left} {
		if t == r.left {
			r.tables.AddTable(t)
		}
		for _, c := range chains {
			r.add(t, c)
		}
		if err := r.tables.Flush(); err != nil {
			return fmt.Errorf("write the rules of the nftables table %s: %w", t.Name, explain(err))
		}
	}
	r.resolvers, r.beside, r.chains = resolvers, networks, chains
	return nil
}

// whole reports whether the table that anybody may change has as many rules as were written. The caller holds mu.
func (r *Rules) whole() (bool, error) {
	for _, c := range r.chains {
		list, err := r.tables.GetRules(r.left, &nftables.Chain{Name: c.name, Table: r.left})
		if err != nil {
			return false, fmt.Errorf("list the rules of the nftables table %s: %w", r.left.Name, err)
		}
		if len(list) != len(c.rules) {
			return false, nil
		}
	}
	return true, nil
}

// add makes a chain of its rules alone. A packet that they accept goes on to the host's own rules.
func (r *Rules) add(t *nftables.Table, of chain) {
	c := &nftables.Chain{Name: of.name, Table: t}
	if of.hook != nil {
		accept := nftables.ChainPolicyAccept
		c.Type, c.Hooknum, c.Priority, c.Policy = nftables.ChainTypeFilter, of.hook, nftables.ChainPriorityFilter, &accept
	}
	r.tables.AddChain(c)
	r.tables.FlushChain(c)
	for _, e := range of.rules {
		r.tables.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: e})
	}
}

// rule is what a packet must be and, at its end, what becomes of it.
type rule []expr.Any

func when(parts ...rule) rule { return slices.Concat(parts...) }

// forward is for what the host passes on. deny is what is denied here besides what is denied everywhere.
func forward(bridge string, allow []Exception, deny []netip.Prefix) []rule {
	from, to := is(expr.MetaKeyIIFNAME, ifName(bridge)), is(expr.MetaKeyOIFNAME, ifName(bridge))
	list := []rule{
		when(from, to, drop), // other containers, by way of the gateway
		when(to, established, accept),
		when(to, drop), // nobody calls a container
		when(isNot(expr.MetaKeyIIFNAME, ifName(bridge)), accept),
		when(noRouteBack, drop),
		when(established, accept),
	}
	list = append(list, exceptions(allow)...)
	for _, p := range slices.Concat(denied4, denied6, deny) {
		list = append(list, when(destination(p), reject))
	}
	list = append(list, when(is(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4}), accept))
	for _, p := range allowed6 {
		list = append(list, when(destination(p), accept))
	}
	return append(list, reject)
}

// input is for what is meant for the host, at any of its addresses.
func input(bridge string, allow []Exception) []rule {
	list := []rule{
		when(isNot(expr.MetaKeyIIFNAME, ifName(bridge)), accept),
		// Who is where on the bridge, without which no IPv6 leaves it.
		when(neighbour(icmpSolicitation), accept),
		when(neighbour(icmpAdvertisement), accept),
		when(noRouteBack, drop),
		when(established, accept),
	}
	for _, e := range allow {
		if e.Prefix.IsSingleIP() { // a network does not mean the host that is in it
			list = append(list, exceptions([]Exception{e})...)
		}
	}
	return append(list, reject)
}

func exceptions(list []Exception) (rules []rule) {
	for _, e := range list {
		if e.Port == 0 {
			rules = append(rules, when(destination(e.Prefix), accept))
			continue
		}
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			rules = append(rules, when(destination(e.Prefix), is(expr.MetaKeyL4PROTO, []byte{protocol}),
				field(expr.PayloadBaseTransportHeader, 2, binary.BigEndian.AppendUint16(nil, e.Port)), accept))
		}
	}
	return rules
}

// refusing is the chain that answers what is denied.
const refusing = "refuse"

// What becomes of a packet. One that is rejected is answered, so that a program that tries need not wait for its time-out.
var (
	accept = rule{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop   = rule{&expr.Verdict{Kind: expr.VerdictDrop}}
	reject = rule{&expr.Verdict{Kind: expr.VerdictJump, Chain: refusing}}
)

// refuse answers TCP with a reset, which ends a connect in any case: an ICMP message comes too early where the packet has not left
// the machine, and is limited to one a second.
var refuse = []rule{
	when(is(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_TCP}), rule{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}),
	{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}},
}

// established is a packet of a connection, or about one, whose first packet was let go.
var established = rule{
	&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
	&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Xor: make([]byte, 4),
		Mask: nativeEndian.AppendUint32(nil, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)},
	&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
}

// noRouteBack is a packet whose source is not on the interface that it came by: a forged one. Without this one could be taken for
// a part of a connection of the host's, such as the answer of its resolver.
var noRouteBack = rule{
	&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
	&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
}

// Types of ICMPv6.
const (
	icmpSolicitation  = 135
	icmpAdvertisement = 136
)

// neighbour is a packet of the discovery of neighbours, which no router has passed on.
func neighbour(kind byte) rule {
	const hopLimit = 7 // its place in the header of IPv6
	return when(is(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV6}), is(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_ICMPV6}),
		field(expr.PayloadBaseTransportHeader, 0, []byte{kind}), field(expr.PayloadBaseNetworkHeader, hopLimit, []byte{255}))
}

// destination is a packet to a network.
func destination(p netip.Prefix) rule {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(16)
	if p.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, 24
	}
	address := p.Masked().Addr().AsSlice()
	return when(is(expr.MetaKeyNFPROTO, []byte{family}), rule{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(address))},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(address)), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
			Xor: make([]byte, len(address))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: address},
	})
}

func field(base expr.PayloadBase, offset uint32, data []byte) rule {
	return rule{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: uint32(len(data))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

func is(key expr.MetaKey, data []byte) rule {
	return rule{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

func isNot(key expr.MetaKey, data []byte) rule {
	return rule{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: data}}
}

// ifName is an interface's name as the kernel compares it.
func ifName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b[:unix.IFNAMSIZ-1], name)
	return b
}
