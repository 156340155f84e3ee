package control

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/faena"
)

// Kinds of a Changed message: what another API may remember and must forget.
const (
	changedFunction = "function"
	changedUser     = "user"
	changedGroup    = "group"
	// changedBacklog tells the leader, and who counts, that something was put into the backlog of a user; the name is the group.
	changedBacklog = "backlog"
	// changedActivity tells the leader that a user's counters may have changed; the name is the instance that says so.
	changedActivity = "activity"
)

// Options are what Control needs. All fields without "optional" are required.
type Options struct {
	Instance  string // of this API: [A-Za-z0-9_-]+, unique in the installation; Completed messages come to it
	Bus       Bus
	Health    QueueHealth // optional: a Diagnosis lacks what it would tell
	Documents faena.Documents
	Resolver  Resolver
	Sealer    Sealer
	Passwords Passwords
	Observer  Observer
	Pulse     Pulse // optional
	Logger    *slog.Logger

	Arch string // of the worker hosts: "amd64", "arm64"
	// NewID makes the id of an activation, a UUIDv7, of a user in a group; optional.
	NewID func(user, group string) (string, error)

	Version           string        // of this build; optional
	Default           faena.Group   // the default group until an admin changes it; optional: it has no keys and is pending
	SingleHost        bool          // the installation is one process: there are no other groups
	MaxParameterBytes int64         // of a parameter on stdin
	AsyncStartWithin  time.Duration // latest start of an asynchronous activation
	BacklogLimit      int           // how many asynchronous activations of a user may wait in a group; 0: none
	DrainAfter        time.Duration // how long a stopping API goes on waiting for what it waits for
	Retention         time.Duration // how long history is kept; 0: for ever
	RetentionBytes    int64         // of history that are kept at most; 0: no limit
	DocumentsKind     string        // what the document store is, for people; optional
	DocumentsWarning  func() string // what an operator should know of it; optional
}

// Control is the use cases of one API instance. Its methods are safe for concurrent use once Run has been called.
type Control struct {
	o     Options
	log   *slog.Logger
	slots *slots
	waits *waiters
	gauge *gauge
	tally *tally

	backlogs *backlogs
	releases releases

	groups  *groups
	leading atomic.Bool
	writes  writes
	horizon horizon

	cut      cut
	admins   sync.Mutex // held by a change that could leave none
	grouping sync.Mutex // held by a change of the groups that looks at all of them first

	times

	functions *cache[*deployed]
	users     *cache[faena.User]
}

// times are how often something is done, how long it may take, and how much of it; tests shorten them before Run.
type times struct {
	syncWait    time.Duration // how long a synchronous call waits
	admitBudget time.Duration // for record and message together
	// appearWithin is how long a call waits for the activation that another call with its key is making: longer than admission takes.
	appearWithin time.Duration
	releaseFor   time.Duration // that the key of a call that was refused is tried to be freed, or a dead letter to be removed
	groupsEvery  time.Duration // the groups are read although nobody announced a change
	projectAll   time.Duration // the counters of all users are projected
	sweepEvery   time.Duration // the buckets are listed
	sweepRest    int           // but pauses at least so many times as long as that took
	// orphanAge is how old a record must be before it is asked whether its message is there: admission takes four seconds at
	// most.
	orphanAge  time.Duration
	pruneEvery time.Duration // old history, and dead letters beyond lettersMost, are looked for
	// lettersMost is how many dead letters of a user are kept in a group: a tenth of what the group keeps.
	lettersMost int
	// driftAfter is how long a user's records and messages must be the same different numbers: then that is no matter of a moment.
	driftAfter time.Duration
	// claimWithin is how long an Idempotency-Key may stand for an activation that is nowhere.
	claimWithin time.Duration
}

func usualTimes() times {
	return times{syncWait: faena.SyncWait, admitBudget: faena.AdmitBudget, appearWithin: faena.AdmitBudget + time.Second, releaseFor: 2 * time.Second,
		groupsEvery: 10 * time.Second, projectAll: time.Minute,
		sweepEvery: 5 * time.Second, sweepRest: 20, orphanAge: time.Minute, pruneEvery: time.Minute, driftAfter: 8 * time.Second, lettersMost: 10_000,
		claimWithin: faena.ClaimWithin}
}

// deployed is a function with the revision that serves it. Neither is changed after it was made: the bus keeps the
// encoded form of a revision by its address.
type deployed struct {
	function faena.Function
	revision *faena.Revision
}

// New makes the use cases; nothing runs before Run.
func New(o Options) *Control {
	if o.NewID == nil {
		o.NewID = func(string, string) (string, error) {
			id, err := uuid.NewV7()
			return id.String(), err
		}
	}
	if o.Pulse == nil {
		o.Pulse = noPulse{}
	}
	c := &Control{o: o, log: o.Logger, slots: newSlots(o.Bus), waits: newWaiters(), tally: newTally(),
		backlogs: newBacklogs(o.Bus), releases: releases{byGroup: make(map[string]*releaser)}, times: usualTimes()}
	c.groups = newGroups(c.standard())
	c.gauge = newGauge(o.Bus, c.groups.names, c.connected)
	c.writes.bus, c.writes.groups = o.Bus, c.groups.names
	c.gauge.pulse = o.Pulse
	c.functions = newCache(c.loadFunction)
	c.users = newCache(func(ctx context.Context, _, name string) (faena.User, error) {
		return o.Documents.User(ctx, name)
	})
	return c
}

// Run subscribes to what this instance must hear and runs its loops until ctx ends. It returns the first error
// that stops one of them, or nil when ctx ended. ready is closed when activations may be taken.
func (c *Control) Run(ctx context.Context, ready chan<- struct{}) error {
	stopCompleted, err := c.o.Bus.Completed(c.o.Instance, func(r *faena.Record) {
		c.o.Pulse.Beat("completions")
		defer c.o.Pulse.Rest("completions")
		c.completed(r)
	})
	if err != nil {
		return err
	}
	defer stopCompleted()
	stopChanged, err := c.o.Bus.Changed(c.changed)
	if err != nil {
		return err
	}
	defer stopChanged()
	defer c.o.Bus.OnReconnect(c.waits.lookAgain)()
	defer c.o.Bus.OnReconnect(c.doubt)()
	if problem := c.readGroups(ctx); problem != "" {
		c.log.Warn("the groups could not be read or declared; the default group goes on", "error", problem)
	}
	if err := c.firstLook(ctx); err != nil {
		return nil
	}
	close(ready)

	loops := []func(context.Context) error{c.gauge.run, c.probe, c.tellLeader, c.reconciles, c.lead,
		func(ctx context.Context) error { return c.followGroups(ctx, c.record) }}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(loops))
	var wg sync.WaitGroup
	for i, loop := range loops {
		wg.Go(func() {
			defer cancel()
			if err := loop(ctx); ctx.Err() == nil {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// firstLook looks at storage and workers until that succeeds: the queue may have gone away once more. It returns ctx's error.
func (c *Control) firstLook(ctx context.Context) error {
	for failing := false; ; failing = true {
		err := c.gauge.look(ctx)
		if err == nil {
			return nil
		}
		if !failing {
			c.log.Warn("no activation is taken yet: the queue does not answer", "error", err)
		}
		if err := sleep(ctx, gaugeEvery); err != nil {
			return err
		}
	}
}

// Drain makes every call that still waits after the instance's DrainAfter answer with its record as it is. It
// returns when nothing waits any more or ctx ends.
func (c *Control) Drain(ctx context.Context) { c.waits.drain(ctx, c.o.DrainAfter) }

// changed forgets what another instance has changed.
func (c *Control) changed(kind, user, name string) {
	switch kind {
	case changedFunction:
		c.functions.forget(user, name)
	case changedUser:
		c.users.forget("", user)
		c.o.Passwords.Forget(user)
	case changedGroup:
		c.groups.again()
	case changedBacklog:
		c.backlogs.heard(name, user)
		c.releases.heard(name, user)
	case changedActivity:
		if name != c.o.Instance && c.leading.Load() {
			c.tally.touch(user)
		}
	}
}

// doubt looks at everything that is remembered once more when it is needed next: announcements may have been lost.
func (c *Control) doubt() {
	c.functions.doubt()
	c.users.doubt()
	c.groups.again()
}

// announce forgets at home and tells the other instances. A message that is lost costs them cacheAge.
func (c *Control) announce(kind, user, name string) {
	c.changed(kind, user, name)
	if err := c.o.Bus.PublishChanged(kind, user, name); err != nil {
		c.log.Warn("a change could not be announced to the other APIs", "kind", kind, "user", user, "name", name, "error", err)
	}
}

func (c *Control) loadFunction(ctx context.Context, user, name string) (*deployed, error) {
	f, err := c.o.Documents.Function(ctx, user, name)
	if err != nil {
		return nil, err
	}
	r, err := c.o.Documents.Revision(ctx, user, name, f.Current)
	if err != nil {
		return nil, err
	}
	return &deployed{function: f, revision: &r}, nil
}

// logOf is the log for what concerns an activation.
func (c *Control) logOf(r *faena.Record) *slog.Logger {
	return c.log.With("activation_id", r.ID, "trace_id", r.TraceID(), "user", r.User, "function", r.Function)
}

// Profile returns a user's profile as authentication needs it: remembered for a short time, and served while the
// store is away. KindNotFound where there is none.
func (c *Control) Profile(ctx context.Context, name string) (faena.User, error) {
	return c.users.get(ctx, "", name)
}
