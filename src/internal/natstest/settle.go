package natstest

import (
	"fmt"
	"slices"
	"testing"

	natsd "github.com/nats-io/nats-server/v2/server"

	"faena.dev/faena/internal/faenatest"
)

// Settle waits until the servers that run have a leader, and each stream and consumer too, with all of its replicas that
// run in sync.
func (c *Servers) Settle(t testing.TB) {
	t.Helper()
	faenatest.EventuallyNil(t, settleWithin, "the servers have settled", c.unsettled)
}

// MetaLeader waits until there is a leader of the cluster, and says which server it is.
func (c *Servers) MetaLeader(t testing.TB) (i int) {
	t.Helper()
	return c.whichever(t, "the cluster has a leader", (*natsd.Server).JetStreamIsLeader)
}

// Leader waits until a stream has a leader, and says which server it is.
func (c *Servers) Leader(t testing.TB, stream string) (i int) {
	t.Helper()
	return c.whichever(t, "stream "+stream+" has a leader", func(s *natsd.Server) bool {
		info, err := s.Jsz(&natsd.JSzOptions{Accounts: true, Streams: true, StreamLeaderOnly: true})
		if err != nil {
			return false
		}
		for _, account := range info.AccountDetails {
			if slices.ContainsFunc(account.Streams, func(d natsd.StreamDetail) bool { return d.Name == stream }) {
				return true
			}
		}
		return false
	})
}

func (c *Servers) whichever(t testing.TB, what string, is func(*natsd.Server) bool) (i int) {
	t.Helper()
	faenatest.Eventually(t, settleWithin, what, func() bool {
		for i = range c.each {
			if s := c.server(i); s != nil && is(s) {
				return true
			}
		}
		return false
	})
	return i
}

// unsettled says what is still missing.
func (c *Servers) unsettled() error {
	running := make(map[string]*natsd.Server)
	for i := range c.each {
		if s := c.server(i); s != nil {
			running[c.name(i)] = s
		}
	}
	if len(c.each) == 1 {
		return nil // it is in sync with itself
	}
	leaders := 0
	for name, s := range running {
		if s.JetStreamIsLeader() {
			leaders++
		}
		if !s.JetStreamIsCurrent() {
			return fmt.Errorf("%s does not know the latest of the cluster", name)
		}
		if n := len(s.JetStreamClusterPeers()); s.JetStreamIsLeader() && n != len(running) {
			return fmt.Errorf("%s leads, and knows %d of %d servers", name, n, len(running))
		}
	}
	if leaders != 1 {
		return fmt.Errorf("the cluster has %d leaders", leaders)
	}
	for name, s := range running {
		if err := unsettled(name, s, running); err != nil {
			return err
		}
	}
	return nil
}

// unsettled says which of a server's streams, or consumers, is not in sync yet.
func unsettled(name string, s *natsd.Server, running map[string]*natsd.Server) error {
	info, err := s.Jsz(&natsd.JSzOptions{Accounts: true, Streams: true, Consumer: true})
	if err != nil {
		return fmt.Errorf("ask %s for its streams: %w", name, err)
	}
	for _, account := range info.AccountDetails {
		for _, stream := range account.Streams {
			if stream.Cluster == nil || running[stream.Cluster.Leader] == nil {
				return fmt.Errorf("%s knows no leader of stream %s", name, stream.Name)
			}
			members := []string{stream.Cluster.Leader}
			for _, replica := range stream.Cluster.Replicas {
				members = append(members, replica.Name)
			}
			for _, member := range members {
				if other := running[member]; other != nil && !other.JetStreamIsStreamCurrent(account.Name, stream.Name) {
					return fmt.Errorf("%s is behind in stream %s", member, stream.Name)
				}
			}
			for _, consumer := range stream.Consumer {
				if consumer.Cluster == nil || running[consumer.Cluster.Leader] == nil {
					return fmt.Errorf("%s knows no leader of consumer %s of stream %s", name, consumer.Name, stream.Name)
				}
			}
		}
	}
	return nil
}
