package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
)

const (
	// usesShown is how many users of a group an error names.
	usesShown = 10
	// againAfter is how long what a group needs stays away when it has failed.
	againAfter = time.Second
)

// groups are the groups of the installation as this instance knows them. The default group is always among them. Safe for
// concurrent use.
type groups struct {
	mu    sync.RWMutex
	known map[string]faena.Group
	order []string
	// kick asks for a reading now; of capacity one.
	kick chan struct{}
}

func newGroups(standard faena.Group) *groups {
	g := &groups{kick: make(chan struct{}, 1)}
	g.set([]faena.Group{standard})
	return g
}

// names returns the names in their order. The slice is not changed afterwards.
func (g *groups) names() []string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.order
}

func (g *groups) get(name string) (faena.Group, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	group, ok := g.known[name]
	return group, ok
}

func (g *groups) set(list []faena.Group) {
	known := make(map[string]faena.Group, len(list))
	for _, group := range list {
		known[group.Name] = group
	}
	g.mu.Lock()
	g.known, g.order = known, slices.Sorted(maps.Keys(known))
	g.mu.Unlock()
}

func (g *groups) again() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// stored reads the groups from the store. The default group stands for itself until an admin gives it keys.
func (c *Control) stored(ctx context.Context) ([]faena.Group, error) {
	list, err := c.o.Documents.Groups(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range list {
		if g.Name == faena.DefaultGroup {
			return list, nil
		}
	}
	list = append(list, c.standard())
	slices.SortFunc(list, func(a, b faena.Group) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// standard is the default group as it is before it is stored.
func (c *Control) standard() faena.Group {
	g := c.o.Default
	g.Schema, g.Name = faena.SchemaVersion, faena.DefaultGroup
	return g
}

// storedGroup reads one group; KindNotFound where there is none.
func (c *Control) storedGroup(ctx context.Context, name string) (faena.Group, error) {
	g, err := c.o.Documents.Group(ctx, name)
	if name == faena.DefaultGroup && faena.IsKind(err, faena.KindNotFound) {
		return c.standard(), nil
	}
	return g, err
}

// followGroups reads the groups until ctx ends, when a change is announced and now and then, and runs what each group needs
// of this instance: run, with a context that ends when the group is removed. Where it fails it is run again: the other groups
// go on.
func (c *Control) followGroups(ctx context.Context, run func(ctx context.Context, group string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	running := make(map[string]context.CancelFunc)
	failing := ""
	for {
		c.o.Pulse.Beat("groups")
		if text := c.readGroups(ctx); text != failing && ctx.Err() == nil {
			if failing = text; failing != "" {
				c.log.Warn("the groups could not be read or declared; those that are known go on", "error", failing)
			}
		}
		names := c.groups.names()
		for name, stop := range running {
			if !slices.Contains(names, name) {
				stop()
				delete(running, name)
				c.o.Bus.ForgetGroup(name)
				c.gauge.forget(name)
			}
		}
		for _, name := range names {
			if running[name] != nil {
				continue
			}
			own, stop := context.WithCancel(ctx)
			running[name] = stop
			wg.Go(func() {
				defer stop()
				for own.Err() == nil {
					if err := run(own, name); err != nil && own.Err() == nil {
						c.log.Warn("what a group needs of this instance has failed; it is tried again", "group", name, "error", err)
					}
					_ = sleep(own, againAfter) // it ends with own
				}
			})
		}
		if c.nextReading(ctx) != nil {
			return nil
		}
	}
}

// nextReading waits until the groups are to be read again.
func (c *Control) nextReading(ctx context.Context) error {
	t := time.NewTimer(c.groupsEvery)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.groups.kick:
	case <-t.C:
	}
	return nil
}

// readGroups takes over what the store has; a group is known when its streams are declared. It returns what is wrong.
func (c *Control) readGroups(ctx context.Context) (problem string) {
	list, err := c.stored(ctx)
	if err != nil {
		return err.Error()
	}
	var usable []faena.Group
	for _, g := range list {
		if _, known := c.groups.get(g.Name); !known {
			c.o.Pulse.Beat("groups") // each takes its own time
			if err := c.learn(ctx, g.Name); err != nil {
				problem = err.Error()
				continue
			}
		}
		usable = append(usable, g)
	}
	c.groups.set(usable)
	return problem
}

// learn declares what belongs to a group that this instance did not know. Where the group was removed meanwhile, what was
// declared has come after that, and would stay for ever.
func (c *Control) learn(ctx context.Context, name string) error {
	if err := c.o.Bus.DeclareGroup(ctx, name); err != nil {
		return err
	}
	_, gone := c.storedGroup(ctx, name)
	if faena.IsKind(gone, faena.KindNotFound) {
		return errors.Join(gone, c.o.Bus.RemoveGroup(ctx, name))
	}
	return gone
}

// GroupNames are the names of the groups that this instance knows.
func (c *Control) GroupNames() []string { return c.groups.names() }

// Groups lists the groups in order of name.
func (c *Control) Groups(ctx context.Context) ([]faena.GroupState, error) {
	list, err := c.stored(ctx)
	if err != nil {
		return nil, err
	}
	return c.states(ctx, list)
}

// Group returns one group; KindNotFound where there is none.
func (c *Control) Group(ctx context.Context, name string) (faena.GroupState, error) {
	g, err := c.storedGroup(ctx, name)
	if err != nil {
		return faena.GroupState{}, err
	}
	states, err := c.states(ctx, []faena.Group{g})
	if err != nil {
		return faena.GroupState{}, err
	}
	return states[0], nil
}

// states adds to groups what can be seen of them now.
func (c *Control) states(ctx context.Context, list []faena.Group) ([]faena.GroupState, error) {
	workers, err := c.o.Bus.Workers(ctx)
	if err != nil {
		return nil, queueError(err)
	}
	out := make([]faena.GroupState, len(list))
	for i, g := range list {
		out[i].Group = g
		for _, w := range workers {
			if w.Group != g.Name {
				continue
			}
			out[i].Workers++
			if w.NotReady == "" && !w.Draining {
				out[i].Ready++
			}
		}
		if _, known := c.groups.get(g.Name); !known {
			continue // it is new, or its streams cannot be made: the log says why
		}
		active, err := c.o.Bus.ActiveByUser(ctx, g.Name)
		if err != nil {
			return nil, queueError(err)
		}
		for _, n := range active {
			out[i].Active += n
		}
	}
	return out, nil
}

// PutGroup makes a group, or gives it other keys. It is pending until a worker of it has connected.
// KindInvalid; KindConflict with reason groups_full, or groups_fixed where the installation is one process.
func (c *Control) PutGroup(ctx context.Context, g faena.Group) (created bool, err error) {
	if c.o.SingleHost {
		return false, groupConflict("groups_fixed", "This appliance is one process with one worker, of group default. Groups need faena-api and faena-worker apart.")
	}
	if err := c.checkGroup(&g); err != nil {
		return false, err
	}
	c.grouping.Lock()
	defer c.grouping.Unlock()
	list, err := c.stored(ctx)
	if err != nil {
		return false, err
	}
	now := clock.Now()
	g.Schema, g.CreatedAt, g.UpdatedAt, g.ConnectedAt = faena.SchemaVersion, now, now, nil
	exists := false
	for _, have := range list {
		switch {
		case have.Name == g.Name:
			exists = true
			if have.Nkey == g.Nkey {
				g.ConnectedAt = have.ConnectedAt
			}
		case g.Nkey != "" && have.Nkey == g.Nkey:
			return false, faena.Invalid(faena.FieldError{Field: "nkey", Message: "is that of group " + have.Name + ": each group has its own"})
		}
	}
	if !exists && len(list) >= faena.MaxGroups {
		return false, groupConflict("groups_full", fmt.Sprintf("There are %d groups already, which is the most.", len(list)))
	}
	// First the streams: where there is no room for them there is no group.
	if err := c.o.Bus.DeclareGroup(ctx, g.Name); err != nil {
		return false, faena.Unavailable(faena.ComponentQueue, "group_not_declared", "The streams of the group could not be made: "+err.Error(), err)
	}
	if created, err = c.o.Documents.PutGroup(ctx, g); err != nil {
		return false, err
	}
	c.announce(changedGroup, g.Name, g.Name)
	return created && !exists, nil
}

func (c *Control) checkGroup(g *faena.Group) error {
	if err := g.Validate(); err != nil {
		return err
	}
	if g.Recipient != "" {
		if _, err := c.o.Sealer.Seal(g.Recipient, nil); err != nil {
			return faena.Invalid(faena.FieldError{Field: "recipient", Message: "is no public age key, which faena-worker keygen prints: age1…"})
		}
	}
	return nil
}

func groupConflict(reason, message string) error {
	return &faena.Error{Kind: faena.KindConflict, Reason: reason, Component: faena.ComponentCaller, Message: message}
}

// DeleteGroup removes a group that nobody uses, with its streams. KindNotFound; KindConflict with reason group_in_use, and by
// whom, or default_group. Where it fails half-way the same call again does the rest.
func (c *Control) DeleteGroup(ctx context.Context, name string) error {
	if name == faena.DefaultGroup {
		return groupConflict("default_group", "The default group cannot be removed.")
	}
	if !faena.ValidName(name) { // it would not be a name of streams either
		return faena.NotFound("group", name)
	}
	c.grouping.Lock()
	defer c.grouping.Unlock()
	uses, err := c.o.Documents.GroupUses(ctx, name, usesShown+1)
	if err != nil {
		return err
	}
	if len(uses) > 0 {
		return groupConflict("group_in_use", "Group "+name+" is used by "+usersText(uses)+".")
	}
	_, missing := c.o.Documents.Group(ctx, name)
	if missing != nil && !faena.IsKind(missing, faena.KindNotFound) {
		return missing
	}
	if missing == nil {
		live, err := c.o.Bus.LiveIDs(ctx, name)
		if err != nil {
			return queueError(err)
		}
		for user, ids := range live {
			return groupConflict("group_in_use", fmt.Sprintf("Group %s has work: %s of user %s, for one.", name, plural(len(ids), "activation"), user))
		}
		if err := c.o.Documents.DeleteGroup(ctx, name); err != nil {
			return err
		}
	}
	c.announce(changedGroup, name, name)
	if err := c.o.Bus.RemoveGroup(ctx, name); err != nil {
		return queueError(err)
	}
	return missing
}

func usersText(uses []faena.GroupUse) string {
	shown := make([]string, 0, usesShown)
	for _, u := range uses[:min(len(uses), usesShown)] {
		shown = append(shown, u.String())
	}
	text := strings.Join(shown, ", ")
	if len(uses) > usesShown {
		text += " and others"
	}
	return text
}

// usable checks that a function of a user may name a group: it is granted, and not pending.
func (c *Control) usable(ctx context.Context, user, name string) (faena.Group, error) {
	profile, err := c.users.get(ctx, "", user)
	if err != nil {
		return faena.Group{}, err
	}
	if _, granted := profile.Limit(name); !granted {
		return faena.Group{}, faena.Invalid(faena.FieldError{Field: "group", Message: fmt.Sprintf("%q does not exist or is not granted to you", name)})
	}
	g, err := c.storedGroup(ctx, name)
	switch {
	case faena.IsKind(err, faena.KindNotFound):
		return g, faena.Invalid(faena.FieldError{Field: "group", Message: fmt.Sprintf("%q does not exist", name)})
	case err != nil:
		return g, err
	case g.Pending():
		return g, faena.Invalid(faena.FieldError{Field: "group", Message: fmt.Sprintf("%q is pending: no worker of it has connected yet", name)})
	}
	return g, nil
}

// connected notes that workers of groups are there: a group is pending until one was.
func (c *Control) connected(ctx context.Context, workers []faena.Worker) {
	for _, w := range workers {
		g, known := c.groups.get(w.Group)
		if !known || !g.Pending() {
			continue
		}
		now := clock.Now()
		err := c.o.Documents.ConnectGroup(ctx, w.Group, now)
		if w.Group == faena.DefaultGroup && faena.IsKind(err, faena.KindNotFound) {
			g.ConnectedAt, g.CreatedAt, g.UpdatedAt = &now, now, now
			_, err = c.o.Documents.PutGroup(ctx, g)
		}
		if err != nil {
			continue // the next look tries again, and /readyz says what is wrong with the store
		}
		c.log.Info("a group has its first worker", "group", w.Group, "worker_id", w.ID)
		c.announce(changedGroup, w.Group, w.Group)
	}
}
