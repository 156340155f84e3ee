package mongostore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"

	"faena.dev/faena/internal/faena"
)

// How long the background waits before it tries again.
const (
	retryAfter    = 500 * time.Millisecond
	retryAfterMax = 15 * time.Second
)

// How long all indexes together may take: a minute, and twice as long at each further try. MongoDB ends a build when its command's
// time is over, and the next one begins anew, so a limit that stays the same would never be enough for a long history.
const (
	indexTimeout    = time.Minute
	indexTimeoutMax = 8 * time.Hour
)

const noReplicaSet = "MongoDB is no replica set: where its only server is away nothing can be changed, where its disk is lost all is, " +
	"and a change that loses its connection is not repeated. Start mongod with --replSet and call rs.initiate(), also for one server."

// attempt is one try to prepare the store. All calls that come meanwhile wait for its end.
type attempt struct {
	done chan struct{}
	err  error
}

// ready returns when the store is prepared, or why it is not.
//
//	opened ──first answer──► prepared: schema known, calls are served ──► indexed: every index is there ──► erasures finished
func (s *Store) ready(ctx context.Context) error {
	if s.db.Load() != nil {
		return nil
	}
	s.mu.Lock()
	a := s.attempt
	if a == nil {
		a = &attempt{done: make(chan struct{})}
		s.attempt = a
		s.calls.Go(func() { // whoever waits for it may give up earlier
			a.err = s.prepare(s.life)
			s.mu.Lock()
			s.attempt = nil
			s.mu.Unlock()
			close(a.done)
		})
	}
	s.mu.Unlock()
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return s.failed(ctx, ctx.Err())
	}
}

// prepare asks the server what it is, and checks who has written the database.
func (s *Store) prepare(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	var hello struct {
		SetName string `bson:"setName"`
		Msg     string `bson:"msg"` // of a router of shards: isdbgrid
	}
	if err := s.client.Database("admin").RunCommand(limited, is("hello", 1)).Decode(&hello); err != nil {
		return s.failed(ctx, err)
	}
	db := s.client.Database(s.o.Database)
	if hello.SetName != "" || hello.Msg == "isdbgrid" {
		// What a caller was told cannot be undone when another server becomes the primary one.
		db = s.client.Database(s.o.Database, options.Database().SetReadConcern(readconcern.Majority()))
	} else if warning := noReplicaSet; s.warning.CompareAndSwap(nil, &warning) {
		s.o.Logger.LogAttrs(ctx, slog.LevelWarn, "the document store is no replica set", slog.String("advice", noReplicaSet))
	}
	if err := s.checkSchema(ctx, db); err != nil {
		return err
	}
	s.db.Store(db)
	return nil
}

// checkSchema writes the version of a new database, and refuses one that a newer version has written.
func (s *Store) checkSchema(ctx context.Context, db *mongo.Database) error {
	meta := collection{s, db.Collection(metaCollection)}
	raw, err := meta.one(ctx, byID(schemaID))
	if err != nil {
		return err
	}
	if raw == nil {
		_, err := meta.insert(ctx, schemaDocument{ID: schemaID, Schema: faena.SchemaVersion})
		return err
	}
	if _, err := decode[schemaDocument](raw); err != nil {
		e := faena.Unavailable(faena.ComponentStore, "store_schema",
			"A newer version of Faena has written the document store. Install that version again.", err)
		e.Retryable = false
		return e
	}
	return nil
}

// background prepares the store, then creates the indexes, then finishes erasures, each as often as it takes.
func (s *Store) background() {
	defer close(s.idle)
	limit := s.o.indexTimeout
	index := func(ctx context.Context) error {
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		limit = min(2*limit, indexTimeoutMax)
		return s.index(limited)
	}
	_ = s.persist("prepare the document store", s.ready) &&
		s.persist("create the indexes of the document store", index) &&
		s.persist("finish the erasure of users", s.finishErasures)
}

// index creates the indexes. Until it succeeds Ping says why not.
func (s *Store) index(ctx context.Context) error {
	err := s.createIndexes(ctx)
	if err != nil {
		s.behind.Store(&err)
		return err
	}
	s.behind.Store(nil)
	s.indexed.Store(true)
	return nil
}

// persist calls fn until it succeeds; false where the store was closed before. The first failure is logged, and that it is over.
func (s *Store) persist(action string, fn func(context.Context) error) bool {
	failed := false
	for wait := retryAfter; ; wait = min(2*wait, retryAfterMax) {
		err := fn(s.life)
		if s.life.Err() != nil {
			return false
		}
		if err == nil {
			if failed {
				s.o.Logger.LogAttrs(s.life, slog.LevelInfo, "the document store answers again", slog.String("action", action))
			}
			return true
		}
		if !failed {
			failed = true
			s.o.Logger.LogAttrs(s.life, slog.LevelError, "the document store cannot be used yet, it is tried again",
				slog.String("action", action), slog.Any("error", err))
		}
		select {
		case <-time.After(wait):
		case <-s.life.Done():
			return false
		}
	}
}

// createIndexes creates those that are not there; an index that is there costs nothing. On a large collection it may take minutes,
// in which all is served but slowly.
func (s *Store) createIndexes(ctx context.Context) error {
	var errs []error
	for _, i := range indexes {
		o := options.Index().SetName(i.name())
		if i.sparse {
			o.SetSparse(true)
		}
		// One at a time: FerretDB (1.24) drops the connection of who asks for two that are there.
		model := mongo.IndexModel{Keys: i.keys(), Options: o}
		if _, err := s.db.Load().Collection(i.collection).Indexes().CreateOne(ctx, model); err != nil {
			errs = append(errs, fmt.Errorf("create index %s of collection %s: %w", i.name(), i.collection, s.failed(ctx, err)))
		}
	}
	return errors.Join(errs...)
}
