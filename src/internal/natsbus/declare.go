package natsbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faena"
)

// duplicateWindow is how long the server remembers a Nats-Msg-Id.
const duplicateWindow = 2 * time.Minute

// objectTTL removes what its record's removal has left behind.
const objectTTL = 8 * 24 * time.Hour

// Declare makes every stream, bucket and consumer of the groups, or brings them up to date. It may be called at every
// start, by several daemons at once. An update by which the server would delete messages is refused.
func (b *Bus) Declare(ctx context.Context) error {
	shared := []jetstream.StreamConfig{
		b.bucket(usersBucket, jetstream.StreamConfig{MaxBytes: 64 << 20}),
		b.bucket(workersBucket, jetstream.StreamConfig{MaxBytes: 16 << 20, MaxAge: faena.HeartbeatTTL, Storage: jetstream.MemoryStorage}),
	}
	for _, cfg := range shared {
		if err := b.declareStream(ctx, cfg); err != nil {
			return err
		}
	}
	for _, group := range b.o.Groups {
		if err := b.declareGroup(ctx, group); err != nil {
			return err
		}
	}
	return b.setClock(ctx)
}

func (b *Bus) declareGroup(ctx context.Context, group string) error {
	queue := jetstream.StreamConfig{
		Name: queueStream(group), Subjects: []string{queueSubjects(group)}, Retention: jetstream.WorkQueuePolicy,
		Storage: jetstream.FileStorage, Replicas: b.o.Replicas, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
		MaxMsgsPerSubject: 1, MaxMsgSize: maxPayload, MaxBytes: b.queueBytes(), Duplicates: duplicateWindow,
	}
	// No MaxBytes: a full bucket would block every settle. The soft limit is looked after by the APIs (see Fill).
	records := b.bucket(recordsBucket(group), jetstream.StreamConfig{})
	for _, cfg := range []jetstream.StreamConfig{queue, records} {
		if err := b.declareStream(ctx, cfg); err != nil {
			return err
		}
	}
	if _, err := b.js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{
		Bucket: objectsBucket(group), TTL: objectTTL, MaxBytes: b.objectBytes(), Storage: jetstream.FileStorage, Replicas: b.o.Replicas,
	}); err != nil {
		return fmt.Errorf("declare the object store of group %s: %w", group, err)
	}
	workers := jetstream.ConsumerConfig{Durable: workersConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.o.AckWait,
		MaxDeliver: -1, MaxAckPending: -1, MaxWaiting: 8192, MaxRequestBatch: 1}
	if _, err := b.js.CreateOrUpdateConsumer(ctx, queue.Name, workers); err != nil {
		return fmt.Errorf("declare consumer %s of group %s: %w", workersConsumer, group, err)
	}
	recorder := jetstream.ConsumerConfig{Durable: recorderConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: recorderAckWait,
		MaxDeliver: -1, MaxAckPending: 4096}
	if _, err := b.js.CreateOrUpdateConsumer(ctx, records.Name, recorder); err != nil {
		return fmt.Errorf("declare consumer %s of group %s: %w", recorderConsumer, group, err)
	}
	return nil
}

// queueBytes and objectBytes share out what the servers may keep; the rest is for the live records.
func (b *Bus) queueBytes() int64  { return b.o.MaxStore / 4 }
func (b *Bus) objectBytes() int64 { return b.o.MaxStore / 2 }

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
