package boltstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"faena.dev/faena/internal/faena"
)

// The buckets of the file. Keys are ranges: a list is one walk from one key.
var (
	metaBucket        = []byte("meta")         // schema → version of the file; probe
	functionsBucket   = []byte("functions")    // <user>/<name> → Function
	revisionsBucket   = []byte("revisions")    // <user>/<name>/<number> → Revision
	usersBucket       = []byte("users")        // <name> → User, tombstones included
	namesBucket       = []byte("names")        // <name in lower case> → name
	groupsBucket      = []byte("groups")       // <name> → Group
	erasuresBucket    = []byte("erasures")     // <name> → nothing: what is left of this user is being removed
	activationsBucket = []byte("activations")  // <user>/<id> → Record without the inline bytes
	payloadsBucket    = []byte("payloads")     // <user>/<id> → the inline bytes of result and log
	byFunctionBucket  = []byte("by_function")  // <user>/<function>/<id> → nothing
	byStateBucket     = []byte("by_state")     // <user>/<state>/<id> → nothing
	byBothBucket      = []byte("by_both")      // <user>/<function>/<state>/<id> → nothing
	prunedBucket      = []byte("pruned")       // <user>/<id> → when it was pruned; kept for markAge
	usageBucket       = []byte("usage")        // <user>/<hour> → Usage
	usageTotalsBucket = []byte("usage_totals") // <user>/ → Usage, the sum of all hours
)

var buckets = [][]byte{metaBucket, functionsBucket, revisionsBucket, usersBucket, namesBucket, groupsBucket,
	erasuresBucket, activationsBucket, payloadsBucket, byFunctionBucket, byStateBucket, byBothBucket, prunedBucket, usageBucket, usageTotalsBucket}

var (
	schemaKey = []byte("schema")
	probeKey  = []byte("probe")
)

// probeSize is what Ping writes to find out whether there is room again: more than fits into a page that happens to
// be free.
const probeSize = 1 << 20

// defaultLockTimeout is how long Open waits for another process to let go of the file: one that is being stopped.
const defaultLockTimeout = 3 * time.Second

// mapped is how much of the file is mapped: addresses, which cost nothing.
const mapped = 64 << 30

// Options are all optional.
type Options struct {
	LockTimeout time.Duration // how long Open waits while another process has the file; default 3 s
}

// Store is the documents in one file. It is safe for concurrent use, by one process at a time.
type Store struct {
	db *bolt.DB
	// failing is true after a change that could not be written: then Ping tries to write.
	failing atomic.Bool
	// bytes are what records take, as of the last change.
	bytes atomic.Int64
}

var _ faena.Documents = (*Store)(nil)

// Open opens the file at path, and makes it, with mode 0600, where there is none. An erasure of a user that was cut
// short is finished first. It fails with a sentence where another process has the file, where the file is something
// else, and where a newer version has written it.
func Open(path string, o Options) (*Store, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:      cmp.Or(o.LockTimeout, defaultLockTimeout),
		FreelistType: bolt.FreelistMapType,
		// The list of free pages is found again at Open instead of being written with every change.
		NoFreelistSync: true,
		// A file that outgrows what is mapped waits for every transaction that reads, and a backup reads for long.
		InitialMmapSize: mapped,
	})
	if err != nil {
		return nil, openFailed(path, err)
	}
	s := &Store{db: db}
	if err := db.Update(prepare); err != nil {
		_ = db.Close() // the first error is the one that counts
		return nil, fmt.Errorf("open the document store %s: %w", path, err)
	}
	if err := errors.Join(s.finishErasures(), s.measure()); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("open the document store %s: %w", path, err)
	}
	return s, nil
}

func openFailed(path string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("open the document store %s: another process uses it; stop that one first: %w", path, err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		return fmt.Errorf("open the document store %s: it is not a file of this store, or it is damaged: %w", path, err)
	}
	if perr, ok := errors.AsType[*os.PathError](err); ok { // it names the path already
		return fmt.Errorf("open the document store: %w", perr)
	}
	return fmt.Errorf("open the document store %s: %w", path, err)
}

// prepare makes the buckets of a new file, and checks the schema of one that has been used.
func prepare(tx *bolt.Tx) error {
	meta := tx.Bucket(metaBucket)
	if meta == nil {
		if name, _ := tx.Cursor().First(); name != nil {
			return errors.New("it belongs to another program: it has buckets, but no meta bucket")
		}
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		if err := meta.Put(schemaKey, []byte(strconv.Itoa(faena.SchemaVersion))); err != nil {
			return err
		}
	} else if err := checkFile(meta.Get(schemaKey)); err != nil {
		return err
	}
	for _, name := range buckets {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return nil
}

func checkFile(value []byte) error {
	version, err := strconv.Atoi(string(value))
	if err != nil {
		return fmt.Errorf("its meta bucket has the schema %q, which is no number", value)
	}
	if version > faena.SchemaVersion {
		return fmt.Errorf("a newer version of Faena has written it (schema %d, this one reads up to %d): install that version again: %w",
			version, faena.SchemaVersion, faena.ErrSchema)
	}
	return nil
}

// Snapshot is all documents as they stood at one moment.
type Snapshot struct{ tx *bolt.Tx }

// Snapshot takes one, whatever is changed afterwards. Close must be called: until then the file gives no room back.
func (s *Store) Snapshot() (*Snapshot, error) {
	tx, err := s.db.Begin(false)
	if err != nil {
		return nil, fmt.Errorf("begin a copy of the document store: %w", err)
	}
	return &Snapshot{tx}, nil
}

// WriteTo writes a file that Open opens.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := s.tx.WriteTo(w)
	if err != nil {
		err = fmt.Errorf("copy the document store: %w", err)
	}
	return n, err
}

// Close ends the snapshot.
func (s *Snapshot) Close() error {
	if err := s.tx.Rollback(); err != nil {
		return fmt.Errorf("end a copy of the document store: %w", err)
	}
	return nil
}

// Close waits for what is under way and releases the file. A second call does nothing.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close the document store: %w", err)
	}
	return nil
}

// Ping reports whether the file can be read and, where the last change could not be written, whether one can be now.
func (s *Store) Ping(ctx context.Context) error {
	if !s.failing.Load() {
		return s.view(ctx, "ping the document store", func(*bolt.Tx) error { return nil })
	}
	err := s.update(ctx, "ping the document store", func(tx *bolt.Tx) error {
		return tx.Bucket(metaBucket).Put(probeKey, make([]byte, probeSize))
	})
	if err != nil {
		return err
	}
	return s.update(ctx, "ping the document store", func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Delete(probeKey) })
}

// view runs fn in a transaction that reads. action is for errors.
func (s *Store) view(ctx context.Context, action string, fn func(tx *bolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	var refused error
	err := s.db.View(func(tx *bolt.Tx) error {
		refused = fn(tx)
		return refused
	})
	return finished(action, refused, err)
}

// update runs fn in a transaction that writes, and returns when it is on disk. Transactions that write wait for one
// another. An error of fn undoes what it did.
func (s *Store) update(ctx context.Context, action string, fn func(tx *bolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	var refused error
	err := s.db.Update(func(tx *bolt.Tx) error {
		if refused = ctx.Err(); refused == nil { // it may have waited for others
			refused = fn(tx)
		}
		return refused
	})
	if refused == nil {
		s.failing.Store(err != nil)
	}
	return finished(action, refused, err)
}

// finished tells an error of the transaction's own function (refused) from one of the file.
func finished(action string, refused, err error) error {
	switch {
	case refused != nil:
		return fmt.Errorf("%s: %w", action, refused)
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return faena.Unavailable(faena.ComponentStore, "store_closed", "The document store is closed.", fmt.Errorf("%s: %w", action, err))
	case err != nil:
		return faena.Unavailable(faena.ComponentStore, "store_unavailable", "The document store cannot be used now. Try again.",
			fmt.Errorf("%s: %w", action, err))
	}
	return nil
}
