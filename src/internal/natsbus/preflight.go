package natsbus

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// minVersion is the oldest server whose streams keep what is promised here.
	minVersion = "2.12"
	// preflightFor bounds each question of the preflight: who may not ask is given no answer.
	preflightFor = 2 * time.Second
)

// Misfit is what only an operator can mend: a server, a stream or a setting is not as this daemon needs it. Error is one line
// that says which, and what to do. Nothing is remembered of it: the same call succeeds once that is done. Every other error
// of Declare and DeclareGroup means "not yet": no connection, no leader, no answer.
type Misfit struct {
	Problem string
	Err     error // the server's words, or nil
}

// Error is one line.
func (m *Misfit) Error() string {
	s := m.Problem
	if m.Err != nil {
		s += " (" + m.Err.Error() + ")"
	}
	return strings.Join(strings.Fields(s), " ")
}

// Unwrap returns the server's words.
func (m *Misfit) Unwrap() error { return m.Err }

func misfit(err error, format string, args ...any) *Misfit {
	return &Misfit{Problem: fmt.Sprintf(format, args...), Err: err}
}

// preflight looks at the server that this daemon is connected to: after a reconnection it may be another.
func (b *Bus) preflight(ctx context.Context) error {
	version := b.nc.ConnectedServerVersion()
	if version == "" {
		return errors.New("there is no connection to NATS")
	}
	if tooOld(version) {
		return misfit(nil, "the NATS server %s is version %s, Faena needs %s or newer: upgrade it", b.server(), version, minVersion)
	}
	ctx, cancel := context.WithTimeout(ctx, preflightFor)
	defer cancel()
	if err := b.ask(ctx, accountInfo, nil, nil); err != nil {
		return fmt.Errorf("ask JetStream about the account: %w", err)
	}
	return nil
}

// server is the one that this daemon is connected to, for people.
func (b *Bus) server() string {
	if b.o.Server != nil {
		return "in this process"
	}
	return strings.TrimSpace(b.nc.ConnectedServerName() + " " + b.nc.ConnectedUrlRedacted())
}

// tooOld compares a server's version with minVersion. One that is not written as usual is taken for new.
func tooOld(version string) bool {
	var major, minor, least, leastMinor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n != 2 {
		return false
	}
	if n, _ := fmt.Sscanf(minVersion, "%d.%d", &least, &leastMinor); n != 2 {
		return false
	}
	return major < least || major == least && minor < leastMinor
}

// explain makes an error of JetStream a Misfit where an operator must do something, whatever was asked. before is the
// connection's last error when that was asked: a server does not answer a request that it does not permit, it complains.
func (b *Bus) explain(before, err error) error {
	if err == nil {
		return nil
	}
	if _, known := errors.AsType[*Misfit](err); known {
		return err
	}
	if now := b.nc.LastError(); now != before && errors.Is(now, nats.ErrPermissionViolation) {
		return misfit(now, "the NATS server %s does not permit this daemon what it needs: the key in FAENA_NATS_NKEY_FILE is another role's, "+
			"or the servers lack the authorization that faena-api nats-config prints", b.server())
	}
	switch code, _ := codeOf(err); {
	case errors.Is(err, nats.ErrNoResponders) && b.o.confined():
		return misfit(err, "the NATS server %s lets workers of group %s ask for nothing: its configuration lacks what faena-api nats-config prints "+
			"for the group", b.server(), b.o.Group)
	case errors.Is(err, nats.ErrNoResponders), code == codeDisabled:
		return misfit(err, "the NATS server %s runs without JetStream: give its configuration jetstream { store_dir, max_file_store }", b.server())
	case code == codeDisabledForAccount:
		return misfit(err, "the NATS server %s has JetStream, but not for the account of this daemon's identity: "+
			"give that account jetstream: enabled, or use the key of another in FAENA_NATS_NKEY_FILE", b.server())
	}
	return err
}

// codeOf is the number and the text of an error of JetStream's, ours or the library's; 0 for any other error.
func codeOf(err error) (code int, text string) {
	if e, ok := errors.AsType[*apiError](err); ok {
		return e.ErrorCode, e.Description
	}
	var theirs jetstream.JetStreamError
	if errors.As(err, &theirs) && theirs.APIError() != nil {
		return int(theirs.APIError().ErrorCode), theirs.APIError().Description
	}
	return 0, ""
}

// refused explains why the servers do not make or change a stream. have is nil for one that is to be made.
func (b *Bus) refused(ctx context.Context, have *jetstream.StreamInfo, want *jetstream.StreamConfig, err error) error {
	code, text := codeOf(err)
	switch {
	case code == codeNoPeers && strings.Contains(text, "insufficient storage"),
		code == codeStorageFull, code == codeServerFull, code == codeAccountFull:
		return misfit(err, "stream %s may keep %s, and no NATS server has so much of its max_file_store left: raise max_file_store "+
			"(and FAENA_NATS_MAX_STORE with it), or lower FAENA_GROUP_MAX_STORE, now %s, of which a group's streams reserve three quarters",
			want.Name, size(want.MaxBytes), size(b.o.GroupStore))
	case code == codeNoPeers && want.Replicas > 1, code == codeNotClustered:
		return b.tooFew(ctx, want, err)
	case code == codeOverlap:
		return misfit(err, "stream %s cannot be made: another stream takes some of its subjects (%s): remove it, or these subjects from it",
			want.Name, strings.Join(want.Subjects, ", "))
	case (code == codeBadConfig || code == codeUpdate) && have != nil:
		return misfit(err, "stream %s was changed, and the NATS server does not let it be changed back: when nothing is in it any more remove it with "+
			"nats stream rm %s; it is made anew then", want.Name, want.Name)
	}
	return fmt.Errorf("declare stream %s: %w", want.Name, err)
}

// tooFew explains that a stream has not the servers that it needs, unless they are there by now.
func (b *Bus) tooFew(ctx context.Context, want *jetstream.StreamConfig, err error) error {
	var there []string
	for _, s := range b.probe(ctx) {
		if s.jetstream {
			there = append(there, s.Name)
		}
	}
	if code, _ := codeOf(err); code != codeNotClustered && len(there) >= want.Replicas {
		return fmt.Errorf("declare stream %s: %w", want.Name, err)
	}
	slices.Sort(there)
	return misfit(err, "FAENA_NATS_REPLICAS is %d, and stream %s needs as many NATS servers with JetStream in one cluster; there are %d: %s. "+
		"Start the others, or set FAENA_NATS_REPLICAS=1 on every daemon", want.Replicas, want.Name, len(there), strings.Join(there, ", "))
}

// replicated checks that every stream has as many replicas as the setting says. They are not changed here: two daemons with
// different settings would undo each other's.
func replicated(have map[string]*jetstream.StreamInfo, want []jetstream.StreamConfig) error {
	var others []string
	first := 0
	for _, w := range want {
		if h := have[w.Name]; h != nil && h.Config.Replicas != w.Replicas {
			others = append(others, w.Name)
			if len(others) == 1 {
				first = h.Config.Replicas
			}
		}
	}
	if len(others) == 0 {
		return nil
	}
	wanted := want[0].Replicas
	return misfit(nil, "FAENA_NATS_REPLICAS is %d, stream %s has %d%s: change them with nats stream update %s --replicas %d, "+
		"or set FAENA_NATS_REPLICAS=%d on every daemon", wanted, others[0], first, andOthers(others[1:]), others[0], wanted, first)
}

func andOthers(names []string) string {
	switch {
	case len(names) == 0:
		return ""
	case len(names) > 8:
		return fmt.Sprintf(", and so it is with %s and %d more", strings.Join(names[:8], ", "), len(names)-8)
	}
	return ", and so it is with " + strings.Join(names, ", ")
}

// loses says which part of an update would make the server delete messages that it holds, or take none of a kind any more;
// "" where nothing is lost. What a stream may hold is given as our declaration has it.
func (b *Bus) loses(ctx context.Context, have *jetstream.StreamInfo, want *jetstream.StreamConfig) (string, error) {
	lower := func(now, then int64) bool { return then > 0 && (now <= 0 || then < now) }
	s, now := have.State, have.Config
	switch {
	case s.Msgs == 0:
		return "", nil
	case lower(now.MaxMsgsPerSubject, want.MaxMsgsPerSubject) && s.Msgs > s.NumSubjects:
		return fmt.Sprintf("it holds %d messages of %d subjects, and %d of a subject is all that it may (max-msgs-per-subject is %d)",
			s.Msgs, s.NumSubjects, want.MaxMsgsPerSubject, now.MaxMsgsPerSubject), nil
	case want.MaxMsgs > 0 && s.Msgs > uint64(want.MaxMsgs):
		return fmt.Sprintf("it holds %d messages, and %d is all that it may", s.Msgs, want.MaxMsgs), nil
	case lower(int64(now.MaxAge), int64(want.MaxAge)) && b.ServerNow().Sub(s.FirstTime) > want.MaxAge:
		return fmt.Sprintf("it holds what is from %s, and %s is the age that it may have (max-age is %s)",
			s.FirstTime.UTC().Format(time.RFC3339), want.MaxAge, now.MaxAge), nil
	case want.Retention == jetstream.InterestPolicy && now.Retention != want.Retention:
		return "what nobody is to be given would be deleted (retention)", nil
	}
	for _, subject := range now.Subjects {
		if slices.Contains(want.Subjects, subject) {
			continue
		}
		found, err := b.subjects(ctx, want.Name, subject)
		if err != nil {
			return "", err
		}
		if ours := within(want.Subjects, found); len(found) > ours {
			return fmt.Sprintf("it holds messages of %d other subjects, of %s, which it would not take any more", len(found)-ours, subject), nil
		}
	}
	return "", nil
}

// removal is how an operator removes something from a stream: a bucket permits no deletion of single messages.
func removal(stream *jetstream.StreamConfig) string {
	if stream.DenyDelete {
		return "nats stream purge " + stream.Name + " --subject 'SUBJECT', with --keep 1 where its last message is to stay"
	}
	return "nats stream rmm " + stream.Name + " SEQUENCE"
}

// within counts the subjects that one of the filters matches.
func within(filters []string, subjects map[string]uint64) (n int) {
	for subject := range subjects {
		if slices.ContainsFunc(filters, func(filter string) bool { return matches(filter, subject) }) {
			n++
		}
	}
	return n
}

// matches reports whether a filter with the wildcards * and > matches a subject.
func matches(filter, subject string) bool {
	f, s := strings.Split(filter, "."), strings.Split(subject, ".")
	for i, token := range f {
		switch {
		case token == ">":
			return len(s) > i
		case i >= len(s), token != "*" && token != s[i]:
			return false
		}
	}
	return len(f) == len(s)
}

// kept returns our declaration with what an operator may choose as it is: where a stream stands and what is said of it.
func kept(have, want jetstream.StreamConfig) jetstream.StreamConfig {
	want.Description, want.Placement, want.Metadata, want.Compression = have.Description, have.Placement, have.Metadata, have.Compression
	return want
}

// sameStream reports whether a stream is as declared. The server writes -1 for what has no limit.
func sameStream(have, want jetstream.StreamConfig) bool {
	for _, c := range []*jetstream.StreamConfig{&have, &want} {
		c.MaxMsgs, c.MaxBytes, c.MaxMsgsPerSubject = limit(c.MaxMsgs), limit(c.MaxBytes), limit(c.MaxMsgsPerSubject)
		c.MaxConsumers, c.MaxMsgSize, c.Metadata = limit(c.MaxConsumers), limit(c.MaxMsgSize), nil
	}
	return reflect.DeepEqual(have, want)
}

// sameConsumer likewise. An operator may pause one.
func sameConsumer(have, want jetstream.ConsumerConfig) bool {
	for _, c := range []*jetstream.ConsumerConfig{&have, &want} {
		c.Name, c.Metadata, c.PauseUntil = c.Durable, nil, nil
		if c.MaxWaiting == 0 {
			c.MaxWaiting = jetstreamMaxWaiting
		}
	}
	return reflect.DeepEqual(have, want)
}

// jetstreamMaxWaiting is how many pulls a consumer takes at once unless told otherwise.
const jetstreamMaxWaiting = 512

func limit[T int | int32 | int64](n T) T {
	if n <= 0 {
		return -1
	}
	return n
}

// size writes bytes for people; 0 is no limit.
func size(n int64) string {
	switch {
	case n <= 0:
		return "any number of bytes"
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}
