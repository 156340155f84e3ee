package natsbus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faena"
)

// duplicateWindow is how long the server remembers a Nats-Msg-Id.
const duplicateWindow = 2 * time.Minute

// objectTTL is the default age at which an object is removed that its record's removal has left behind.
const objectTTL = 8 * 24 * time.Hour

// Declare makes every stream, bucket and consumer that all share, of the default group, and of the groups that DeclareGroup
// was called for, or brings them up to date. It may be called at every start and reconnection, by several daemons at once.
// An update by which the server would delete messages is refused.
func (b *Bus) Declare(ctx context.Context) error {
	shared := []jetstream.StreamConfig{
		b.bucket(usersBucket, jetstream.StreamConfig{MaxBytes: 40 << 20}),
		b.bucket(workersBucket, jetstream.StreamConfig{MaxBytes: 16 << 20, MaxAge: faena.HeartbeatTTL}),
		b.bucket(leasesBucket, jetstream.StreamConfig{MaxBytes: 1 << 20, MaxAge: faena.LeaseTTL}),
	}
	for _, cfg := range shared {
		if err := b.declareStream(ctx, cfg); err != nil {
			return err
		}
	}
	for _, group := range b.declared() {
		if err := b.declareGroup(ctx, group); err != nil {
			return err
		}
	}
	return b.readClock(ctx)
}

// DeclareGroup makes what belongs to a group, or brings it up to date.
func (b *Bus) DeclareGroup(ctx context.Context, group string) error {
	if err := b.declareGroup(ctx, group); err != nil {
		return err
	}
	b.mu.Lock()
	b.groups[group] = struct{}{}
	b.mu.Unlock()
	return nil
}

// RemoveGroup deletes what belongs to a group with all that is in it; what is absent is no error.
func (b *Bus) RemoveGroup(ctx context.Context, group string) error {
	b.ForgetGroup(group)
	for _, stream := range []string{queueStream(group), recordsStream(group), objectsStream(group)} {
		if err := b.js.DeleteStream(ctx, stream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("delete stream %s: %w", stream, err)
		}
	}
	return nil
}

// ForgetGroup makes Declare leave a group out from now on: somebody else has removed it.
func (b *Bus) ForgetGroup(group string) {
	b.mu.Lock()
	delete(b.groups, group)
	b.mu.Unlock()
}

func (b *Bus) declared() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.groups))
}

func (b *Bus) declareGroup(ctx context.Context, group string) error {
	for _, cfg := range []jetstream.StreamConfig{b.queueConfig(group), b.recordsConfig(group), b.objectsConfig(group)} {
		if err := b.declareStream(ctx, cfg); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		stream string
		config jetstream.ConsumerConfig
	}{
		{queueStream(group), jetstream.ConsumerConfig{Durable: workersConsumer, FilterSubject: queueSubjects(group),
			AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.o.AckWait, MaxDeliver: -1, MaxAckPending: -1, MaxWaiting: 8192,
			MaxRequestBatch: 1}},
		{recordsStream(group), jetstream.ConsumerConfig{Durable: recorderConsumer, FilterSubject: recordSubjects(group),
			AckPolicy: jetstream.AckExplicitPolicy, AckWait: recorderAckWait, MaxDeliver: -1, MaxAckPending: -1}},
	} {
		if _, err := b.js.CreateOrUpdateConsumer(ctx, c.stream, c.config); err != nil {
			return fmt.Errorf("declare consumer %s of group %s: %w", c.config.Durable, group, err)
		}
	}
	if err := b.anchorQueue(ctx, group); err != nil && !errors.Is(err, faena.ErrSlotTaken) { // another has been faster
		return fmt.Errorf("anchor the queue of group %s: %w", group, err)
	}
	if err := b.anchorRecords(ctx, group); err != nil {
		return fmt.Errorf("anchor the records of group %s: %w", group, err)
	}
	return nil
}

// queueConfig is the stream of a group's activations: one message for each slot in use, and a message stays until it is
// acknowledged. What is refused is refused at once.
func (b *Bus) queueConfig(group string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: queueStream(group), Subjects: []string{queueSubjects(group), queueAnchor(group)},
		Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: b.o.Replicas,
		Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1, MaxMsgSize: maxPayload,
		MaxBytes: b.o.queueBytes(), Duplicates: duplicateWindow,
	}
}

// recordsConfig is the bucket of a group's live records. It has no MaxBytes: a full bucket would block every settle. The soft
// limit is looked after by the APIs (see Fill).
func (b *Bus) recordsConfig(group string) jetstream.StreamConfig {
	return b.bucket(recordsBucket(group), jetstream.StreamConfig{})
}

// objectsConfig is the stream of a group's object store.
func (b *Bus) objectsConfig(group string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: objectsStream(group), Subjects: objectsSubjects(group), Storage: jetstream.FileStorage, Replicas: b.o.Replicas,
		Discard: jetstream.DiscardNew, AllowRollup: true, AllowDirect: false, MaxAge: b.o.ObjectTTL,
		MaxBytes: b.o.objectBytes(), Duplicates: min(duplicateWindow, b.o.ObjectTTL),
	}
}

// The shares of what a group may keep; what the users' counters take is little.
func (o Options) queueBytes() int64  { return o.GroupStore / 4 }
func (o Options) objectBytes() int64 { return o.GroupStore / 2 }
func (o Options) recordBytes() int64 { return o.GroupStore / 4 }

// bucket is the stream of a bucket, as a client of NATS's key-value store expects it, but for direct gets: those may
// answer with an older value than the last that was acknowledged.
func (b *Bus) bucket(name string, cfg jetstream.StreamConfig) jetstream.StreamConfig {
	cfg.Name, cfg.Subjects = bucketStream(name), []string{bucketSubjects(name)}
	cfg.MaxMsgsPerSubject, cfg.Discard = 1, jetstream.DiscardNew
	cfg.AllowRollup, cfg.DenyDelete, cfg.AllowDirect = true, true, false
	cfg.MaxMsgSize, cfg.Replicas, cfg.Duplicates = maxPayload, b.o.Replicas, duplicateWindow
	if cfg.MaxAge > 0 {
		cfg.Duplicates = min(cfg.Duplicates, cfg.MaxAge)
	}
	return cfg
}

func (b *Bus) declareStream(ctx context.Context, cfg jetstream.StreamConfig) error {
	have, err := b.js.Stream(ctx, cfg.Name)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("declare stream %s: %w", cfg.Name, err)
	}
	if err == nil {
		if why := loses(have.CachedInfo(), &cfg); why != "" {
			return fmt.Errorf("declare stream %s: the server would delete messages: %s", cfg.Name, why)
		}
	}
	if _, err := b.js.CreateOrUpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("declare stream %s: %w", cfg.Name, err)
	}
	return nil
}

// loses says which part of an update would delete messages, or nothing.
func loses(have *jetstream.StreamInfo, want *jetstream.StreamConfig) string {
	lower := func(now, then int64) bool { return then > 0 && (now <= 0 || then < now) }
	s := have.State
	switch {
	case s.Msgs == 0:
		return ""
	case lower(have.Config.MaxMsgsPerSubject, want.MaxMsgsPerSubject):
		return fmt.Sprintf("messages per subject from %d to %d", have.Config.MaxMsgsPerSubject, want.MaxMsgsPerSubject)
	case want.MaxBytes > 0 && s.Bytes > uint64(want.MaxBytes):
		return fmt.Sprintf("it holds %d bytes, its limit would be %d", s.Bytes, want.MaxBytes)
	case lower(int64(have.Config.MaxAge), int64(want.MaxAge)):
		return fmt.Sprintf("age from %v to %v", have.Config.MaxAge, want.MaxAge)
	}
	return ""
}
