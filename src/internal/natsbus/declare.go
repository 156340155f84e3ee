package natsbus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
)

// duplicateWindow is how long the server remembers a Nats-Msg-Id.
const duplicateWindow = 2 * time.Minute

// claimsShare is the part of MaxStore, one in so many, that may be taken by what Idempotency-Keys stand for.
const claimsShare = 16

// objectTTL is the default age at which an object is removed that its record's removal has left behind.
const objectTTL = 8 * 24 * time.Hour

// What the heartbeats of a group may be: what one worker's key can store there costs the others nothing.
const (
	beatsStore   = 1 << 20
	beatsMost    = 1000 // workers, and those that have just gone
	maxBeat      = 16 << 10
	oldBeatStore = 16 << 20 // of all groups, before each had its own
)

// deadLettersMost is how many dead letters a group keeps: what one worker's key can store there is listed by every API that is asked.
const deadLettersMost = 100_000

// Declare makes every stream, bucket and consumer that all share, of the default group, and of the groups that DeclareGroup
// was called for, or brings them up to date. It may be called at every start and reconnection, by several daemons at once,
// and changes nothing that is as it should be. An update by which the server would delete messages is refused. What an
// operator must mend is a *Misfit.
func (b *Bus) Declare(ctx context.Context) error {
	before := b.nc.LastError()
	return b.explain(before, b.declare(ctx))
}

func (b *Bus) declare(ctx context.Context) error {
	if err := b.preflight(ctx); err != nil {
		return err
	}
	if err := b.removeShared(ctx); err != nil {
		return err
	}
	groups := b.declared()
	streams := b.sharedConfigs()
	for _, group := range groups {
		streams = append(streams, b.groupConfigs(group)...)
	}
	if err := b.declareStreams(ctx, streams); err != nil {
		return err
	}
	for _, group := range groups {
		if err := b.completeGroup(ctx, group); err != nil {
			return err
		}
	}
	b.warnOfTwo(ctx)
	return b.readClock(ctx)
}

// DeclareGroup makes what belongs to a group, or brings it up to date. Its errors are those of Declare.
func (b *Bus) DeclareGroup(ctx context.Context, group string) error {
	before := b.nc.LastError()
	err := b.declareStreams(ctx, b.groupConfigs(group))
	if err == nil {
		err = b.completeGroup(ctx, group)
	}
	if err != nil {
		return b.explain(before, err)
	}
	b.mu.Lock()
	b.groups[group] = struct{}{}
	b.mu.Unlock()
	return nil
}

// RemoveGroup deletes what belongs to a group with all that is in it; what is absent is no error.
func (b *Bus) RemoveGroup(ctx context.Context, group string) error {
	b.ForgetGroup(group)
	for _, c := range b.groupConfigs(group) {
		if err := b.removeStream(ctx, c.Name); err != nil {
			return err
		}
	}
	return nil
}

// removeStream deletes a stream; one that is absent is no error.
func (b *Bus) removeStream(ctx context.Context, stream string) error {
	if err := b.js.DeleteStream(ctx, stream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("delete stream %s: %w", stream, err)
	}
	return nil
}

// removeShared deletes the bucket that the heartbeats of all groups were in: room is reserved for it. Another program's of that
// name stays.
func (b *Bus) removeShared(ctx context.Context) error {
	stream := bucketStream(sharedWorkersBucket)
	info, err := b.streamInfo(ctx, stream)
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", stream, err)
	}
	if info == nil || info.Config.MaxAge != faena.HeartbeatTTL || info.Config.MaxBytes != oldBeatStore {
		return nil
	}
	return b.removeStream(ctx, stream)
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

// sharedConfigs are the streams that belong to all.
func (b *Bus) sharedConfigs() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		b.bucket(usersBucket, jetstream.StreamConfig{MaxBytes: 24 << 20}),
		b.bucket(claimsBucket, jetstream.StreamConfig{MaxBytes: b.o.MaxStore / claimsShare, MaxAge: faena.IdempotencyTTL}),
		b.bucket(leasesBucket, jetstream.StreamConfig{MaxBytes: 1 << 20, MaxAge: faena.LeaseTTL}),
	}
}

// groupConfigs are the streams of a group.
func (b *Bus) groupConfigs(group string) []jetstream.StreamConfig {
	return []jetstream.StreamConfig{b.queueConfig(group), b.backlogConfig(group), b.deadLettersConfig(group), b.recordsConfig(group), b.objectsConfig(group), b.beatsConfig(group)}
}

// consumer is a durable consumer of a stream.
type consumer struct {
	stream string
	config jetstream.ConsumerConfig
}

// consumers are those of a group.
func (b *Bus) consumers(group string) []consumer {
	return []consumer{
		{queueStream(group), jetstream.ConsumerConfig{Durable: workersConsumer, FilterSubject: queueSubjects(group),
			AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.o.AckWait, MaxDeliver: -1, MaxAckPending: -1, MaxWaiting: 8192,
			MaxRequestBatch: 1}},
		{recordsStream(group), jetstream.ConsumerConfig{Durable: recorderConsumer, FilterSubject: recordSubjects(group),
			AckPolicy: jetstream.AckExplicitPolicy, AckWait: recorderAckWait, MaxDeliver: -1, MaxAckPending: -1}},
	}
}

// completeGroup makes what stands on a group's streams: the consumers and the anchors.
func (b *Bus) completeGroup(ctx context.Context, group string) error {
	for _, c := range b.consumers(group) {
		if err := b.declareConsumer(ctx, c); err != nil {
			return err
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

// backlogConfig is the stream of what waits for a slot, oldest first.
func (b *Bus) backlogConfig(group string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: backlogStream(group), Subjects: []string{backlogSubjects(group)}, Storage: jetstream.FileStorage, Replicas: b.o.Replicas,
		Discard: jetstream.DiscardNew, MaxMsgsPerSubject: 1, MaxMsgSize: maxPayload, MaxBytes: b.o.backlogBytes(), Duplicates: duplicateWindow,
	}
}

// deadLettersConfig is the stream of what nobody will run. It never stops a worker from settling: the oldest make room, and what
// has become of them is in history.
func (b *Bus) deadLettersConfig(group string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: deadLettersStream(group), Subjects: []string{deadLetterSubjects(group)}, Storage: jetstream.FileStorage, Replicas: b.o.Replicas,
		Discard: jetstream.DiscardOld, MaxMsgsPerSubject: 1, MaxMsgSize: maxPayload, MaxBytes: b.o.deadLetterBytes(), MaxMsgs: deadLettersMost, MaxAge: b.o.ObjectTTL,
		Duplicates: min(duplicateWindow, b.o.ObjectTTL),
	}
}

// recordsConfig is the bucket of a group's live records. It has no MaxBytes: a full bucket would block every settle. The soft
// limit is looked after by the APIs (see Fill).
func (b *Bus) recordsConfig(group string) jetstream.StreamConfig {
	return b.bucket(recordsBucket(group), jetstream.StreamConfig{})
}

// beatsConfig is the bucket of a group's heartbeats. Each group has its own: it can be filled by whoever has a worker's key.
func (b *Bus) beatsConfig(group string) jetstream.StreamConfig {
	return b.bucket(workersBucket(group), jetstream.StreamConfig{MaxBytes: beatsStore, MaxMsgs: beatsMost, MaxMsgSize: maxBeat,
		MaxAge: faena.HeartbeatTTL})
}

// objectsConfig is the stream of a group's object store.
func (b *Bus) objectsConfig(group string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: objectsStream(group), Subjects: objectsSubjects(group), Storage: jetstream.FileStorage, Replicas: b.o.Replicas,
		Discard: jetstream.DiscardNew, AllowRollup: true, AllowMsgTTL: true, AllowDirect: false, MaxAge: b.o.ObjectTTL,
		MaxBytes: b.o.objectBytes(), Duplicates: min(duplicateWindow, b.o.ObjectTTL),
	}
}

// The shares of what a group may keep; what the users' counters take is little.
func (o Options) queueBytes() int64      { return o.GroupStore / 16 * 3 }
func (o Options) backlogBytes() int64    { return o.GroupStore / 16 * 3 }
func (o Options) deadLetterBytes() int64 { return o.GroupStore / 16 }
func (o Options) objectBytes() int64     { return o.GroupStore / 16 * 5 }
func (o Options) recordBytes() int64     { return o.GroupStore / 16 * 4 }

// bucket is the stream of a bucket, as a client of NATS's key-value store expects it, but for direct gets: those may
// answer with an older value than the last that was acknowledged; and for rollups: a worker could purge the bucket by one.
func (b *Bus) bucket(name string, cfg jetstream.StreamConfig) jetstream.StreamConfig {
	cfg.Name, cfg.Subjects = bucketStream(name), []string{bucketSubjects(name)}
	cfg.MaxMsgsPerSubject, cfg.Discard = 1, jetstream.DiscardNew
	cfg.AllowRollup, cfg.DenyDelete, cfg.AllowDirect = false, true, false
	cfg.MaxMsgSize = cmp.Or(cfg.MaxMsgSize, maxPayload)
	cfg.Replicas, cfg.Duplicates = b.o.Replicas, duplicateWindow
	if cfg.MaxAge > 0 {
		cfg.Duplicates = min(cfg.Duplicates, cfg.MaxAge)
	}
	return cfg
}

// declareStreams makes or updates those that are not as they should be. All are looked at before one is changed.
func (b *Bus) declareStreams(ctx context.Context, want []jetstream.StreamConfig) error {
	have := make(map[string]*jetstream.StreamInfo, len(want))
	var mu sync.Mutex
	var asks errgroup.Group
	asks.SetLimit(parallel)
	for _, w := range want {
		asks.Go(func() error {
			info, err := b.streamInfo(ctx, w.Name)
			if err != nil {
				return fmt.Errorf("look at stream %s: %w", w.Name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			have[w.Name] = info
			return nil
		})
	}
	if err := asks.Wait(); err != nil {
		return err
	}
	if err := replicated(have, want); err != nil {
		return err
	}
	// What is to reserve less comes first: the servers may have no room for the others before that.
	want = slices.Clone(want)
	slices.SortStableFunc(want, func(a, b jetstream.StreamConfig) int {
		return cmp.Compare(frees(have[b.Name], b), frees(have[a.Name], a))
	})
	for i := range want {
		if err := b.declareStream(ctx, have[want[i].Name], &want[i]); err != nil {
			return err
		}
	}
	return nil
}

// frees is how much less a stream would reserve than it does.
func frees(have *jetstream.StreamInfo, want jetstream.StreamConfig) int64 {
	if have == nil {
		return 0
	}
	return max(0, have.Config.MaxBytes-max(0, want.MaxBytes))
}

// streamInfo describes a stream; nil where there is none.
func (b *Bus) streamInfo(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, preflightFor)
	defer cancel()
	info := new(jetstream.StreamInfo)
	err := b.ask(ctx, api("STREAM.INFO", stream), nil, info)
	if isCode(err, codeNoStream) {
		return nil, nil
	}
	return info, err
}

func (b *Bus) declareStream(ctx context.Context, have *jetstream.StreamInfo, want *jetstream.StreamConfig) error {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	if have == nil {
		if _, err := b.js.CreateStream(ctx, *want); err != nil {
			return b.refused(ctx, nil, want, err)
		}
		return nil
	}
	changed := kept(have.Config, *want)
	if want.MaxBytes > 0 && have.State.Bytes > uint64(want.MaxBytes) {
		// Its share was lowered. It keeps what it may hold until it holds no more than its share: see DESIGN.md.
		changed.MaxBytes = have.Config.MaxBytes
	}
	if sameStream(have.Config, changed) {
		return nil
	}
	why, err := b.loses(ctx, have, &changed)
	if why != "" && strings.HasPrefix(want.Name, objectsPrefix) {
		// The retention was shortened: objects keep their age until none is older, their records take most with them.
		changed.MaxAge = have.Config.MaxAge
		why, err = b.loses(ctx, have, &changed)
	}
	if err != nil {
		return fmt.Errorf("declare stream %s: %w", want.Name, err)
	}
	if why != "" {
		return misfit(nil, "stream %s was changed, and if it were declared again messages would be lost: %s. Nothing is changed: remove what is "+
			"too much (nats stream view %s, %s), or change it back yourself with nats stream update %s",
			want.Name, why, want.Name, removal(want), want.Name)
	}
	if _, err := b.js.UpdateStream(ctx, changed); err != nil {
		return b.refused(ctx, have, want, err)
	}
	return nil
}

func (b *Bus) declareConsumer(ctx context.Context, c consumer) error {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	have := new(jetstream.ConsumerInfo)
	err := b.ask(ctx, consumerInfo(c.stream, c.config.Durable), nil, have)
	existed := err == nil
	if existed && sameConsumer(have.Config, c.config) {
		return nil
	}
	if existed || isCode(err, codeNoConsumer) {
		_, err = b.js.CreateOrUpdateConsumer(ctx, c.stream, c.config)
	}
	if code, _ := codeOf(err); code == codeConsumerFixed && existed {
		return misfit(err, "consumer %s of stream %s was changed, and the NATS server does not let it be changed back: remove it with "+
			"nats consumer rm %s %s; it is made anew then", c.config.Durable, c.stream, c.stream, c.config.Durable)
	}
	if err != nil {
		return fmt.Errorf("declare consumer %s of stream %s: %w", c.config.Durable, c.stream, err)
	}
	return nil
}
