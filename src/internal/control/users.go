package control

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
)

// restoreFor is how long it may take to give a role back.
const restoreFor = 10 * time.Second

// PutUser makes or replaces a profile. password is what the user logs in with; "" keeps the one that is, also one that is set
// meanwhile. A new user without one cannot log in where this installation checks passwords itself. The only admin stays one:
// KindConflict.
func (c *Control) PutUser(ctx context.Context, u faena.User, password string) (created bool, err error) {
	if u.PasswordHash, err = c.hash(ctx, password); err != nil {
		return false, err
	}
	return c.putUser(ctx, u)
}

// hash is "" for "". It comes before all that is read and written: it takes long.
func (c *Control) hash(ctx context.Context, password string) (string, error) {
	if password == "" {
		return "", nil
	}
	return c.o.Passwords.Hash(ctx, password)
}

func (c *Control) putUser(ctx context.Context, u faena.User) (created bool, err error) {
	if u.Role == "" {
		u.Role = faena.RoleUser
	}
	if len(u.Groups) == 0 {
		u.Groups = map[string]int{faena.DefaultGroup: faena.DefaultSlots}
	}
	if err := c.checkUser(ctx, &u); err != nil {
		return false, err
	}
	old, err := c.o.Documents.User(ctx, u.Name)
	if err != nil && !faena.IsKind(err, faena.KindNotFound) {
		return false, err
	}
	now := clock.Now()
	u.Schema, u.UpdatedAt, u.CreatedAt = faena.SchemaVersion, now, now
	if old.Role == faena.RoleAdmin && u.Role != faena.RoleAdmin {
		err = c.demote(ctx, old, u)
	} else {
		created, err = c.o.Documents.PutUser(ctx, u)
	}
	if err != nil {
		return false, err
	}
	c.announce(changedUser, u.Name, u.Name)
	return created, nil
}

// demote replaces an admin's profile by one that is none. Another API may do so with another admin at the same moment, and each
// still find the other one. So it looks again when it has written: whoever writes last sees what all others wrote. Where no
// admin is left, or nobody can tell, this one is an admin again, as before. Only an API that is killed between the two can leave
// none; CreateAdmin mends that.
func (c *Control) demote(ctx context.Context, old, u faena.User) error {
	c.admins.Lock() // of two at this API one succeeds
	defer c.admins.Unlock()
	if err := c.notLastAdmin(ctx, u.Name); err != nil {
		return err
	}
	if _, err := c.o.Documents.PutUser(ctx, u); err != nil {
		return err
	}
	last := c.notLastAdmin(ctx, u.Name)
	if last == nil {
		return nil
	}
	if u.PasswordHash == "" { // the password was not replaced
		old.PasswordHash = ""
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreFor)
	defer cancel()
	if _, err := c.o.Documents.PutUser(ctx, old); err != nil {
		return fmt.Errorf("make user %s an admin again, without whom there may be none: %w", u.Name, err)
	}
	c.announce(changedUser, u.Name, u.Name)
	return last
}

// notLastAdmin refuses what would leave an installation without an admin: nobody could undo it.
func (c *Control) notLastAdmin(ctx context.Context, name string) error {
	for after, more := "", true; more; {
		users, err := c.o.Documents.Users(ctx, after, usersPage)
		if err != nil {
			return err
		}
		for _, u := range users {
			if u.Role == faena.RoleAdmin && u.Name != name {
				return nil
			}
			after = u.Name
		}
		more = len(users) == usersPage
	}
	return &faena.Error{Kind: faena.KindConflict, Reason: "last_admin", Component: faena.ComponentCaller,
		Message: fmt.Sprintf("User %q is the only admin. Make another one first.", name)}
}

func (c *Control) checkUser(ctx context.Context, u *faena.User) error {
	if err := u.Validate(); err != nil {
		return err
	}
	for g := range u.Groups {
		if _, err := c.storedGroup(ctx, g); faena.IsKind(err, faena.KindNotFound) {
			return faena.Invalid(faena.FieldError{Field: "groups." + g, Message: fmt.Sprintf("%q does not exist", g)})
		} else if err != nil {
			return err
		}
	}
	return nil
}

// CreateAdmin makes a user who is an admin, or makes one of a user who is there, with a new password; "" leaves that as it is.
// It is how the first admin is made, and a lost one recovered.
func (c *Control) CreateAdmin(ctx context.Context, name, password string) (created bool, err error) {
	hash, err := c.hash(ctx, password)
	if err != nil {
		return false, err
	}
	u, err := c.o.Documents.User(ctx, name)
	if err != nil && !faena.IsKind(err, faena.KindNotFound) {
		return false, err
	}
	return c.putUser(ctx, faena.User{Name: name, Role: faena.RoleAdmin, Groups: u.Groups, PasswordHash: hash})
}

// SetPassword replaces a user's password, and nothing else of the profile; what was remembered of the old one is dropped at once.
func (c *Control) SetPassword(ctx context.Context, name, password string) error {
	hash, err := c.o.Passwords.Hash(ctx, password)
	if err != nil {
		return err
	}
	if err := c.o.Documents.SetPassword(ctx, name, hash); err != nil {
		return err
	}
	c.announce(changedUser, name, name)
	return nil
}

// User returns a profile; KindNotFound where there is none.
func (c *Control) User(ctx context.Context, name string) (faena.User, error) {
	return c.o.Documents.User(ctx, name)
}

// Users lists profiles in order of name, those after the given name.
func (c *Control) Users(ctx context.Context, after string, limit int) ([]faena.User, error) {
	return c.o.Documents.Users(ctx, after, limit)
}

// DeleteUser cancels what is live of the user, in slots and in the backlog, and erases functions, history, dead letters and
// Idempotency-Keys. The name is never given again. Where it
// fails half-way the same call again does the rest. The only admin is KindConflict.
func (c *Control) DeleteUser(ctx context.Context, name string) error {
	u, err := c.o.Documents.User(ctx, name)
	if err != nil && !faena.IsKind(err, faena.KindNotFound) {
		return err
	}
	if u.Role == faena.RoleAdmin { // the role goes first: it can be given back, what is erased cannot
		plain := u
		plain.Role, plain.PasswordHash, plain.UpdatedAt = faena.RoleUser, "", clock.Now()
		if err := c.demote(ctx, u, plain); err != nil {
			return err
		}
	}
	missing := c.o.Documents.EraseUser(ctx, name)
	if missing != nil && !faena.IsKind(missing, faena.KindNotFound) {
		return missing
	}
	c.announce(changedUser, name, name) // nothing new is admitted from here on
	var cancelled atomic.Bool
	var functions sync.Map
	err = c.eachLive(ctx, name, func(r *faena.Record) error {
		cancelled.Store(true)
		if _, known := functions.LoadOrStore(r.Function, true); !known {
			c.announce(changedFunction, name, r.Function)
		}
		if r.State == faena.StateQueued {
			if ended, err := c.endQueued(ctx, r, faena.ReasonCancelled, "Its user was deleted before it started."); err != nil || ended != nil {
				return err
			}
		}
		_, err := c.Cancel(ctx, name, r.ID)
		if faena.IsKind(err, faena.KindNotFound) {
			return nil // it has ended meanwhile, and is not recorded any more
		}
		return err
	})
	if err == nil {
		err = c.eraseLeft(ctx, name)
	}
	if err != nil || cancelled.Load() {
		return err
	}
	return missing
}

// eraseLeft removes what the queue keeps of a user beyond activations: dead letters, and what Idempotency-Keys stand for.
func (c *Control) eraseLeft(ctx context.Context, user string) error {
	if _, err := c.PurgeDeadLetters(ctx, faena.DeadLetterQuery{User: user}); err != nil {
		return err
	}
	return queueError(c.o.Bus.DropKeys(ctx, user))
}

// eachLive calls fn with each of a user's activations that has not ended, some at the same time, the queued ones first: none of
// them should start in the place of one that ends.
func (c *Control) eachLive(ctx context.Context, user string, fn func(*faena.Record) error) error {
	for _, group := range c.groups.names() {
		live, err := c.o.Bus.LiveRecords(ctx, group, user)
		if err != nil {
			return queueError(err)
		}
		for _, state := range []faena.State{faena.StateQueued, faena.StateRunning} {
			of := slices.DeleteFunc(slices.Clone(live), func(r *faena.Record) bool { return r.State != state })
			if err := together(of, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// Usage returns what a user has active and has had, over all groups.
func (c *Control) Usage(ctx context.Context, name string) (faena.UserUsage, error) {
	u, err := c.o.Documents.User(ctx, name)
	if err != nil {
		return faena.UserUsage{}, err
	}
	sum, err := c.o.Documents.UserUsage(ctx, name)
	if err != nil {
		return faena.UserUsage{}, err
	}
	out := faena.UserUsage{Completed: sum.Completed, Failed: sum.Failed}
	for _, limit := range u.Groups {
		out.Limit += int64(limit)
	}
	for _, group := range c.groups.names() { // also those that are not granted any more
		busy, err := c.o.Bus.BusySlots(ctx, group, name)
		if err != nil {
			return faena.UserUsage{}, queueError(err)
		}
		out.Active += int64(len(busy))
	}
	out.Backlog, err = c.waiting(ctx, name)
	return out, err
}

// Workers lists the workers that sent a heartbeat lately.
func (c *Control) Workers(ctx context.Context) ([]faena.Worker, error) {
	w, err := c.o.Bus.Workers(ctx)
	return w, queueError(err)
}

// Ready reports whether this instance can take activations, and names what is missing. A document store that is
// away is named, but activations of known functions go on.
func (c *Control) Ready(ctx context.Context) (missing []string, ready bool) {
	ready = true
	if !c.o.Bus.Connected() {
		ready = false
		missing = append(missing, "queue: no connection to NATS")
	} else if c.writes.none() {
		ready = false
		missing = append(missing, takesNoWrites)
	}
	if err := c.o.Documents.Ping(ctx); err != nil {
		missing = append(missing, "documents: "+err.Error())
	}
	if failure := c.gauge.err.Load(); failure != nil {
		missing = append(missing, "queue: "+*failure)
	}
	c.gauge.mu.Lock()
	defer c.gauge.mu.Unlock()
	for _, group := range c.groups.names() {
		if _, why := c.gauge.hasWorker(group); why != "" {
			missing = append(missing, "workers: "+why)
		}
		if what := c.gauge.full[group]; what != "" {
			missing = append(missing, "storage: "+what)
		}
	}
	return missing, ready
}
