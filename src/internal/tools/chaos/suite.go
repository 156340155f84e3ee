package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"faena.dev/faena/internal/tools/chaos/history"
	"faena.dev/faena/internal/tools/chaos/load"
	"faena.dev/faena/internal/tools/chaos/site"
)

// suite is one run.
type suite struct {
	o       options
	site    *site.Site
	h       *history.History
	ledger  *load.Ledger
	gateway *load.Gateway
	load    *load.Load
	report  *report
}

// run does it all, and cleans up whatever happens.
func run(ctx context.Context, o options) (err error) {
	s := &suite{o: o, h: history.New(), report: newReport(o)}
	began := time.Now()
	s.site, err = site.Start(ctx, o.report+"/logs")
	defer func() { err = errors.Join(err, s.site.Close(ctx)) }()
	if err != nil {
		return err
	}
	if s.ledger, err = load.OpenLedger(s.site.LedgerAddress()+":0", s.h); err != nil {
		return err
	}
	defer s.ledger.Close()
	var apis []load.API
	for _, d := range s.site.APIs() {
		apis = append(apis, load.API{URL: d.URL, Operations: d.Operations})
	}
	s.gateway = load.NewGateway(apis, s.site.Trust())
	defer s.gateway.Close()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	say("an installation is there after %v", time.Since(began).Round(100*time.Millisecond))
	checks, stop := context.WithCancel(ctx)
	var checking sync.WaitGroup
	checking.Go(func() { s.gateway.Check(checks) })
	defer checking.Wait()
	defer stop()
	s.load = load.Start(ctx, s.gateway, s.h, users, functions, o.seed)
	defer s.load.Stop()
	return s.faults(ctx)
}

// say tells who watches.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// faults goes through the rounds, in an order that the seed says, and then waits until all is quiet.
func (s *suite) faults(ctx context.Context) error {
	random := rand.New(rand.NewPCG(s.o.seed, 0))
	end := time.Now().Add(s.o.duration)
	err := s.settle(ctx, time.Now(), "before any fault")
	for first := true; err == nil && (first || time.Now().Before(end)); first = false {
		list := rounds()
		random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, r := range list {
			if len(s.o.only) > 0 && !slices.Contains(s.o.only, r.name) {
				continue
			}
			if err = s.round(ctx, r, random); err != nil || !first && time.Now().After(end) {
				break
			}
		}
	}
	if err == nil {
		err = s.quiet(ctx)
	}
	s.examine(err == nil)
	return errors.Join(err, s.report.write(s.h.Numbers(), err == nil))
}

// round injects the faults of a round, waits until all is well again, and checks.
func (s *suite) round(ctx context.Context, r round, random *rand.Rand) error {
	var acts []act
	var names []string
	for _, f := range r.faults {
		a, target := f.choose(s, random)
		acts, names = append(acts, a), append(names, f.name+" "+target)
	}
	entry := s.report.begin(r.name, names)
	say("%s: %s", r.name, strings.Join(names, ", "))
	errs := make([]error, len(acts))
	var all sync.WaitGroup
	for k, a := range acts {
		all.Go(func() {
			if err := a(ctx); err != nil {
				errs[k] = fmt.Errorf("%s: %w", names[k], err)
			}
		})
	}
	all.Wait()
	entry.Healed = time.Now()
	err := errors.Join(errs...)
	if err == nil {
		err = s.settle(ctx, entry.Healed, r.name)
	}
	entry.Recovered = time.Now()
	var gapBegan time.Time
	entry.Gap, gapBegan = s.h.Gap(entry.Began, entry.Recovered)
	entry.Held, entry.Recovery = s.h.Recovery(entry.Began)
	if err == nil {
		err = s.rest(ctx, r.name)
	}
	s.examine(false)
	say("%s: healed after %v, all well %v later, longest gap in service %v, after %v", r.name, entry.Healed.Sub(entry.Began).Round(100*time.Millisecond),
		entry.Recovered.Sub(entry.Healed).Round(100*time.Millisecond), entry.Gap.Round(10*time.Millisecond),
		gapBegan.Sub(entry.Began).Round(100*time.Millisecond))
	if ctx.Err() != nil {
		return fmt.Errorf("stopped in %s", r.name)
	}
	return err
}

// settleWithin is how long it may take after a fault until what was accepted before its end has ended: a worker that is lost is
// noticed, and what comes again waits for its turn.
const settleWithin = 90 * time.Second

// settle waits until every part is whole, calls are answered, and what was accepted before a moment has ended.
func (s *suite) settle(ctx context.Context, before time.Time, after string) error {
	const enough = 8
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	told := time.Now()
	for {
		err := s.whole(ctx)
		if err == nil {
			if n := s.h.GoodSince(before); n < enough {
				err = fmt.Errorf("%d calls since then were answered well", n)
			}
		}
		if err == nil {
			if ids := s.h.Unsettled(before); len(ids) > 0 {
				err = fmt.Errorf("%d activations that were accepted before its end have not ended: %s", len(ids), strings.Join(ids, " "))
			}
		}
		if err == nil {
			return nil
		}
		if time.Since(told) > while {
			say("%s: not yet well: %v", after, err)
			told = time.Now()
		}
		pause(ctx, 200*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("%v after the end of fault %s: %w", settleWithin, after, err)
		}
	}
}

// whole says what is not as it should be.
func (s *suite) whole(ctx context.Context) error {
	for _, server := range s.site.Servers() {
		if err := server.Healthy(ctx); err != nil {
			return fmt.Errorf("%s: %w", server.Name, err)
		}
	}
	for _, d := range append(slices.Clone(s.site.APIs()), s.site.Workers()...) {
		if err := d.Ready(ctx); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	return nil
}

// examine checks what is known so far and reports what is new.
func (s *suite) examine(final bool) {
	for _, b := range s.h.Check(final) {
		if s.report.breach(b) {
			say("BREACH %s", b)
		}
	}
}

// eventually tries until it is nil; it is tried once more at the end.
func (s *suite) eventually(ctx context.Context, within time.Duration, fn func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := fn()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		pause(ctx, 300*time.Millisecond)
	}
}
