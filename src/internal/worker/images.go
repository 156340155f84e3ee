package worker

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// pullTimeout bounds one pull.
	pullTimeout = 10 * time.Minute
	// deniedFor is how long a registry's refusal of an image is believed without asking again; awayFor, for how long
	// any other failure of a pull is.
	deniedFor = 10 * time.Second
	awayFor   = 2 * time.Second
)

// imageStore sees to it that a revision's image is on this host: one pull at a time per digest, with the
// credentials of the function that needs it, and removal of the least recently used when the disk is full.
type imageStore struct {
	o   Options
	log *slog.Logger

	mu      sync.Mutex
	flights map[string]*flight // by reference: the pull that is under way
	failed  map[pullKey]failure
	pins    map[string]int       // by reference: activations that are about to make a container of it
	used    map[string]time.Time // by reference: when an activation last needed it; only these are ever removed
	dirty   bool                 // used differs from what is on disk
	wg      sync.WaitGroup
}

// pullKey is what the outcome of a pull depends on.
type pullKey struct {
	ref    string
	sealed [sha256.Size]byte
}

type failure struct {
	err   error
	until time.Time
}

// flight is one pull. It ends early when nobody waits for it any more.
type flight struct {
	key     pullKey
	waiting int
	cancel  context.CancelFunc
	gone    bool // nobody waits any more: its outcome is nobody's
	done    chan struct{}
	err     error // valid when done is closed
}

func newImageStore(o Options, log *slog.Logger) *imageStore {
	return &imageStore{o: o, log: log, flights: map[string]*flight{}, failed: map[pullKey]failure{},
		pins: map[string]int{}, used: loadUsed(o.StateDir, log)}
}

// ensure makes the revision's image present and keeps it from being removed until release is called. pulled is how
// long this call waited for a pull.
func (s *imageStore) ensure(ctx context.Context, rev *faena.Revision) (pulled time.Duration, release func(), err error) {
	s.pin(rev.Pull, 1)
	release = func() { s.pin(rev.Pull, -1) }
	var has bool
	if err := within(ctx, callTimeout, func(ctx context.Context) (err error) {
		has, err = s.o.Engine.HasImage(ctx, rev.Pull)
		return err
	}); err != nil {
		release()
		return 0, nil, fmt.Errorf("look for the image: %w", err)
	}
	if has {
		return 0, release, nil
	}
	began := time.Now()
	if err := s.pull(ctx, rev); err != nil {
		release()
		return time.Since(began), nil, err
	}
	return time.Since(began), release, nil
}

func (s *imageStore) pin(ref string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pins[ref] += n; s.pins[ref] == 0 {
		delete(s.pins, ref)
	}
	s.used[ref] = time.Now()
	s.dirty = true
}

// touch notes that the image was in use until now.
func (s *imageStore) touch(ref string) { s.pin(ref, 0) }

// pull joins the pull of the same image with the same credentials, or makes one when none is under way. A pull of
// the same image with other credentials is waited for: what it brings is as good, its failure says nothing.
func (s *imageStore) pull(ctx context.Context, rev *faena.Revision) error {
	key := pullKey{rev.Pull, sha256.Sum256(rev.Sealed)}
	for {
		f, err := s.board(ctx, key, rev)
		if err != nil {
			return err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			s.leave(f)
			return context.Cause(ctx)
		}
		gone := s.leave(f)
		if f.err == nil || f.key == key && !gone {
			return f.err
		}
	}
}

// board returns the flight to wait for, or the failure that is remembered.
func (s *imageStore) board(ctx context.Context, key pullKey, rev *faena.Revision) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[key.ref]; f != nil {
		f.waiting++
		return f, nil
	}
	if known, ok := s.failed[key]; ok && time.Now().Before(known.until) {
		return nil, known.err
	}
	delete(s.failed, key)
	// The pull is not the caller's alone: it ends when the last one who waits is gone.
	flying, cancel := context.WithTimeout(context.WithoutCancel(ctx), pullTimeout)
	f := &flight{key: key, waiting: 1, cancel: cancel, done: make(chan struct{})}
	s.flights[key.ref] = f
	s.wg.Go(func() {
		defer cancel()
		s.land(f, s.fetch(flying, rev))
	})
	return f, nil
}

// leave ends the pull when the last one who waits is gone. It reports whether that had happened before.
func (s *imageStore) leave(f *flight) (gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone = f.gone
	if f.waiting--; f.waiting == 0 && s.flights[f.key.ref] == f {
		f.gone = true
		f.cancel()
	}
	return gone
}

func (s *imageStore) land(f *flight, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, f.key.ref)
	f.err = err
	if err != nil && !f.gone {
		believed := awayFor
		switch reasonOf(err) {
		case faena.ReasonImageDenied, faena.ReasonImageNotFound, faena.ReasonImagePlatform:
			believed = deniedFor
		}
		now := time.Now()
		for k, old := range s.failed {
			if now.After(old.until) {
				delete(s.failed, k)
			}
		}
		s.failed[f.key] = failure{err, now.Add(believed)}
	}
	close(f.done)
}

// fetch checks the registry's address, opens the credentials and pulls.
func (s *imageStore) fetch(ctx context.Context, rev *faena.Revision) error {
	if s.o.Registries != nil {
		if err := s.o.Registries.Check(ctx, registryHost(rev.Pull)); err != nil {
			return &faena.Error{Kind: faena.KindForbidden, Reason: string(faena.ReasonImageDenied), Component: faena.ComponentRegistry,
				Message: fmt.Sprintf("The image's registry may not be reached: %v", err), Err: err}
		}
	}
	creds, err := s.credentials(rev)
	if err != nil {
		return err
	}
	began := time.Now()
	err = s.o.Engine.PullImage(ctx, rev.Pull, creds)
	s.o.Observer.Pulled(time.Since(began), err)
	if err != nil && ctx.Err() == nil {
		s.log.Info("an image could not be pulled", "image", rev.Pull, "error", err)
	}
	return err
}

func (s *imageStore) credentials(rev *faena.Revision) (*faena.Credentials, error) {
	if len(rev.Sealed) == 0 {
		return nil, nil
	}
	fail := func(err error) error {
		return &faena.Error{Kind: faena.KindInternal, Reason: string(faena.ReasonImageDenied), Component: faena.ComponentWorker,
			Message: "The function's registry credentials cannot be opened on this worker. Deploy the function again.", Err: err}
	}
	if s.o.Opener == nil {
		return nil, fail(errors.New("no key"))
	}
	plain, err := s.o.Opener.Open(rev.Sealed)
	if err != nil {
		return nil, fail(err)
	}
	var c faena.Credentials
	if err := json.Unmarshal(plain, &c); err != nil {
		return nil, fail(errors.New("not the JSON of credentials")) // the cause could quote them
	}
	return &c, nil
}

// registryHost is the host, with its port, that a reference is pulled from, by the rule of the Docker reference
// grammar: the first component, where it has a dot or a colon or is localhost.
func registryHost(ref string) string {
	first, _, found := strings.Cut(ref, "/")
	if !found || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return "index.docker.io"
	}
	return first
}

// reasonOf is the activation's reason that an error carries, or start_failed.
func reasonOf(err error) faena.Reason {
	if e, ok := errors.AsType[*faena.Error](err); ok {
		if _, known := faena.Explain(faena.Reason(e.Reason)); known {
			return faena.Reason(e.Reason)
		}
	}
	return faena.ReasonStartFailed
}

// messageOf is what an error says to a user: the words of a faena.Error, never an inner cause.
func messageOf(err error) string {
	if e, ok := errors.AsType[*faena.Error](err); ok && e.Message != "" {
		return e.Message
	}
	return "The function's container could not be made ready."
}
