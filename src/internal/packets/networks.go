package packets

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// fewestBits is the shortest prefix that is taken for a network beside the host. What is shorter is a way to everything.
const fewestBits = 8

// networks are those that the host has an address in, where they are of the internet: what is beside it is behind it, and not for
// functions. The caller holds mu.
func (r *Rules) networks() ([]netip.Prefix, error) {
	for range maxDumps {
		answer, err := r.links.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETADDR, Flags: netlink.Request | netlink.Dump},
			Data: make([]byte, unix.SizeofIfAddrmsg)})
		if err != nil {
			return nil, fmt.Errorf("list the addresses of this host: %w", err)
		}
		if !slices.ContainsFunc(answer, func(m netlink.Message) bool { return m.Header.Flags&netlink.DumpInterrupted != 0 }) {
			return networksIn(answer)
		}
	}
	return nil, errors.New("list the addresses of this host: they changed all the time")
}

func networksIn(answer []netlink.Message) (list []netip.Prefix, err error) {
	for _, m := range answer {
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		d, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfAddrmsg:])
		if err != nil {
			return nil, err
		}
		for d.Next() {
			if d.Type() != unix.IFA_ADDRESS { // where the other end of a cable has one of its own, that
				continue
			}
			if a, ok := netip.AddrFromSlice(d.Bytes()); ok {
				p := netip.PrefixFrom(a, int(m.Data[1])).Masked()
				if p.Bits() >= fewestBits && !p.IsSingleIP() && !denied(p) && !slices.Contains(list, p) {
					list = append(list, p)
				}
			}
		}
		if err := d.Err(); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return list, nil
}

// denied reports whether a network is denied whoever is in it.
func denied(p netip.Prefix) bool {
	within := func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }
	if p.Addr().Is4() {
		return slices.ContainsFunc(denied4, within)
	}
	return slices.ContainsFunc(denied6, within) || !slices.ContainsFunc(allowed6, within)
}
