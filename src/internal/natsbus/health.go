package natsbus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
)

const (
	// probeFor is how long a server may take to accept a connection that only looks at it.
	probeFor = 2 * time.Second
	// absenceEvery is how often the servers are looked at while there is no connection.
	absenceEvery = 2 * time.Second
	// maxServers bounds how many addresses are looked at.
	maxServers = 64
)

// Servers looks at each NATS server that the options name or that the servers tell of, by a connection of its own with the
// same identity. One that has several addresses is told once, by the first.
func (b *Bus) Servers(ctx context.Context) ([]faena.QueueServer, error) {
	probed := b.probe(ctx)
	out := make([]faena.QueueServer, len(probed))
	for i, p := range probed {
		out[i] = p.QueueServer
	}
	return out, ctx.Err()
}

// probed is what a look at a server has shown.
type probed struct {
	faena.QueueServer
	id        string // "" where it cannot be reached
	jetstream bool
}

// probe looks at all servers at once.
func (b *Bus) probe(ctx context.Context) []probed {
	if b.o.Server != nil {
		return []probed{{QueueServer: faena.QueueServer{Address: "in this process", Name: b.nc.ConnectedServerName(),
			Version: b.nc.ConnectedServerVersion()}, id: b.nc.ConnectedServerId(), jetstream: true}}
	}
	addresses := slices.Clone(b.o.URLs)
	for _, discovered := range b.nc.Servers() {
		if !slices.ContainsFunc(addresses, func(a string) bool { return hostOf(a) == hostOf(discovered) }) {
			addresses = append(addresses, discovered)
		}
	}
	addresses = addresses[:min(len(addresses), maxServers)]
	all := make([]probed, len(addresses))
	var looks sync.WaitGroup
	for i, address := range addresses {
		looks.Go(func() { all[i] = b.probeOne(ctx, address, i >= len(b.o.URLs)) })
	}
	looks.Wait()
	known := make(map[string]bool)
	return slices.DeleteFunc(all, func(p probed) bool {
		again := p.id != "" && known[p.id]
		known[p.id] = true
		return again
	})
}

// hostOf is what two ways to write an address have in common.
func hostOf(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		if u.Port() == "" {
			return net.JoinHostPort(u.Hostname(), "4222")
		}
		return u.Host
	}
	return address
}

func (b *Bus) probeOne(ctx context.Context, address string, discovered bool) probed {
	p := probed{QueueServer: faena.QueueServer{Address: address}}
	if u, err := url.Parse(address); err == nil {
		p.Address = u.Redacted()
	}
	opts, err := b.options(ctx)
	if err != nil {
		p.Problem = oneLine(err)
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	opts = append(opts, nats.NoReconnect(), nats.SkipHostLookup(), nats.SetCustomDialer(dialUntil(ctx)), nats.IgnoreDiscoveredServers(),
		nats.DisconnectErrHandler(nil), nats.ReconnectHandler(nil), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if name := b.nameOf(address); discovered && b.o.TLS != nil && name != "" {
		config := b.o.TLS.Clone()
		config.ServerName = name
		opts = append(opts, nats.Secure(config))
	}
	nc, err := nats.Connect(address, opts...)
	if err != nil {
		err = cmp.Or(ctx.Err(), err)
		p.Problem = "it " + because(fmt.Errorf("connect to NATS: %w", err))
		return p
	}
	defer nc.Close()
	p.Name, p.Version, p.id = nc.ConnectedServerName(), nc.ConnectedServerVersion(), nc.ConnectedServerId()
	p.jetstream, _ = nc.ConnectedServerJetStream()
	switch {
	case tooOld(p.Version):
		p.Problem = "it is version " + p.Version + ", Faena needs " + minVersion + " or newer: upgrade it"
	case !p.jetstream:
		p.Problem = "it runs without JetStream: give its configuration jetstream { store_dir, max_file_store }"
	}
	return p
}

// dialer dials for the client library.
type dialer func(network, address string) (net.Conn, error)

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, address string) (net.Conn, error) { return d(network, address) }

// dialUntil makes connections that end with ctx, whatever the library is waiting for on them.
func dialUntil(ctx context.Context) dialer {
	return func(network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			context.AfterFunc(ctx, func() { _ = conn.Close() }) // the library has the error of what it reads
		}
		return conn, err
	}
}

// nameOf is the name that the certificate of a server is to have which others told of by its IP address: that of a server
// which the options name, as the client library has it when it reconnects. "" where there is none.
func (b *Bus) nameOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || net.ParseIP(u.Hostname()) == nil {
		return ""
	}
	for _, own := range b.o.URLs {
		if u, err := url.Parse(own); err == nil && net.ParseIP(u.Hostname()) == nil {
			return u.Hostname()
		}
	}
	return ""
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// tellOfAbsence says, while there is no connection, why the servers take none, and says so again when that changes. The
// client library only goes on trying.
func (b *Bus) tellOfAbsence(ctx context.Context) {
	t := time.NewTicker(absenceEvery)
	defer t.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if b.nc.IsConnected() {
			said = ""
			continue
		}
		var words []string
		for _, s := range b.probe(ctx) {
			if s.Problem != "" {
				words = append(words, s.Address+": "+s.Problem)
			}
		}
		if now := strings.Join(words, "; "); now != "" && now != said && ctx.Err() == nil {
			said = now
			b.log.Warn("there is no connection to NATS", "servers", now)
		}
	}
}

// warnOfTwo says once, with R1, that a cluster of two servers is worse than one: it needs both.
func (b *Bus) warnOfTwo(ctx context.Context) {
	if b.o.Replicas > 1 || b.nc.ConnectedClusterName() == "" {
		return
	}
	b.told.Do(func() {
		servers := b.probe(ctx)
		if len(servers) == 2 && !slices.ContainsFunc(servers, func(p probed) bool { return !p.jetstream && p.id != "" }) {
			b.log.Warn("the NATS cluster has two servers and works only while both run: add a third and set FAENA_NATS_REPLICAS=3, or leave one",
				"servers", servers[0].Address+" "+servers[1].Address)
		}
	})
}

// Streams looks at everything that Declare and DeclareGroup make for all and for the groups.
func (b *Bus) Streams(ctx context.Context, groups []string) ([]faena.StreamHealth, error) {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	var out []faena.StreamHealth
	for _, c := range b.sharedConfigs() {
		out = append(out, faena.StreamHealth{Name: c.Name, Wanted: c.Replicas})
	}
	consumers := make(map[string]string) // by stream
	for _, group := range groups {
		for _, c := range b.groupConfigs(group) {
			out = append(out, faena.StreamHealth{Name: c.Name, Group: group, Wanted: c.Replicas})
		}
		for _, c := range b.consumers(group) {
			consumers[c.stream] = c.config.Durable
		}
	}
	var looks errgroup.Group
	looks.SetLimit(parallel)
	for i := range out {
		looks.Go(func() error {
			b.examine(ctx, &out[i], consumers[out[i].Name])
			return nil
		})
	}
	return out, errors.Join(looks.Wait(), ctx.Err())
}

// nearlyFull is how full the bucket of keys is when an operator should know.
const nearlyFull = 0.8

// examine fills in what a stream is, and the most serious of what is wrong with it.
func (b *Bus) examine(ctx context.Context, s *faena.StreamHealth, consumer string) {
	info, err := b.streamInfo(ctx, s.Name)
	switch {
	case err != nil:
		s.Problem = "nobody answers for it: is a majority of the NATS servers there? (" + oneLine(err) + ")"
		return
	case info == nil:
		s.Problem = "it is not there: an API declares it when it starts or reconnects, its log says why it could not"
		return
	}
	s.Replicas = info.Config.Replicas
	away := 0
	if c := info.Cluster; c != nil {
		s.Leader = c.Leader
		for _, r := range c.Replicas {
			switch {
			case r.Offline:
				away++
				s.Behind = append(s.Behind, r.Name+" (away)")
			case !r.Current:
				s.Behind = append(s.Behind, fmt.Sprintf("%s (%d behind)", r.Name, r.Lag))
			}
		}
		slices.Sort(s.Behind)
	}
	switch {
	case s.Replicas > 1 && (s.Leader == "" || 2*(s.Replicas-away) <= s.Replicas):
		s.Problem = "it takes nothing: a majority of its servers must run"
	case s.Replicas != s.Wanted:
		s.Problem = fmt.Sprintf("FAENA_NATS_REPLICAS is %d, it has %d: nats stream update %s --replicas %d", s.Wanted, s.Replicas, s.Name, s.Wanted)
	case away > 0:
		s.Problem = "a server of it is away: start it"
	case len(s.Behind) > 0:
		s.Problem = "a server of it is behind: it is catching up, or cannot"
	case s.Name == bucketStream(claimsBucket) && float64(info.State.Bytes) > nearlyFull*float64(info.Config.MaxBytes):
		s.Problem = "it is nearly full: then calls with an Idempotency-Key are refused until older keys are a day old; a larger FAENA_NATS_MAX_STORE gives it more"
	}
	if s.Problem == "" && s.Name == recordsStream(s.Group) {
		if err := b.TakesWrites(ctx, s.Group); err != nil {
			s.Problem = "it takes no writes: the disk of a NATS server is full, or was: make room there, then restart that server (" + oneLine(err) + ")"
		}
	}
	if consumer == "" {
		return
	}
	if problem := b.examineConsumer(ctx, s.Name, consumer); problem != "" && s.Problem == "" {
		s.Problem = problem
	}
}

// TakesWrites writes to the group's records what costs nothing. A server (2.15) that could not write once answers no write to that stream
// any more, and says of it what it says of a healthy one: faena.ErrUnknown.
func (b *Bus) TakesWrites(ctx context.Context, group string) error {
	ctx, cancel := context.WithTimeout(ctx, preflightFor)
	defer cancel()
	if err := b.anchorRecords(ctx, group); err != nil {
		return fmt.Errorf("write to the records of group %s: %w", group, err)
	}
	return nil
}

func (b *Bus) examineConsumer(ctx context.Context, stream, consumer string) string {
	ctx, cancel := context.WithTimeout(ctx, preflightFor)
	defer cancel()
	info := new(jetstream.ConsumerInfo)
	switch err := b.ask(ctx, consumerInfo(stream, consumer), nil, info); {
	case isCode(err, codeNoConsumer):
		return "its consumer " + consumer + " is not there: an API declares it when it starts or reconnects"
	case err != nil:
		return "nobody answers for its consumer " + consumer + " (" + oneLine(err) + ")"
	case info.Paused:
		return "its consumer " + consumer + " is paused: nats consumer resume " + stream + " " + consumer
	case info.Cluster != nil && info.Cluster.Leader == "":
		return "no server leads its consumer " + consumer
	}
	return ""
}
