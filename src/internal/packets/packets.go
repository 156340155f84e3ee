package packets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

var nativeEndian = binary.NativeEndian

// Exception is what containers may reach although it is denied: a network, or a port of it.
type Exception struct {
	Prefix netip.Prefix
	Port   uint16 // of TCP and UDP; 0 is all of every protocol
}

// Options say whose packets are filtered, and how.
type Options struct {
	// Name is unique among the rules of the bridge: letters, digits, - and _. The tables are called after both.
	Name string
	// Bridge is the interface that the containers are on. It may go and come back while the rules hold. Where several have rules for
	// it, a packet must be let go by all of them.
	Bridge string
	// Allow come before all denials but that of other containers.
	Allow []Exception
}

// ErrInUse is that the rules of that name are another process's, which runs.
var ErrInUse = errors.New("it belongs to another process: is a worker of that name running?")

// Rules are in force from Open to Close. All methods are safe for concurrent use.
type Rules struct {
	o     Options
	owned *nftables.Table // of our socket
	left  *nftables.Table // holds while the containers of a killed process die

	mu        sync.Mutex
	tables    *nftables.Conn
	links     *netlink.Conn
	resolvers []Exception
}

// Open puts the rules into force; whoever had them under that name before is gone. It fails where this process may not set rules,
// or the bridge is not in its network namespace: the error says why, and what to do.
func Open(o Options) (_ *Rules, err error) {
	if _, err := net.InterfaceByName(o.Bridge); err != nil {
		return nil, fmt.Errorf("the bridge %s of the containers is not in the network of this process: the engine runs on another host, or one of both "+
			"in a network namespace of its own", o.Bridge)
	}
	r := &Rules{o: o, resolvers: resolvers()}
	defer func() {
		if err != nil {
			_ = r.closeConns() // the first error is the one that counts
		}
	}()
	var socket *netlink.Conn
	r.tables, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error { socket = c; return nil }))
	if err != nil {
		return nil, fmt.Errorf("open a socket to nftables: %w", explain(err))
	}
	if r.links, err = netlink.Dial(unix.NETLINK_ROUTE, nil); err != nil {
		return nil, fmt.Errorf("open a socket to the network: %w", explain(err))
	}
	if r.owned, err = own(socket, o.Bridge+"."+o.Name); err != nil {
		if _, found := r.tables.ListTableOfFamily(r.owned.Name, r.owned.Family); found == nil {
			return nil, fmt.Errorf("make the nftables table %s: %w", r.owned.Name, ErrInUse)
		}
		return nil, fmt.Errorf("make the nftables table %s: %w", r.owned.Name, explain(err))
	}
	r.left = &nftables.Table{Family: nftables.TableFamilyINet, Name: r.owned.Name + left}
	if err := errors.Join(r.write(), r.isolate(), r.tidy()); err != nil {
		return nil, explain(err)
	}
	return r, nil
}

// left ends the name of a table that outlives its process.
const left = ".left"

// tidy removes what killed processes have left on this bridge, where these rules hold for their containers, should any still be dying,
// and on bridges that are gone.
func (r *Rules) tidy() error {
	list, err := r.tables.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list the nftables tables: %w", err)
	}
	names := map[string]bool{}
	for _, t := range list {
		names[t.Name] = true
	}
	for name := range names {
		owner, outlives := strings.CutSuffix(name, left)
		bridge, _, ours := strings.Cut(name, ".")
		if !outlives || names[owner] || !ours || !strings.HasPrefix(bridge, "faena-") {
			continue
		}
		if _, err := net.InterfaceByName(bridge); bridge != r.o.Bridge && err == nil {
			continue
		}
		r.tables.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: name})
		if err := r.tables.Flush(); err != nil && !errors.Is(err, unix.ENOENT) { // somebody else was first
			return fmt.Errorf("remove the nftables table %s: %w", name, err)
		}
	}
	return nil
}

// Check puts right what has changed since: the resolvers of the host, new containers on the bridge, rules that somebody has
// removed. An error says what could not be.
func (r *Rules) Check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.tables.ListTableOfFamily(r.owned.Name, r.owned.Family); err != nil {
		return fmt.Errorf("the nftables table %s is gone: %w", r.owned.Name, err)
	}
	now := resolvers()
	_, err := r.tables.ListTableOfFamily(r.left.Name, r.left.Family)
	if err != nil || !slices.Equal(now, r.resolvers) {
		r.resolvers = now
		if err := r.write(); err != nil {
			return err
		}
	}
	return r.isolate()
}

// Isolate keeps the containers that are on the bridge now from each other. It is called before anything runs in a new one.
func (r *Rules) Isolate() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isolate()
}

// Close removes the rules. The containers must be gone.
func (r *Rules) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tables.DelTable(r.left)
	err := r.tables.Flush()
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return errors.Join(err, r.closeConns())
}

func (r *Rules) closeConns() (err error) {
	if r.tables != nil {
		err = r.tables.CloseLasting()
	}
	if r.links != nil {
		err = errors.Join(err, r.links.Close())
	}
	return err
}

// own makes a table that belongs to the socket. Package nftables cannot ask for that (v0.3.0), so it is done beside it.
func own(socket *netlink.Conn, name string) (*nftables.Table, error) {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.String(unix.NFTA_TABLE_NAME, name)
	e.Uint32(unix.NFTA_TABLE_FLAGS, tableOwner)
	attributes, err := e.Encode()
	if err != nil {
		return nil, err
	}
	header := func(family uint8, resource uint16) []byte { // nfgenmsg
		return append([]byte{family, unix.NFNETLINK_V0}, byte(resource>>8), byte(resource))
	}
	bound := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request}, Data: header(0, unix.NFNL_SUBSYS_NFTABLES)}
	}
	_, err = socket.SendMessages([]netlink.Message{
		bound(unix.NFNL_MSG_BATCH_BEGIN),
		{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl}, Data: append(header(unix.NFPROTO_INET, 0), attributes...)},
		bound(unix.NFNL_MSG_BATCH_END),
	})
	if err == nil {
		_, err = socket.Receive()
	}
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: name}, err
}

// tableOwner is NFT_TABLE_F_OWNER, of Linux 5.12.
const tableOwner = 2

// explain adds to an error of the kernel what it means here.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("this process may not: it needs the capability CAP_NET_ADMIN, which root has (%w)", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("the kernel cannot: it needs nftables, with tables that have an owner (Linux 5.12), and inet, fib, ct and reject (%w)", err)
	}
	return err
}
