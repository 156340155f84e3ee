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
	// Allow come before all denials but that of other containers. The host itself is excepted by an address alone, not by a network.
	Allow []Exception
}

// ErrInUse is that the rules of that name are another process's, which runs.
var ErrInUse = errors.New("it belongs to another process: is a worker of that name running?")

// ErrCannot is that no rules can be set here, however often it is tried: this process may not, the kernel cannot, or the bridge is
// elsewhere.
var ErrCannot = errors.New("packets cannot be filtered here")

// errNoBridge is that the bridge is not there. It may come back; the rules, which go by its name, hold meanwhile.
var errNoBridge = errors.New("the bridge of the containers is not in the network of this process")

// Rules are in force from Open to Close. All methods are safe for concurrent use.
type Rules struct {
	o     Options
	owned *nftables.Table // of our socket
	left  *nftables.Table // holds while the containers of a killed process die

	mu        sync.Mutex
	tables    *nftables.Conn // nil where there are no sockets
	socket    *netlink.Conn  // of tables
	links     *netlink.Conn
	resolvers []Exception    // in the rules
	beside    []netip.Prefix // networks of the host, in the rules
	chains    []chain        // of each table, as they were written
	closed    bool
}

// Open puts the rules into force; whoever had them under that name before is gone. It fails with ErrCannot where this process may not
// set rules, or the bridge is not in its network namespace: the error says why, and what to do. Any other error may pass.
func Open(o Options) (*Rules, error) {
	name := o.Bridge + "." + o.Name
	r := &Rules{o: o, owned: &nftables.Table{Family: nftables.TableFamilyINet, Name: name},
		left: &nftables.Table{Family: nftables.TableFamilyINet, Name: name + left}}
	if _, err := net.InterfaceByName(o.Bridge); err != nil {
		return nil, cannot{fmt.Errorf("%w: it is called %s, and the engine runs on another host, or one of both in a network namespace of its own",
			errNoBridge, o.Bridge)}
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	if err := r.fill(); err != nil {
		_ = r.closeConns() // the first error is the one that counts
		if c, err := nftables.New(); err == nil {
			c.DelTable(r.left)
			_ = c.Flush()
		}
		return nil, err
	}
	return r, nil
}

// bufferSize is of what one write of the rules takes to the kernel, and of its answers: one for each rule. The usual 208 KiB are
// too little for some 20 exceptions.
const bufferSize = 4 << 20

// open opens the sockets and makes the table that belongs to one of them. The caller holds mu.
func (r *Rules) open() (err error) {
	defer func() {
		if err != nil {
			_ = r.closeConns() // the first error is the one that counts
		}
	}()
	r.tables, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		r.socket = c
		return errors.Join(c.SetReadBuffer(bufferSize), c.SetWriteBuffer(bufferSize))
	}))
	if err != nil {
		return fmt.Errorf("open a socket to nftables: %w", explain(err))
	}
	if r.links, err = netlink.Dial(unix.NETLINK_ROUTE, nil); err != nil {
		return fmt.Errorf("open a socket to the network: %w", explain(err))
	}
	if err := r.own(); err != nil {
		if _, found := r.tables.ListTableOfFamily(r.owned.Name, r.owned.Family); found == nil {
			return fmt.Errorf("make the nftables table %s: %w", r.owned.Name, ErrInUse)
		}
		return fmt.Errorf("make the nftables table %s: %w", r.owned.Name, explain(err))
	}
	return nil
}

// fill writes the rules, isolates the ports and removes what others have left. The caller holds mu.
func (r *Rules) fill() error {
	beside, err := r.networks()
	if err != nil {
		return err
	}
	if err := r.write(resolvers(), beside); err != nil {
		return err
	}
	if _, err := r.isolate(); err != nil {
		return err
	}
	return r.tidy()
}

// left ends the name of a table that outlives its process.
const left = ".left"

// tidy removes what killed processes have left on this bridge, where these rules hold for their containers, should any still be dying,
// and on bridges without a container or that are gone.
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
		if i, err := net.InterfaceByName(bridge); bridge != r.o.Bridge && err == nil {
			if ports, err := r.ports(i.Index); err != nil || len(ports) > 0 {
				continue
			}
		}
		r.tables.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: name})
		if err := r.tables.Flush(); err != nil && !errors.Is(err, unix.ENOENT) { // somebody else was first
			return fmt.Errorf("remove the nftables table %s: %w", name, err)
		}
	}
	return nil
}

// Check puts right what has changed since: the resolvers and networks of the host, new containers on the bridge, rules that somebody has
// removed, sockets that have failed. An error says what could not be.
func (r *Rules) Check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return net.ErrClosed
	}
	err := r.check()
	if err == nil || errors.Is(err, errNoBridge) {
		return err
	}
	// A socket of which an answer was lost is of no use any more: it would take each answer for that to another question. The table
	// of the old one goes with it; what it has left holds until there is a new one.
	_ = r.closeConns() // failed as they are
	again := r.open()
	if again == nil {
		if again = r.fill(); again != nil {
			_ = r.closeConns() // a table without rules is no table
		}
	}
	if again != nil {
		return fmt.Errorf("put the packet rules into force again: %w, after: %w", again, err)
	}
	return nil
}

func (r *Rules) check() error {
	if r.tables == nil {
		return errNoSockets
	}
	if _, err := r.tables.ListTableOfFamily(r.owned.Name, r.owned.Family); err != nil {
		return fmt.Errorf("the nftables table %s is gone: %w", r.owned.Name, err)
	}
	whole, err := r.whole()
	if err != nil {
		return err
	}
	beside, err := r.networks()
	if err != nil {
		return err
	}
	if now := resolvers(); !whole || !slices.Equal(now, r.resolvers) || !slices.Equal(beside, r.beside) {
		if err := r.write(now, beside); err != nil {
			return err
		}
	}
	_, err = r.isolate()
	return err
}

// Isolate keeps the containers that are on the bridge now from each other. It is called when a container has started, before anything
// runs in it. It fails where none is on the bridge: then the engine's bridge is another one, in another network namespace.
func (r *Rules) Isolate() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.links == nil {
		return errNoSockets
	}
	n, err := r.isolate()
	if err == nil && n == 0 {
		return fmt.Errorf("no container is on the bridge %s in the network of this process, though one has started: is the engine's bridge "+
			"in a network namespace of its own, as that of a rootless engine is?", r.o.Bridge)
	}
	return err
}

// errNoSockets is that they have failed; Check opens them again.
var errNoSockets = errors.New("the sockets to the network of this host are closed")

// Close removes the rules. The containers must be gone.
func (r *Rules) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	c := r.tables
	if c == nil { // for what is left, one for the moment
		var err error
		if c, err = nftables.New(); err != nil {
			return err
		}
	}
	c.DelTable(r.left)
	err := c.Flush()
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
	r.tables, r.socket, r.links = nil, nil, nil
	return err
}

// own makes the table that belongs to the socket. Package nftables cannot ask for that (v0.3.0), so it is done beside it.
func (r *Rules) own() error {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.String(unix.NFTA_TABLE_NAME, r.owned.Name)
	e.Uint32(unix.NFTA_TABLE_FLAGS, tableOwner)
	attributes, err := e.Encode()
	if err != nil {
		return err
	}
	header := func(family uint8, resource uint16) []byte { // nfgenmsg
		return append([]byte{family, unix.NFNETLINK_V0}, byte(resource>>8), byte(resource))
	}
	bound := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request}, Data: header(0, unix.NFNL_SUBSYS_NFTABLES)}
	}
	if _, err = r.socket.SendMessages([]netlink.Message{
		bound(unix.NFNL_MSG_BATCH_BEGIN),
		{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl}, Data: append(header(unix.NFPROTO_INET, 0), attributes...)},
		bound(unix.NFNL_MSG_BATCH_END),
	}); err == nil {
		_, err = r.socket.Receive()
	}
	return err
}

// tableOwner is NFT_TABLE_F_OWNER, of Linux 5.12.
const tableOwner = 2

// cannot is an error that is ErrCannot as well, without its words.
type cannot struct{ error }

// Unwrap returns what was the matter.
func (c cannot) Unwrap() error { return c.error }

// Is says that it is ErrCannot.
func (c cannot) Is(target error) bool { return target == ErrCannot }

// explain adds to an error of the kernel what it means here.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return cannot{fmt.Errorf("this process may not: it needs the capability CAP_NET_ADMIN, which root has (%w)", err)}
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return cannot{fmt.Errorf("the kernel cannot: it needs nftables, with tables that have an owner (Linux 5.12), and inet, fib, ct and reject (%w)", err)}
	}
	return err
}
