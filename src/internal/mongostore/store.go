package mongostore

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"faena.dev/faena/internal/faena"
)

// Defaults of Options, and what is not for an operator to choose.
const (
	DefaultDatabase         = "faena"
	DefaultTimeout          = 5 * time.Second
	DefaultListTimeout      = 15 * time.Second
	DefaultSelectionTimeout = 2500 * time.Millisecond

	maxConnections = 32
	maxIdle        = 5 * time.Minute
	closeTimeout   = time.Second
)

// Options say where the documents are. Only URI must be set.
type Options struct {
	URI      string // mongodb://host:port,…/?replicaSet=…; it may have credentials, Username is better
	Database string // default "faena"
	Username string // "": as the URI says
	Password string
	TLS      *tls.Config  // nil: as the URI says
	Logger   *slog.Logger // default: none

	Timeout          time.Duration // of one command; default 5 s
	ListTimeout      time.Duration // of a command that reads many documents; default 15 s
	SelectionTimeout time.Duration // how long a server is looked for; default 2.5 s

	monitor      *event.CommandMonitor // of tests
	indexTimeout time.Duration         // of tests; otherwise indexTimeout
}

// Store is the documents in a database, of which any number of processes may have one at once. It is safe for concurrent use.
type Store struct {
	client *mongo.Client
	o      Options
	clean  func(text string) string // without credentials

	life context.Context // ends with Close
	end  context.CancelFunc

	mu      sync.Mutex
	attempt *attempt // to prepare the store, that is under way
	closed  bool
	calls   sync.WaitGroup // and what goes on in the background
	idle    chan struct{}  // closed when nothing is left to do there

	db      atomic.Pointer[mongo.Database] // nil until the store is prepared
	indexed atomic.Bool                    // every index is there
	behind  atomic.Pointer[error]          // why not
	warning atomic.Pointer[string]
}

var _ faena.Documents = (*Store)(nil)

// Open returns a store, also where the server is away: it is looked for in the background, and at each call. It fails where the
// options cannot be right. A user's erasure that was cut short is finished in the background once the server answers.
// Close must be called; that ctx ends has no meaning for the store.
func Open(ctx context.Context, o Options) (*Store, error) {
	o.Database = cmp.Or(o.Database, DefaultDatabase)
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.ListTimeout = cmp.Or(o.ListTimeout, DefaultListTimeout)
	o.SelectionTimeout = cmp.Or(o.SelectionTimeout, DefaultSelectionTimeout)
	o.indexTimeout = cmp.Or(o.indexTimeout, indexTimeout)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{o: o, clean: cleaner(o), idle: make(chan struct{})}
	c, err := clientOptions(o)
	if err != nil {
		return nil, s.badOptions(err)
	}
	if s.client, err = mongo.Connect(c); err != nil {
		return nil, s.badOptions(err)
	}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.calls.Go(s.background)
	return s, nil
}

func (s *Store) badOptions(err error) error {
	return fmt.Errorf("open the document store: FAENA_MONGODB_URI cannot be used: %s", s.clean(err.Error()))
}

func clientOptions(o Options) (*options.ClientOptions, error) {
	journal := true
	c := options.Client().ApplyURI(o.URI).
		SetAppName("faena").
		SetReadPreference(readpref.Primary()).
		SetWriteConcern(&writeconcern.WriteConcern{W: writeconcern.WCMajority, Journal: &journal}).
		SetRetryReads(true).SetRetryWrites(true). // the driver knows which servers cannot
		SetServerSelectionTimeout(o.SelectionTimeout).
		SetConnectTimeout(o.SelectionTimeout * 4 / 5). // sooner, so that why there is none can be told
		SetMaxPoolSize(maxConnections).
		SetMaxConnIdleTime(maxIdle).
		SetMonitor(o.monitor)
	if o.TLS != nil {
		c.SetTLSConfig(o.TLS)
	}
	if o.Username != "" {
		auth := options.Credential{}
		if c.Auth != nil { // the URI names a mechanism or a source
			auth = *c.Auth
		}
		auth.Username, auth.Password, auth.PasswordSet = o.Username, o.Password, true
		c.SetAuth(auth)
	}
	return c, c.Validate()
}

// Close waits for the calls that are under way, and releases all connections. A second call does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.end()
	s.calls.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.life), closeTimeout)
	defer cancel()
	if err := s.client.Disconnect(ctx); err != nil {
		return fmt.Errorf("close the document store: %w", err)
	}
	return nil
}

// Ping reports whether the primary server answers, and why an index could not be created, if one could not: some lists are slow then.
func (s *Store) Ping(ctx context.Context) error {
	return s.call(ctx, "ping the document store", func(ctx context.Context) error {
		limited, cancel := context.WithTimeout(ctx, s.o.Timeout)
		defer cancel()
		if err := s.client.Ping(limited, readpref.Primary()); err != nil {
			return s.failed(ctx, err)
		}
		if why := s.behind.Load(); why != nil {
			return *why
		}
		return nil
	})
}

// Warning is what an operator should know of the server, in a sentence: that it is no replica set. "" where there is nothing, or
// where no server has answered yet. The same is logged once.
func (s *Store) Warning() string {
	if w := s.warning.Load(); w != nil {
		return *w
	}
	return ""
}

// call runs one call of the port, with a store that is prepared. action is for errors.
func (s *Store) call(ctx context.Context, action string, fn func(ctx context.Context) error) error {
	err := ctx.Err()
	if err == nil {
		if err = s.enter(); err == nil {
			defer s.calls.Done()
			if err = s.ready(ctx); err == nil {
				err = fn(ctx)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}

// enter begins a call, which calls.Done ends.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return closed()
	}
	s.calls.Add(1)
	return nil
}

// get gives a call that reads something its result, or nothing and the error.
func get[T any](ctx context.Context, s *Store, action string, fn func(ctx context.Context) (T, error)) (T, error) {
	var v T
	err := s.call(ctx, action, func(ctx context.Context) (err error) {
		v, err = fn(ctx)
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return v, nil
}
