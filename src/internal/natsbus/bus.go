package natsbus

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"faena.dev/faena/internal/faena"
)

const (
	// tryFor bounds one request to the server, whatever the caller's context allows: a try that gets no answer ends as
	// ErrUnknown, and who made it decides.
	tryFor = time.Second
	// listFor bounds what may take longer: lists of subjects, objects, declarations.
	listFor = 15 * time.Second
	// clockEvery is how often the server's clock is read, since two clocks never run alike.
	clockEvery    = time.Minute
	clockReadings = 5 // the fastest of which counts
	reconnectWait = 250 * time.Millisecond
	// askEvery and unanswered find a server that hangs, and keeps its connections: after four to six seconds, about when the others of a
	// cluster have chosen new leaders, the bus goes to another one.
	askEvery   = 2 * time.Second
	unanswered = 2
)

// Options are a connection. Server or URLs must be given; the rest has defaults.
type Options struct {
	Name     string       // of this daemon: for people who look at the server, and the prefix of its inboxes
	Server   *Server      // in this process
	URLs     []string     // otherwise: nats:// or tls://
	TLS      *tls.Config  // default: none, or the host's list of CAs where a URL says tls
	NkeySeed []byte       // the identity of this daemon; default: none
	Logger   *slog.Logger // default: nowhere

	// Made reports whether an id was made by an API of this installation for a user and a group. Of records in which it was not
	// nothing is believed. Default: all are believed, which is right where nobody but this process writes them.
	Made func(user, group, id string) bool

	Group      string        // of a worker, whose clock is that of its queue's server; none is an API
	Replicas   int           // of each stream and bucket, 1 or 3; default 1
	MaxStore   int64         // what one server may keep on disk; default: the Server's, or 8 GiB
	GroupStore int64         // what a group may keep of it, see groupConfigs for the shares; default: MaxStore
	ObjectTTL  time.Duration // of objects that their record's removal has left behind; default 8 days
	AckWait    time.Duration // default faena.AckWait; tests shorten it
}

func (o Options) withDefaults() Options {
	o.Replicas = cmp.Or(o.Replicas, 1)
	o.AckWait = cmp.Or(o.AckWait, faena.AckWait)
	o.ObjectTTL = cmp.Or(o.ObjectTTL, objectTTL)
	if o.Server != nil {
		o.MaxStore = cmp.Or(o.MaxStore, o.Server.maxStore)
	}
	o.MaxStore = cmp.Or(o.MaxStore, defaultMaxStore)
	o.GroupStore = cmp.Or(o.GroupStore, o.MaxStore)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) role() string {
	if o.Group == "" {
		return apiRole
	}
	return workerRole(o.Group)
}

// confined reports whether this is a worker's identity, which Authorization has given an account of its own.
func (o Options) confined() bool { return o.Group != "" && len(o.NkeySeed) > 0 }

// Bus is a daemon's connection. It reconnects by itself, for ever. All methods are safe for concurrent use.
type Bus struct {
	o       Options
	log     *slog.Logger
	nc      *nats.Conn
	js      jetstream.JetStream
	code    *codec
	anchors *anchors

	clock atomic.Pointer[reading]
	look  chan struct{} // asks for a reading now; of capacity one

	mu          sync.Mutex
	reconnected map[*func()]struct{}
	groups      map[string]struct{} // that DeclareGroup has made
	told        sync.Once           // that the cluster has two servers
	unread      unread
	inUse       inUse

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// reading is the server's clock as it was read once. What has passed since is measured by this host's monotonic clock,
// so that a step of its wall clock changes nothing.
type reading struct{ here, server time.Time }

// Connect connects to the server. The first connection must succeed; ctx bounds it.
func Connect(ctx context.Context, o Options) (*Bus, error) {
	o = o.withDefaults()
	b := &Bus{o: o, log: o.Logger, code: newCodec(), look: make(chan struct{}, 1), reconnected: make(map[*func()]struct{}),
		groups: map[string]struct{}{faena.DefaultGroup: {}}}
	b.anchors, b.inUse = newAnchors(b), newInUse()
	opts, err := b.options(ctx)
	if err != nil {
		return nil, err
	}
	if b.nc, err = nats.Connect(strings.Join(o.URLs, ","), opts...); err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	if b.js, err = jetstream.New(b.nc, jetstream.WithDefaultTimeout(listFor)); err != nil {
		b.nc.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	before := b.nc.LastError()
	if err := b.readClock(ctx); err != nil {
		err = b.explain(before, fmt.Errorf("ask JetStream for its time: %w", err))
		b.nc.Close()
		return nil, err
	}
	ctx, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	b.wg.Go(func() { b.keep(ctx) })
	b.wg.Go(func() { b.tellOfAbsence(ctx) })
	return b, nil
}

func (b *Bus) options(ctx context.Context) ([]nats.Option, error) {
	o := b.o
	dialFor := 5 * time.Second
	if end, ok := ctx.Deadline(); ok {
		dialFor = min(dialFor, max(time.Millisecond, time.Until(end)))
	}
	opts := []nats.Option{
		nats.Name(o.Name), nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.PingInterval(askEvery),
		nats.MaxPingsOutstanding(unanswered), nats.Timeout(dialFor),
		nats.IgnoreAuthErrorAbort(), // what the servers do not permit now they may permit later
		nats.ReconnectBufSize(-1),   // while there is no connection nothing is kept: a write then fails for certain
		nats.CustomInboxPrefix(inboxPrefix(o.role(), o.Name)),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.log.Warn("the connection to NATS was lost", "error", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { b.onReconnected() }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) { b.complain(s, err) }),
	}
	if o.Server != nil {
		opts = append(opts, nats.InProcessServer(o.Server.s))
	} else if len(o.URLs) == 0 {
		return nil, errors.New("connect to NATS: no server is named")
	}
	if o.TLS != nil {
		opts = append(opts, nats.Secure(o.TLS))
	}
	if len(o.NkeySeed) > 0 {
		key, err := nkeys.FromSeed(o.NkeySeed)
		if err != nil {
			return nil, errors.New("connect to NATS: the nkey seed is none")
		}
		public, err := key.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("connect to NATS: %w", err)
		}
		opts = append(opts, nats.Nkey(public, key.Sign))
	}
	return opts, nil
}

// Close sends what was still to be sent, ends the connection and waits for what the bus does by itself, callbacks of
// subscriptions included. Subscriptions and Deliveries end with it.
func (b *Bus) Close() {
	b.stop()
	b.nc.Close()
	b.wg.Wait()
}

// Connected reports whether there is a connection now.
func (b *Bus) Connected() bool { return b.nc.IsConnected() }

// OnReconnect calls fn after a lost connection is back, until stop is called. fn must not block.
func (b *Bus) OnReconnect(fn func()) (stop func()) {
	key := &fn
	b.mu.Lock()
	b.reconnected[key] = struct{}{}
	b.mu.Unlock()
	return func() {
		b.mu.Lock()
		delete(b.reconnected, key)
		b.mu.Unlock()
	}
}

func (b *Bus) onReconnected() {
	b.log.Info("the connection to NATS is back")
	select {
	case b.look <- struct{}{}: // it may be another server, with another clock
	default:
	}
	b.mu.Lock()
	fns := make([]func(), 0, len(b.reconnected))
	for fn := range b.reconnected {
		fns = append(fns, *fn)
	}
	b.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// keep does what a bus does by itself: it reads the clock and moves the anchors.
func (b *Bus) keep(ctx context.Context) {
	t := time.NewTicker(clockEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.anchors.kick:
			b.anchors.move(ctx)
			continue
		case <-b.look:
		case <-t.C:
		}
		if err := b.readClock(ctx); err != nil && ctx.Err() == nil {
			b.log.Warn("the server's clock could not be read", "error", err)
		}
	}
}

// ServerNow is the time by the clock of the server, which stamps messages.
func (b *Bus) ServerNow() time.Time {
	if r := b.clock.Load(); r != nil {
		return r.server.Add(time.Since(r.here))
	}
	return time.Now()
}

// readClock asks a few times for the time of the server that leads the queue of the bus's group, and believes the fastest
// answer, which is taken to be stamped half-way. There is no call that only tells the time.
func (b *Bus) readClock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, preflightFor)
	defer cancel()
	var best reading
	fastest := time.Hour
	for range clockReadings {
		var answer struct {
			Now time.Time `json:"ts"`
		}
		sent := time.Now()
		err := b.ask(ctx, api("STREAM.INFO", queueStream(cmp.Or(b.o.Group, faena.DefaultGroup))), nil, &answer)
		if missing(err) {
			return nil // it was never declared: Declare reads the clock
		}
		if err != nil && !best.server.IsZero() {
			break // one is enough
		}
		if err != nil {
			return err
		}
		if took := time.Since(sent); took < fastest && !answer.Now.IsZero() {
			best, fastest = reading{here: sent.Add(took / 2), server: answer.Now}, took
		}
	}
	// A slow answer tells little, but more than none.
	if !best.server.IsZero() && (fastest < time.Second || b.clock.Load() == nil) {
		b.clock.Store(&best)
	}
	return nil
}
