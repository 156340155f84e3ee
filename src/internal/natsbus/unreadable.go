package natsbus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
)

// What bounds a look for what cannot be read: of each stream, and of all.
const (
	scanMessages = 2000
	scanBytes    = 32 << 20
	scanFor      = 5 * time.Second
	// scanAhead is how far a look goes into what no worker has met.
	scanAhead = 100
	// unreadRemembered bounds what this process remembers of what it has met.
	unreadRemembered = 1000
)

// schemaError is faena.ErrSchema with the version that was met; 0 where even that cannot be read.
type schemaError struct{ version int }

func (e *schemaError) Error() string {
	return fmt.Sprintf("%v: %d, this build reads %d", faena.ErrSchema, e.version, faena.SchemaVersion)
}

func (e *schemaError) Unwrap() error { return faena.ErrSchema }

// checkSchema accepts this build's version and the one before it.
func checkSchema(version int) error {
	if version < 1 || version > faena.SchemaVersion || version < faena.SchemaVersion-1 {
		return &schemaError{version}
	}
	return nil
}

// misread is why p could not be decoded: what another version wrote may have another form altogether.
func misread(p []byte, err error) error {
	var v struct {
		Schema json.RawMessage `json:"schema"`
	}
	if json.Unmarshal(p, &v) != nil {
		return err // of no version
	}
	version, _ := strconv.Atoi(string(v.Schema))
	return cmp.Or(checkSchema(version), err)
}

// unknownSchema gives an error of another version its meaning for who asks for an activation; any other is returned as it is.
func unknownSchema(id string, err error) error {
	if !errors.Is(err, faena.ErrSchema) {
		return err
	}
	return &faena.Error{Kind: faena.KindUnavailable, Reason: "schema_unknown", Component: faena.ComponentQueue, Retryable: true,
		RetryAfter: 10 * time.Second, Activation: id, Err: err,
		Message: "Another version of Faena has written the activation, and this one does not read it. It is not lost: ask again when the upgrade is complete."}
}

// unread is what this process has met and could not read. The zero value is ready for use.
type unread struct {
	mu    sync.Mutex
	met   map[string]faena.Unreadable // by subject
	tells []func(where string)
}

// OnUnreadable calls fn whenever a message or record of another version is met and put back; where is "queue" or "records".
// It is called before the bus is used, and fn returns at once.
func (b *Bus) OnUnreadable(fn func(where string)) {
	b.unread.mu.Lock()
	defer b.unread.mu.Unlock()
	b.unread.tells = append(b.unread.tells, fn)
}

// note remembers what was met, and reports whether it is new.
func (u *unread) note(subject string, what faena.Unreadable) (first bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, fn := range u.tells {
		fn(what.Where)
	}
	if old, known := u.met[subject]; known && old.Sequence == what.Sequence {
		return false
	}
	if u.met == nil || len(u.met) >= unreadRemembered {
		u.met = make(map[string]faena.Unreadable)
	}
	u.met[subject] = what
	return true
}

// remembered returns what was met in a group's stream.
func (u *unread) remembered(where, group string) map[string]faena.Unreadable {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make(map[string]faena.Unreadable)
	for subject, what := range u.met {
		if what.Where == where && what.Group == group {
			out[subject] = what
		}
	}
	return out
}

func (u *unread) forget(subject string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.met, subject)
}

// Unreadable lists messages and records of the groups that this build cannot read, at most faena.MaxUnreadable. It looks
// through what was delivered and not acknowledged, which is what runs and what nobody reads, and remembers what this process
// has met. It is bounded, also by time: what it has found then it returns.
func (b *Bus) Unreadable(ctx context.Context, groups []string) ([]faena.Unreadable, error) {
	ctx, cancel := context.WithTimeout(ctx, scanFor)
	defer cancel()
	var mu sync.Mutex
	var out []faena.Unreadable
	var scans errgroup.Group
	scans.SetLimit(parallel)
	for _, group := range groups {
		for _, s := range []scan{
			{where: whereQueue, group: group, stream: queueStream(group), filter: queueSubjects(group), consumer: workersConsumer},
			{where: whereRecords, group: group, stream: recordsStream(group), filter: recordSubjects(group), consumer: recorderConsumer},
		} {
			scans.Go(func() error {
				found, err := s.run(ctx, b)
				mu.Lock()
				defer mu.Unlock()
				out = append(out, found...)
				return err
			})
		}
	}
	err := scans.Wait()
	slices.SortFunc(out, func(a, b faena.Unreadable) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Where, b.Where), cmp.Compare(a.Sequence, b.Sequence))
	})
	if ctx.Err() != nil && len(out) > 0 {
		err = nil
	}
	return out[:min(len(out), faena.MaxUnreadable)], err
}

// Where something stands that cannot be read.
const (
	whereQueue   = "queue"
	whereRecords = "records"
)

// scan is a look at one stream.
type scan struct{ where, group, stream, filter, consumer string }

func (s scan) run(ctx context.Context, b *Bus) (found []faena.Unreadable, err error) {
	known := make(map[uint64]bool)
	for subject, what := range b.unread.remembered(s.where, s.group) {
		m, ok, err := b.last(ctx, s.stream, subject)
		switch {
		case err != nil:
			return found, fmt.Errorf("look into stream %s: %w", s.stream, err)
		case ok && m.Sequence == what.Sequence:
			found, known[what.Sequence] = append(found, what), true
		default:
			b.unread.forget(subject)
		}
	}
	info := new(jetstream.ConsumerInfo)
	if err := b.ask(ctx, consumerInfo(s.stream, s.consumer), nil, info); err != nil {
		return found, fmt.Errorf("look at consumer %s of stream %s: %w", s.consumer, s.stream, err)
	}
	unmet, bytes := 0, 0
	for first, count := uint64(1), 0; count < scanMessages && bytes < scanBytes && unmet < scanAhead && len(found) < faena.MaxUnreadable; count++ {
		// A recorder acknowledges at once what it reads: where nothing else is left to be acknowledged there is nothing to find.
		if s.where == whereRecords && len(found) >= info.NumAckPending {
			break
		}
		m, ok, err := b.after(ctx, s.stream, s.filter, first)
		if err != nil {
			return found, fmt.Errorf("look through stream %s: %w", s.stream, err)
		}
		if !ok {
			break
		}
		if first, bytes = m.Sequence+1, bytes+len(m.Data); m.Sequence > info.Delivered.Stream {
			unmet++
		}
		if what, is := s.unreadable(b, &m); is && !known[m.Sequence] {
			found = append(found, what)
		}
	}
	return found, nil
}

// unreadable describes a message or record that cannot be decoded.
func (s scan) unreadable(b *Bus, m *stored) (what faena.Unreadable, is bool) {
	var err error
	if s.where == whereQueue {
		_, err = b.code.decode(m.Data)
	} else {
		_, err = b.recordAt(m.Subject, m.Data)
	}
	if err == nil {
		return faena.Unreadable{}, false
	}
	return describe(s.where, s.group, m.Subject, m.header(headerMsgID), m.Sequence, err), true
}

// describe says what is known of something that err does not let read. messageID is that of a message, "" of a record.
func describe(where, group, subject, messageID string, sequence uint64, err error) faena.Unreadable {
	what := faena.Unreadable{Where: where, Group: group, Sequence: sequence, Problem: oneLine(err)}
	if e, ok := errors.AsType[*schemaError](err); ok {
		what.Schema = e.version
	}
	if where == whereQueue {
		what.User, _, _ = slotOf(subject)
		what.ID, _ = activationOf(messageID)
	} else {
		what.User, what.ID, _ = recordOf(subject)
	}
	return what
}
