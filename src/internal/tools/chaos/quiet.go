package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"faena.dev/faena/internal/tools/chaos/load"
	"faena.dev/faena/internal/tools/chaos/site"
)

// Budgets for the end of a run.
const (
	quietWithin  = 30 * time.Second // until nobody has anything active
	orphanWithin = 60 * time.Second // until a killed worker's containers are gone
)

// counterWithin is how long a user's counter may differ from his messages once nothing changes any more. Looking takes a moment, too.
const counterWithin = time.Second

// rest makes no calls until what was accepted has ended, and checks what holds then. After that the load goes on.
func (s *suite) rest(ctx context.Context, after string) error {
	defer s.load.Resume()
	limited, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	err := s.load.Pause(limited)
	if err == nil {
		err = errors.Join(s.inactive(ctx), s.letters(ctx), s.eventually(ctx, quietWithin, func() error { return s.conserved(ctx) }))
	}
	if err != nil {
		err = fmt.Errorf("at rest after %s: %w", after, err)
	}
	return err
}

// quiet stops calling, and checks what holds when nothing runs any more.
func (s *suite) quiet(ctx context.Context) error {
	say("no more calls")
	s.load.Quiesce(settleWithin)
	last := time.Now()
	var errs []error
	errs = append(errs, s.inactive(ctx))
	// What was refused while the queue was away may have left a record, which the leader ends after a minute.
	errs = append(errs, s.eventually(ctx, time.Until(last.Add(settleWithin)), func() error {
		left, err := s.site.Bus().Leftovers(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("V4: with nothing active, queue and live records have %d entries, the first is %s", len(left), left[0])
		}
		return err
	}))
	for _, u := range users {
		errs = append(errs, s.eventually(ctx, settleWithin, func() error {
			list, err := load.List(ctx, s.gateway, u)
			if err == nil {
				s.h.Listed(u.Name, list)
			}
			return err
		}))
	}
	errs = append(errs, s.letters(ctx))
	errs = append(errs, s.eventually(ctx, time.Until(last.Add(orphanWithin)), func() error { return s.containers(ctx) }))
	errs = append(errs, s.eventually(ctx, quietWithin, func() error { return s.conserved(ctx) }))
	return errors.Join(errs...)
}

// inactive waits until nobody has a message in the queue, and compares the counters with that. What callers were told of has ended: what
// still runs is of calls whose outcome nobody told.
func (s *suite) inactive(ctx context.Context) error {
	last := time.Now()
	var since time.Time // with nobody having a message
	for {
		began := time.Now()
		counters, messages, err := s.active(ctx)
		switch {
		case err == nil && messages == "" && counters == "":
			return nil
		case err == nil && messages == "":
			if since.IsZero() {
				since = time.Now()
			}
			if began.Sub(since) > counterWithin {
				return fmt.Errorf("V5: for %v nobody has had a message in the queue, and by the counters %s", began.Sub(since).Round(time.Millisecond), counters)
			}
		case time.Since(last) > quietWithin:
			return errors.Join(err, fmt.Errorf("V5: %v after the last activation there are still messages in the queue: %s", quietWithin, messages))
		default:
			since = time.Time{}
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// active says who has something active, by the counters and by the messages in the queue; "" is nobody.
func (s *suite) active(ctx context.Context) (counters, messages string, err error) {
	for _, u := range users {
		counter, n, err := s.site.Bus().Active(ctx, u.Name)
		if err != nil {
			return "", "", err
		}
		if counter != 0 {
			counters += fmt.Sprintf("%s has %d ", u.Name, counter)
		}
		if n != 0 {
			messages += fmt.Sprintf("%s has %d ", u.Name, n)
		}
	}
	return counters, messages, nil
}

// letters reads everybody's dead letters: as each user sees them, and then as they stand in the stream.
func (s *suite) letters(ctx context.Context) error {
	for _, u := range users {
		err := s.eventually(ctx, quietWithin, func() error {
			before := time.Now()
			listed, err := load.Letters(ctx, s.gateway, u)
			if err != nil {
				return err
			}
			stored, err := s.site.Bus().Letters(ctx, u.Name)
			if err == nil {
				s.h.Lettered(u.Name, before, listed, stored)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// conserved asks the API that leads where activations are: nowhere, and none is unaccounted for.
func (s *suite) conserved(ctx context.Context) error {
	leaders := 0
	for _, d := range s.site.APIs() {
		metrics, err := d.Metrics(ctx)
		if err != nil {
			return err
		}
		if metrics["faena_leader"] != "1" {
			continue
		}
		leaders++
		for _, name := range []string{`faena_conservation_drift{group="%s"}`, `faena_activations{group="%s",state="backlog"}`,
			`faena_activations{group="%s",state="queued"}`, `faena_activations{group="%s",state="running"}`} {
			name = fmt.Sprintf(name, site.Group)
			if value := metrics[name]; value != "0" {
				return fmt.Errorf("V4: with nothing active %s is %q at %s", name, value, d.Name)
			}
		}
	}
	if leaders != 1 {
		return fmt.Errorf("V4: %d APIs say that they lead", leaders)
	}
	return nil
}

// containers compares each engine with what its worker says: nothing of an earlier life, and nothing that is not in the pool; the
// image of the function is still there.
func (s *suite) containers(ctx context.Context) error {
	pools, err := s.pools(ctx)
	if err != nil {
		return err
	}
	for _, w := range s.site.Workers() {
		list, err := w.Engine.Containers(ctx, w.Name)
		if err != nil {
			return err
		}
		for _, c := range list {
			if time.Unix(c.Created, 0).Before(w.Started().Add(-time.Second)) {
				return fmt.Errorf("V6: worker %s began at %s, and has container %.12s of %s", w.Name, w.Started().Format(time.TimeOnly), c.ID,
					time.Unix(c.Created, 0).Format(time.TimeOnly))
			}
		}
		if pool, known := pools[w.Name]; !known || pool != len(list) {
			return fmt.Errorf("V6: worker %s has %d containers, and says that its pool has %d", w.Name, len(list), pool)
		}
		has, err := w.Engine.HasImage(ctx, site.Repository)
		if err != nil {
			return err
		}
		if !has && len(list) > 0 {
			return fmt.Errorf("V7: worker %s has containers of an image that its engine has not any more", w.Name)
		}
	}
	return nil
}
