package site

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
)

// network is the namespace that the NATS servers are in, with a cable for each daemon, and one for this program. The addresses are
// of the block for tests of networks (198.18.0.0/15); none of it leaves this host, whatever becomes of a cable.
type network struct {
	prefix string // of all names, and the name of the namespace
	third  byte   // of the addresses 198.18.THIRD.*
	cables []*Cable
}

// Cable is one way to the NATS servers.
type Cable struct {
	Near, Far string // addresses of its ends

	namespace, device string // of its far end
}

func newNetwork(ctx context.Context, cables int) (n *network, err error) {
	var random [3]byte
	_, _ = rand.Read(random[:]) // never fails
	n = &network{third: random[0], prefix: fmt.Sprintf("fc%x", random[1:])}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close(context.WithoutCancel(ctx)))
		}
	}()
	if err := ip(ctx, "netns", "add", n.prefix); err != nil {
		return n, err
	}
	if err := ip(ctx, "-n", n.prefix, "link", "set", "lo", "up"); err != nil {
		return n, err
	}
	if err := ip(ctx, "route", "add", "unreachable", n.route(), "metric", "4096"); err != nil {
		return n, err
	}
	for k := range cables {
		near, far := fmt.Sprintf("%s-%d", n.prefix, k), fmt.Sprintf("far-%d", k)
		c := &Cable{Near: n.address(4*k + 1), Far: n.address(4*k + 2), namespace: n.prefix, device: far}
		for _, args := range [][]string{
			{"link", "add", near, "type", "veth", "peer", "name", far, "netns", n.prefix},
			{"addr", "add", c.Near + "/30", "dev", near},
			{"link", "set", near, "up"},
			{"-n", n.prefix, "addr", "add", c.Far + "/30", "dev", far},
			{"-n", n.prefix, "link", "set", far, "up"},
		} {
			if err := ip(ctx, args...); err != nil {
				return n, err
			}
		}
		n.cables = append(n.cables, c)
	}
	return n, nil
}

func (n *network) route() string           { return fmt.Sprintf("198.18.%d.0/24", n.third) }
func (n *network) address(last int) string { return fmt.Sprintf("198.18.%d.%d", n.third, last) }

// far are the addresses of all far ends.
func (n *network) far() (list []net.IP) {
	for _, c := range n.cables {
		list = append(list, net.ParseIP(c.Far))
	}
	return list
}

// Pull takes the cable out: what either side sends is lost without a word.
func (c *Cable) Pull(ctx context.Context) error {
	return ip(ctx, "-n", c.namespace, "link", "set", c.device, "down")
}

// Plug puts it in again.
func (c *Cable) Plug(ctx context.Context) error {
	return ip(ctx, "-n", c.namespace, "link", "set", c.device, "up")
}

func (n *network) close(ctx context.Context) error {
	errs := []error{ip(ctx, "route", "del", "unreachable", n.route(), "metric", "4096")}
	for k := range n.cables {
		errs = append(errs, ip(ctx, "link", "del", fmt.Sprintf("%s-%d", n.prefix, k)))
	}
	return errors.Join(append(errs, ip(ctx, "netns", "del", n.prefix))...)
}

func ip(ctx context.Context, args ...string) error {
	_, err := command(ctx, nil, nil, "ip", args...)
	return err
}
