package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bus looks into the NATS servers with NATS's own client, with the rights of an API.
type Bus struct {
	conn *nats.Conn
	js   jetstream.JetStream
}

func (s *Site) connect() (*Bus, error) {
	nkey, err := nats.NkeyOptionFromSeed(filepath.Join(s.keyDir("api"), "nats.nk"))
	if err != nil {
		return nil, err
	}
	conn, err := nats.Connect(natsURLs(s.own), nkey, nats.Secure(s.authority.Client()), nats.CustomInboxPrefix("_INBOX.api.chaos"), nats.MaxReconnects(-1),
		nats.ReconnectWait(200*time.Millisecond), nats.Timeout(5*time.Second), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return nil, fmt.Errorf("connect to the NATS servers: %w", err)
	}
	js, err := jetstream.New(conn)
	return &Bus{conn, js}, err
}

func (b *Bus) close() { b.conn.Close() }

// Active is how many activations a user has by his counter in the bucket, and how many messages by the stream.
func (b *Bus) Active(ctx context.Context, user string) (counter, messages int, err error) {
	users, err := b.js.Stream(ctx, "KV_users")
	if err != nil {
		return 0, 0, fmt.Errorf("look at the counters: %w", err)
	}
	m, err := users.GetLastMsgForSubject(ctx, "$KV.users."+user+".activations.active")
	if err == nil {
		counter, err = strconv.Atoi(string(m.Data))
	}
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, 0, fmt.Errorf("look at the counter of %s: %w", user, err)
	}
	queue, err := b.js.Stream(ctx, "ACTIVATIONS-"+Group)
	if err != nil {
		return 0, 0, err
	}
	info, err := queue.Info(ctx, jetstream.WithSubjectFilter("Activations."+Group+"."+user+".*"))
	if err != nil {
		return 0, 0, fmt.Errorf("look at the queue: %w", err)
	}
	return counter, len(info.State.Subjects), nil
}

// Letters are the ids of a user's dead letters, each as often as there is a message of it.
func (b *Bus) Letters(ctx context.Context, user string) (ids []string, err error) {
	const name, subjects = "DEADLETTERS-" + Group, "DeadLetters." + Group + "."
	s, err := b.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", name, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(subjects+user+".*"))
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", name, err)
	}
	for subject, n := range info.State.Subjects {
		for range n {
			ids = append(ids, strings.TrimPrefix(subject, subjects+user+"."))
		}
	}
	return ids, nil
}

// Leftovers are subjects of the queue, of the backlog and of the live records that are still there.
func (b *Bus) Leftovers(ctx context.Context) (all []string, err error) {
	for _, name := range []string{"ACTIVATIONS-" + Group, "BACKLOG-" + Group, "KV_activations-" + Group} {
		s, err := b.js.Stream(ctx, name)
		if err != nil {
			return nil, err
		}
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", name, err)
		}
		for subject := range info.State.Subjects {
			if !strings.HasSuffix(subject, ".anchor") {
				all = append(all, subject)
			}
		}
	}
	return all, nil
}

// FillObjects fills the group's object store until so many bytes are left, as if somebody's results were there. EmptyObjects takes
// that out.
func (b *Bus) FillObjects(ctx context.Context, left int64) error {
	stream, err := b.js.Stream(ctx, "OBJ_objects-"+Group)
	if err != nil {
		return err
	}
	const chunk = 512 << 10
	for {
		info, err := stream.Info(ctx)
		if err != nil {
			return fmt.Errorf("fill the object store: %w", err)
		}
		room := info.Config.MaxBytes - int64(info.State.Bytes) - left
		if room <= 1024 {
			return nil
		}
		_, err = b.js.Publish(ctx, ballastSubject, make([]byte, min(room-512, chunk)))
		var refused *jetstream.APIError
		if errors.As(err, &refused) && refused.ErrorCode == 10077 { // it is full
			return nil
		}
		if err != nil {
			return fmt.Errorf("fill the object store: %w", err)
		}
	}
}

const ballastSubject = "$O.objects-" + Group + ".C.ballast"

// EmptyObjects takes out what FillObjects has put in.
func (b *Bus) EmptyObjects(ctx context.Context) error {
	stream, err := b.js.Stream(ctx, "OBJ_objects-"+Group)
	if err != nil {
		return err
	}
	return stream.Purge(ctx, jetstream.WithPurgeSubject(ballastSubject))
}

// takesCalls reports whether an API answers at all: before there is a worker it may name that as missing.
func (d *Daemon) takesCalls(ctx context.Context) error {
	err := d.Ready(ctx)
	if err != nil && strings.HasPrefix(err.Error(), "it answers 200") {
		return nil
	}
	return err
}

// LogSize is how much a part has said so far.
func (p *Process) LogSize() int64 {
	info, err := os.Stat(p.Log)
	if err != nil {
		return 0
	}
	return info.Size()
}
