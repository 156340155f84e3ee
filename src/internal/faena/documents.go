package faena

import (
	"context"
	"time"
)

// Documents is the port of the document store: functions with their revisions, users, groups, and the history of
// activations. Its adapters, boltstore and mongostore, pass one contract suite. All methods are safe for concurrent use, by
// several processes where the adapter allows it, return copies that the caller may change, honour ctx, and answer a store
// that is away with an *Error of KindUnavailable and ComponentStore.
type Documents interface {
	FunctionDocuments
	UserDocuments
	GroupDocuments
	HistoryDocuments

	// Ping reports whether the store can be read and written.
	Ping(ctx context.Context) error
	// Close waits for what is under way and releases the store. A second call does nothing.
	Close() error
}

// Condition is what must hold of a function's head before it is changed.
type Condition struct {
	// IfMatch is the ETag that the head must have; "" is any, "*" any that exists. A mismatch, or a head that does
	// not exist, is an *Error of KindPrecondition.
	IfMatch string
	// IfNoneMatch true means that the head must not exist; otherwise KindPrecondition.
	IfNoneMatch bool
}

// Check returns the error for a head that does not meet the condition. It says what is true at that moment: only a store
// can tell together with the change.
func (c Condition) Check(f Function, exists bool) error {
	problem := ""
	switch {
	case c.IfNoneMatch && exists:
		problem = "The function exists already."
	case c.IfMatch != "" && !exists:
		problem = "The function does not exist."
	case c.IfMatch != "" && c.IfMatch != "*" && c.IfMatch != f.ETag():
		problem = "That is not the function's ETag, which is " + f.ETag() + ": it was changed meanwhile, or the ETag is another's."
	default:
		return nil
	}
	return &Error{Kind: KindPrecondition, Reason: "precondition_failed", Component: ComponentCaller, Message: problem}
}

// FunctionDocuments holds functions and their immutable revisions.
type FunctionDocuments interface {
	// AddRevision stores rev as the next revision of its function and makes it the current one, in one step. It
	// sets rev.Number, and makes the function where it does not exist (created is true then). KindNotFound for a user
	// who was erased.
	AddRevision(ctx context.Context, rev Revision, c Condition) (f Function, created bool, err error)
	// SetCurrent makes an existing revision the current one. KindNotFound for a function or revision that is absent.
	SetCurrent(ctx context.Context, user, name string, number int, c Condition) (Function, error)
	// Function returns the head; KindNotFound where there is none.
	Function(ctx context.Context, user, name string) (Function, error)
	// Functions lists a user's heads in order of name, those after the given name ("" is from the start).
	Functions(ctx context.Context, user, after string, limit int) ([]Function, error)
	// Revision returns one revision; KindNotFound where there is none.
	Revision(ctx context.Context, user, name string, number int) (Revision, error)
	// Revisions lists a function's revisions, newest first, those below the given number (0 is from the newest).
	Revisions(ctx context.Context, user, name string, below, limit int) ([]Revision, error)
	// DeleteFunction removes the head and every revision. KindNotFound where there is none. A function made again
	// under the name begins with revision 1 and another CreatedAt, hence another ETag.
	DeleteFunction(ctx context.Context, user, name string, c Condition) error
}

// UserDocuments holds the users' profiles.
type UserDocuments interface {
	// PutUser makes or replaces a profile. A name that differs from an existing one (tombstones included) only in
	// case, or that belongs to a tombstone, is KindConflict. CreatedAt of an existing profile is kept, and so is its
	// PasswordHash where u has none, in the step that writes: a password that is set meanwhile is not lost.
	PutUser(ctx context.Context, u User) (created bool, err error)
	// SetPassword changes PasswordHash and UpdatedAt of a profile, in one step that keeps all else, whoever changes that
	// meanwhile. KindNotFound where there is none or it is deleted.
	SetPassword(ctx context.Context, name, hash string) error
	// User returns a profile; KindNotFound where there is none or it is deleted.
	User(ctx context.Context, name string) (User, error)
	// Users lists profiles in order of name, those after the given name; tombstones are left out.
	Users(ctx context.Context, after string, limit int) ([]User, error)
	// EraseUser turns the profile into a tombstone, and then removes the user's functions, revisions, history and
	// usage; nothing is added to them from then on. KindNotFound where there is none. One that was cut short is
	// finished by the same call made again, or when the store is opened next.
	EraseUser(ctx context.Context, name string) error
}

// GroupDocuments holds the groups of worker hosts.
type GroupDocuments interface {
	// PutGroup makes or replaces a group. CreatedAt of an existing one is kept.
	PutGroup(ctx context.Context, g Group) (created bool, err error)
	// Group returns one; KindNotFound where there is none.
	Group(ctx context.Context, name string) (Group, error)
	// Groups lists all of them, at most MaxGroups, in order of name.
	Groups(ctx context.Context) ([]Group, error)
	// DeleteGroup removes one; KindNotFound where there is none.
	DeleteGroup(ctx context.Context, name string) error
	// ConnectGroup sets ConnectedAt of a group where it is not set; KindNotFound where there is no such group.
	ConnectGroup(ctx context.Context, name string, at time.Time) error
	// GroupUses lists who uses a group, at most limit of them: users (tombstones left out) whose profile grants it, then
	// functions whose current revision names it, each in order.
	GroupUses(ctx context.Context, name string, limit int) ([]GroupUse, error)
}

// HistoryQuery selects a page of a user's activations, newest first.
type HistoryQuery struct {
	User     string
	Function string // "" is any
	State    State  // "" is any
	Before   string // only ids smaller than this one; "" is from the newest
	Limit    int    // 1 to 1,000
}

// Usage counts what ended, of activations admitted in one hour.
type Usage struct {
	User      string    `json:"user"`
	Hour      time.Time `json:"hour"` // start of the hour, UTC
	Completed int64     `json:"completed"`
	Failed    int64     `json:"failed"` // every terminal state but succeeded
	RunUS     int64     `json:"run_us"`
}

// HistoryDocuments holds terminal records.
type HistoryDocuments interface {
	// Insert stores terminal records. One that is stored already is left as it is and is no error, so that
	// recording may be repeated; one of a user who was erased is dropped. Each counts once in the usage of its hour,
	// however often it is inserted; so does one that is first inserted when its hour was pruned, and one that is inserted
	// again within a day after it was pruned, which may be stored again. Both are gone with the next Prune. A record that is
	// not terminal is an error, and nothing of its batch is stored.
	Insert(ctx context.Context, records []Record) error
	// Activation returns one record; KindNotFound where there is none.
	Activation(ctx context.Context, user, id string) (Record, error)
	// Recorded returns those of the ids of a user's activations that are stored, in their order; all of them where the
	// user was erased, since none will be.
	Recorded(ctx context.Context, user string, ids []string) ([]string, error)
	// Activations returns a page, newest first, without the inline bytes of results and logs, so that a page of 1,000
	// stays small. The time it takes does not depend on how many a user has, nor on the filters.
	Activations(ctx context.Context, q HistoryQuery) ([]Record, error)
	// UserUsage sums a user's usage over all hours; Hour is zero. It outlives history that was pruned.
	UserUsage(ctx context.Context, user string) (Usage, error)
	// UsageByHour lists a user's usage of the hours from the one that from is in, oldest first, at most limit. Hours
	// without usage are left out.
	UsageByHour(ctx context.Context, user string, from time.Time, limit int) ([]Usage, error)

	// Prune removes records that were admitted before the hour that before is in, at most limit of them, and returns what it
	// removed, without inline bytes, so that its objects can be removed. Fewer than limit means that none is left. Usage stays
	// as it is. The hour becomes HistoryStats.Horizon before the first is removed. With an error comes what was removed
	// before it.
	Prune(ctx context.Context, before time.Time, limit int) ([]Record, error)
	// HistoryStats tells how much history there is. It costs no more than a few reads, however much that is.
	HistoryStats(ctx context.Context) (HistoryStats, error)
}

// HistoryStats is how much history a store keeps.
type HistoryStats struct {
	Bytes   int64     // that records take, with their inline bytes; a close estimate, which falls as records are pruned
	Oldest  time.Time // admission of the oldest record; zero where there is none
	Horizon time.Time // the latest hour that Prune was called for: what was admitted before is gone, or will be; zero: never
}
