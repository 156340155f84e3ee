package packets

import (
	"errors"
	"fmt"
	"net"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ifInfo is the length of an ifinfomsg, which begins every message about an interface.
const ifInfo = unix.SizeofIfInfomsg

// port is one of a bridge.
type port struct {
	index    uint32
	isolated bool
}

// isolate isolates the ports of the bridge that are not: an isolated one exchanges frames with the host, and with no other isolated
// one. It returns how many there are. The caller holds mu.
func (r *Rules) isolate() (int, error) {
	bridge, err := net.InterfaceByName(r.o.Bridge)
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w", errNoBridge, r.o.Bridge, err)
	}
	ports, err := r.ports(bridge.Index)
	if err != nil {
		return 0, fmt.Errorf("list the ports of the bridge %s: %w", r.o.Bridge, err)
	}
	for _, p := range ports {
		if p.isolated {
			continue
		}
		if err := r.isolatePort(p); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
			return 0, fmt.Errorf("isolate a port of the bridge %s: %w", r.o.Bridge, err)
		}
	}
	return len(ports), nil
}

func (r *Rules) isolatePort(p port) error {
	e := netlink.NewAttributeEncoder()
	e.Nested(unix.IFLA_PROTINFO, func(e *netlink.AttributeEncoder) error {
		e.Uint8(unix.IFLA_BRPORT_ISOLATED, 1)
		return nil
	})
	attributes, err := e.Encode()
	if err != nil {
		return err
	}
	_, err = r.links.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_SETLINK, Flags: netlink.Request | netlink.Acknowledge},
		Data: append(infoOf(unix.AF_BRIDGE, p.index), attributes...)})
	return err
}

// skipStats is RTEXT_FILTER_SKIP_STATS: counters are not needed here.
const skipStats = 1 << 3

// maxDumps is how often a list that changed while it was read is read again.
const maxDumps = 100

func (r *Rules) ports(bridge int) ([]port, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(unix.IFLA_MASTER, uint32(bridge)) // only its ports
	e.Uint32(unix.IFLA_EXT_MASK, skipStats)
	attributes, err := e.Encode()
	if err != nil {
		return nil, err
	}
	for range maxDumps {
		answer, err := r.links.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
			Data: append(infoOf(unix.AF_UNSPEC, 0), attributes...)})
		if err != nil {
			return nil, err
		}
		ports, whole, err := portsIn(answer, uint32(bridge))
		if err != nil || whole {
			return ports, err
		}
	}
	return nil, errors.New("it changed all the time while it was read")
}

// portsIn reads the ports of a bridge. whole is false where the list changed while the kernel wrote it.
func portsIn(answer []netlink.Message, bridge uint32) (ports []port, whole bool, err error) {
	for _, m := range answer {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return nil, false, nil
		}
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < ifInfo {
			continue
		}
		p := port{index: nativeEndian.Uint32(m.Data[4:])}
		d, err := netlink.NewAttributeDecoder(m.Data[ifInfo:])
		if err != nil {
			return nil, false, err
		}
		var master uint32
		for d.Next() {
			switch d.Type() {
			case unix.IFLA_MASTER:
				master = d.Uint32()
			case unix.IFLA_LINKINFO:
				d.Nested(p.readInfo)
			}
		}
		if err := d.Err(); err != nil {
			return nil, false, err
		}
		if master == bridge {
			ports = append(ports, p)
		}
	}
	return ports, true, nil
}

func (p *port) readInfo(d *netlink.AttributeDecoder) error {
	for d.Next() {
		if d.Type() == unix.IFLA_INFO_SLAVE_DATA {
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == unix.IFLA_BRPORT_ISOLATED {
						p.isolated = d.Uint8() == 1
					}
				}
				return d.Err()
			})
		}
	}
	return d.Err()
}

// infoOf is the ifinfomsg of an interface.
func infoOf(family uint8, index uint32) []byte {
	b := make([]byte, ifInfo)
	b[0] = family
	nativeEndian.PutUint32(b[4:], index)
	return b
}
