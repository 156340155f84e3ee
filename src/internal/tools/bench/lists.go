package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/mongostore"
	"faena.dev/faena/internal/tools/bench/installation"
	"faena.dev/faena/internal/tools/bench/report"
)

// The two lengths of a history, how much of it a list is, and how often each list is asked for.
const (
	shortHistory = 1000
	longHistory  = 100_000
	page         = 100
	asks         = 101
)

// listed are the lists, by what they are of. Each is a full page of either history.
func listed(user string, n int) map[string]faena.HistoryQuery {
	q := faena.HistoryQuery{User: user, Limit: page}
	lists := map[string]faena.HistoryQuery{"the newest": q}
	q.Before = recordID(n / 2)
	lists["the middle"] = q
	q.Before, q.Function = "", "thumb"
	lists["one function"] = q
	q.State = faena.StateFailed
	lists["one function, failed"] = q
	q.Function = ""
	lists["failed"] = q
	return lists
}

// lists holds a list of a long history against one of a short one.
func (b *bench) lists(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "faena-bench-lists")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	n := 0
	err = compareLists(ctx, b.t, "bbolt", func() (faena.Documents, error) {
		n++
		return boltstore.Open(filepath.Join(dir, fmt.Sprint(n)), boltstore.Options{})
	})
	if err != nil {
		return err
	}
	uri := installation.MongoDB()
	if uri == "" {
		b.t.Note("Lists in MongoDB were not measured: FAENA_TEST_MONGODB_URI names none, and FerretDB's SQLite has no index that is a range.")
		return nil
	}
	return compareLists(ctx, b.t, "MongoDB", func() (faena.Documents, error) {
		return openMongoDB(ctx, uri)
	})
}

// mongoDB is a store that takes its database with it.
type mongoDB struct {
	*mongostore.Store
	drop func() error
}

// Close closes the store and drops the database.
func (m mongoDB) Close() error { return errors.Join(m.Store.Close(), m.drop()) }

// openMongoDB opens a new database, when its indexes are there.
func openMongoDB(ctx context.Context, uri string) (faena.Documents, error) {
	database := installation.NewDatabase()
	store, err := mongostore.Open(ctx, mongostore.Options{URI: uri, Database: database})
	if err != nil {
		return nil, err
	}
	m := mongoDB{store, func() error { return installation.DropDatabase(context.WithoutCancel(ctx), uri, database) }}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if err = store.Ping(ctx); err == nil {
			return m, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
}

// compareLists measures each list in two stores of one kind; the slowest of them counts.
func compareLists(ctx context.Context, t *report.Table, kind string, open func() (faena.Documents, error)) error {
	took := map[int]map[string]report.Sample{}
	for _, n := range []int{shortHistory, longHistory} {
		var err error
		if took[n], err = timeLists(ctx, n, open); err != nil {
			return err
		}
	}
	slowest, which := 0.0, ""
	for name, long := range took[longHistory] {
		if r := ratio(long.At(.5), took[shortHistory][name].At(.5)); r > slowest {
			slowest, which = r, name
		}
	}
	t.Row(fmt.Sprintf("%s: list of %d of %d activations", kind, page, shortHistory), took[shortHistory][which], 0)
	t.Row(fmt.Sprintf("%s: list of %d of %d activations", kind, page, longHistory), took[longHistory][which], 0)
	t.AtMost(fmt.Sprintf("%s: list of %d of %d ÷ of %d activations (of %d filters the slowest: %s)", kind, page, longHistory, shortHistory,
		len(took[longHistory]), which), slowest, 1.5, " ×")
	return nil
}

// timeLists fills a store with a history and measures every list of it.
func timeLists(ctx context.Context, n int, open func() (faena.Documents, error)) (_ map[string]report.Sample, err error) {
	store, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	const user = "bench"
	batch := make([]faena.Record, 0, 500)
	for i := range n {
		if batch = append(batch, recordOf(user, i)); len(batch) == cap(batch) || i == n-1 {
			if err := store.Insert(ctx, batch); err != nil {
				return nil, err
			}
			batch = batch[:0]
		}
	}
	took := map[string]report.Sample{}
	for range asks { // in turn, so that all see the same machine
		for name, q := range listed(user, n) {
			began := time.Now()
			list, err := store.Activations(ctx, q)
			took[name] = append(took[name], time.Since(began))
			if err != nil {
				return nil, err
			}
			if len(list) != page {
				return nil, fmt.Errorf("a list of %s in %d activations has %d", name, n, len(list))
			}
		}
	}
	return took, nil
}

func recordID(n int) string { return fmt.Sprintf("0195%04x-%04x-7000-8000-%012x", n>>16, n&0xffff, n) }

// recordOf is the n-th activation of a user: every fifth has failed, every second is of the function thumb.
func recordOf(user string, n int) faena.Record {
	admitted := time.Date(2026, 1, 1, 0, 0, n, 0, time.UTC)
	started, ended, code := admitted.Add(time.Millisecond), admitted.Add(2*time.Millisecond), 0
	r := faena.Record{Schema: faena.SchemaVersion, ID: recordID(n), User: user, Group: faena.DefaultGroup, Function: "resize", Revision: 1, Digest: "sha256:5e",
		RequestID: "bench", Publication: 1, StartWithinMS: 640_000, State: faena.StateSucceeded, Attempt: 1, Worker: "bench", ExitCode: &code, Warm: true,
		Result: faena.Blob{Size: 6, Inline: []byte("result")}, AdmittedAt: admitted, StartedAt: &started, EndedAt: &ended}
	if n%2 == 0 {
		r.Function = "thumb"
	}
	if n%5 == 0 {
		r.State, r.Reason, r.Message, code = faena.StateFailed, faena.ReasonExitNonzero, "It exited with 1.", 1
	}
	return r
}
