package wiring

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"faena.dev/faena/internal/systemd"
	"faena.dev/faena/internal/telemetry"
)

const (
	// againAfter is the pause before the second try of a step. It doubles with each up to againAtMost.
	againAfter  = time.Second
	againAtMost = 5 * time.Second
	// sayAgain is how often the log repeats the same words.
	sayAgain = time.Minute
	// statusEvery is how soon the status shows what a daemon waits for.
	statusEvery = 2 * time.Second
	// takesActivations is the status of a daemon that waits for nothing.
	takesActivations = "takes activations"
	// maxSaid bounds what is remembered of what was said.
	maxSaid = 100
)

// settingError is what no wait mends: the daemon ends at once, with exitSettings.
type settingError struct{ error }

// Unwrap returns what is wrong.
func (e settingError) Unwrap() error { return e.error }

// starter brings a daemon from its settings to taking activations, in steps that wait for what is not there yet:
//
//	step ──► try ──ok──► the next step … ──► done: the daemon's own readiness counts
//	          │ ▲
//	    error ▼ │ 1 s, 2 s, 4 s, 5 s, 5 s …
//	     /readyz, log and systemd say what is missing
//
// Steps may run at once. It is safe for concurrent use.
type starter struct {
	log *slog.Logger

	mu      sync.Mutex
	missing map[string]string    // what a step lacks, by its name
	said    map[string]time.Time // when the log had these words last
	ready   telemetry.Ready      // nil until done
}

func newStarter(log *slog.Logger) *starter {
	return &starter{log: log, missing: map[string]string{}, said: map[string]time.Time{}}
}

// step tries until it succeeds. It gives up when ctx ends, which is its error then, and on a settingError.
func (s *starter) step(ctx context.Context, name string, try func(context.Context) error) error {
	for wait := againAfter; ; wait = min(2*wait, againAtMost) {
		err := try(ctx)
		if err == nil {
			s.has(name)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, wrong := errors.AsType[settingError](err); wrong {
			return err
		}
		s.lacks(name, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// localPort is the own end of a connection in an error of package net: another one at each try.
var localPort = regexp.MustCompile(`\S+:\d+->`)

// lacks says what a step failed with: in the log once, and once a minute while it lasts.
func (s *starter) lacks(name string, err error) {
	words := name + ": " + strings.Join(strings.Fields(localPort.ReplaceAllString(err.Error(), "")), " ")
	now := time.Now()
	s.mu.Lock()
	s.missing[name] = words
	status := strings.Join(s.words(), "; ")
	last, known := s.said[words]
	say := !known || now.Sub(last) >= sayAgain
	if say {
		if len(s.said) >= maxSaid {
			clear(s.said)
		}
		s.said[words] = now
	}
	s.mu.Unlock()
	if say {
		s.log.Warn("not ready; this is tried again until it is there", "missing", words)
	}
	tell(s.log, systemd.Status("waiting for "+status))
}

func (s *starter) has(name string) {
	s.mu.Lock()
	_, lacked := s.missing[name]
	delete(s.missing, name)
	s.mu.Unlock()
	if lacked {
		s.log.Info("what was missing is there now", "step", name)
	}
}

// words are what the steps lack, in the order of their names. The caller holds mu.
func (s *starter) words() []string {
	words := make([]string, 0, len(s.missing))
	for _, name := range slices.Sorted(maps.Keys(s.missing)) {
		words = append(words, s.missing[name])
	}
	return words
}

// done ends the start: activations are taken, and from now on the daemon's own readiness counts.
func (s *starter) done(ready telemetry.Ready) {
	s.mu.Lock()
	s.ready = ready
	s.mu.Unlock()
	s.log.Info(takesActivations)
	tell(s.log, systemd.Ready(takesActivations))
}

// follow tells systemd what a daemon that has started waits for, and when it takes activations again, until ctx ends or stop is called.
func (s *starter) follow(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(statusEvery)
		defer tick.Stop()
		lacked := false
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			s.mu.Lock()
			own := s.ready
			s.mu.Unlock()
			if own == nil {
				continue
			}
			missing, ok := own(ctx)
			switch {
			case ctx.Err() != nil: // it is stopping, and says so
			case !ok:
				tell(s.log, systemd.Status("waiting for "+strings.Join(missing, "; ")))
			case lacked:
				tell(s.log, systemd.Status(takesActivations))
			}
			lacked = !ok
		}
	})
	return func() { cancel(); wg.Wait() }
}

// Ready is the readiness of the daemon, from its first moment on.
func (s *starter) Ready(ctx context.Context) (missing []string, ready bool) {
	s.mu.Lock()
	own, missing := s.ready, s.words()
	s.mu.Unlock()
	if own != nil {
		return own(ctx)
	}
	if len(missing) == 0 {
		missing = []string{"it is starting"}
	}
	return missing, false
}

// starting is the health of an API that is not there yet, as callers may know it: without the addresses and settings of /readyz on the
// operations listener.
type starting struct{ start *starter }

// Ready implements httpapi.Health.
func (s starting) Ready(context.Context) (missing []string, ready bool) {
	s.start.mu.Lock()
	defer s.start.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.start.missing)) {
		missing = append(missing, name+": not there yet")
	}
	if len(missing) == 0 {
		missing = []string{"it is starting"}
	}
	return missing, false
}
