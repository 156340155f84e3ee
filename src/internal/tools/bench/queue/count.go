package queue

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/faena"
)

// count finds out what has become of each activation. What the API says would be the word of one of those that are
// measured: the documents are read from its file, when it has stopped.
func (m *run) count(ctx context.Context) (err error) {
	for metric, to := range map[string]*int{"faena_worker_settled_total": &m.r.Settled, "faena_worker_abandoned_total": &m.r.Abandoned} {
		if *to, err = m.i.WorkerCount(ctx, metric); err != nil {
			return err
		}
	}
	file := filepath.Join(m.i.DataDir(), "documents.db")
	if err := errors.Join(m.i.SetWorkers(ctx, 0), m.i.SetAPIs(ctx, 0)); err != nil {
		return err
	}
	store, err := boltstore.Open(file, boltstore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	seen := tallies{}
	known := map[string]bool{}
	for _, accepted := range m.accepted {
		for _, a := range accepted {
			if known[a.id] {
				return fmt.Errorf("two calls were accepted as activation %s", a.id)
			}
			known[a.id] = true
			r, err := store.Activation(ctx, a.user, a.id)
			if faena.IsKind(err, faena.KindNotFound) || err == nil && r.State != faena.StateSucceeded {
				m.r.Lost++
				continue
			}
			if err != nil {
				return err
			}
			m.r.Repeated += r.Attempt - 1
			if err := seen.add(string(r.Result.Inline)); err != nil {
				return fmt.Errorf("activation %s: %w", a.id, err)
			}
		}
	}
	m.r.Containers = len(seen)
	m.r.Repeated += seen.beyond()
	return nil
}

// tallies are how often the function says that it has run, in each container: of its results the number, and the highest.
type tallies map[string]*runs

type runs struct{ results, most int }

// add takes a result, "<container> <how often it has run there>".
func (t tallies) add(result string) error {
	container, text, _ := strings.Cut(result, " ")
	n, err := strconv.Atoi(text)
	if err != nil || container == "" {
		return fmt.Errorf("the function has written %.100q", result)
	}
	one := t[container]
	if one == nil {
		one = &runs{}
		t[container] = one
	}
	one.results, one.most = one.results+1, max(one.most, n)
	return nil
}

// beyond is how many runs there were that no record has the result of. The last run in a container may be missing.
func (t tallies) beyond() (n int) {
	for _, one := range t {
		n += max(one.most-one.results, 0)
	}
	return n
}
