package natsbus

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
)

const (
	// startWithin is how long the server may take to recover its store and take connections.
	startWithin = 2 * time.Minute
	// pingEvery and pingsOut find a client that is gone without a word.
	pingEvery = 10 * time.Second
	pingsOut  = 2
	// defaultMaxStore is what the server may keep on disk unless told otherwise.
	defaultMaxStore = 8 << 30
	maxMemory       = 256 << 20 // of streams in memory, of which there are none
	maxPayload      = 1 << 20
)

// ServerOptions are a NATS server in this process.
type ServerOptions struct {
	Dir        string       // holds everything that is stored; required
	MaxStore   int64        // bytes on disk; default 8 GiB
	SyncAlways bool         // each write is on disk before it is acknowledged
	Shared     bool         // the directory is that of a server which has what Authorization says: all is in the account of the APIs
	Logger     *slog.Logger // default: nowhere
}

// Server is a NATS server in this process, for connections of this process only: it listens nowhere.
type Server struct {
	s        *natsd.Server
	maxStore int64
	account  *natsd.Account // nil: the one that all are in where there are no others
}

// StartServer starts a server on its directory and returns when it takes connections. What was acknowledged by a
// server that was killed is there again.
func StartServer(o ServerOptions) (*Server, error) {
	if o.Dir == "" {
		return nil, errors.New("start the NATS server: it has no directory")
	}
	maxStore := cmp.Or(o.MaxStore, defaultMaxStore)
	options := &natsd.Options{
		ServerName: "faena", DontListen: true, NoSigs: true, NoLog: o.Logger == nil,
		JetStream: true, StoreDir: filepath.Clean(o.Dir), JetStreamMaxStore: maxStore, JetStreamMaxMemory: maxMemory,
		SyncAlways: o.SyncAlways, PingInterval: pingEvery, MaxPingsOut: pingsOut, MaxPayload: maxPayload,
	}
	if o.Shared {
		owner := natsd.NewAccount(account)
		options.Accounts, options.Users, options.NoAuthUser = []*natsd.Account{owner}, []*natsd.User{{Username: apiRole, Account: owner}}, apiRole
	}
	s, err := natsd.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("start the NATS server on %s: %w", o.Dir, err)
	}
	if o.Logger != nil {
		s.SetLoggerV2(serverLog{o.Logger.With("component", "nats")}, false, false, false)
	}
	s.Start()
	if !s.ReadyForConnections(startWithin) {
		s.Shutdown()
		return nil, fmt.Errorf("start the NATS server on %s: it was not ready within %v", o.Dir, startWithin)
	}
	if !s.JetStreamEnabled() {
		s.Shutdown()
		return nil, fmt.Errorf("start the NATS server on %s: JetStream could not be enabled", o.Dir)
	}
	out := &Server{s: s, maxStore: maxStore}
	if o.Shared {
		if out.account, err = s.LookupAccount(account); err == nil {
			err = out.account.EnableJetStream(nil, nil)
		}
		if err != nil {
			out.Shutdown()
			return nil, fmt.Errorf("start the NATS server on %s: the APIs' account: %w", o.Dir, err)
		}
	}
	return out, nil
}

// Shutdown stops the server and waits until its store is closed.
func (s *Server) Shutdown() {
	s.s.Shutdown()
	s.s.WaitForShutdown()
}

// serverLog gives the server's words to slog. Its notices are for whoever looks for them.
type serverLog struct{ log *slog.Logger }

func (l serverLog) say(log func(string, ...any), format string, v []any) {
	log("nats server", "text", strings.TrimSpace(fmt.Sprintf(format, v...)))
}

func (l serverLog) Noticef(format string, v ...any) { l.say(l.log.Debug, format, v) }

// expected are warnings that say nothing to an operator: what every start after a kill says, where the files are read
// instead of their index, and that a consumer's state was written twice.
var expected = []string{"Recovering stream state from index", "Stream state outdated", "old update ignored"}

func (l serverLog) Warnf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	for _, e := range expected {
		if strings.Contains(text, e) {
			l.say(l.log.Debug, format, v)
			return
		}
	}
	l.say(l.log.Warn, format, v)
}

func (l serverLog) Fatalf(format string, v ...any) { l.say(l.log.Error, format, v) }
func (l serverLog) Errorf(format string, v ...any) { l.say(l.log.Error, format, v) }
func (l serverLog) Debugf(format string, v ...any) { l.say(l.log.Debug, format, v) }
func (l serverLog) Tracef(string, ...any)          {}
