package control

import (
	"context"
	"time"

	"faena.dev/faena/internal/faena"
)

// Records is the bucket of live records. Every change is a compare-and-set on the record's revision.
type Records interface {
	// CreateRecord stores a record that must not exist; KindConflict where it does.
	CreateRecord(ctx context.Context, r *faena.Record) (rev uint64, err error)
	// RecordAge reads like Record, and tells how long ago the record was last changed, by the server's clock.
	RecordAge(ctx context.Context, group, user, id string) (r *faena.Record, rev uint64, age time.Duration, err error)
	// UpdateRecord replaces the record at revision rev; faena.ErrStale, faena.ErrUnknown.
	UpdateRecord(ctx context.Context, r *faena.Record, rev uint64) (uint64, error)
	// Record reads from the leader; KindNotFound where it is absent.
	Record(ctx context.Context, group, user, id string) (*faena.Record, uint64, error)
	// PurgeRecord removes the key without a marker.
	PurgeRecord(ctx context.Context, group, user, id string) error
	// LiveIDs lists what the group's bucket holds: ids of activations by user.
	LiveIDs(ctx context.Context, group string) (map[string][]string, error)
	// LiveRecords lists what the bucket holds of a user.
	LiveRecords(ctx context.Context, group, user string) ([]*faena.Record, error)
	// Terminal hands terminal records to fn in batches until ctx ends, and purges those that fn has taken. put is given those that
	// a worker has put back for a later retry; where it fails they come again.
	Terminal(ctx context.Context, group string, batch int, wait time.Duration, fn func(context.Context, []faena.Record) error,
		put func(context.Context, *faena.Record) error) error
}

// Queue is the stream of a group, with one message for each slot in use.
type Queue interface {
	// Publish makes one try: faena.ErrSlotTaken, ErrFull, ErrRetry or ErrUnknown.
	Publish(ctx context.Context, user, group string, slot, publication int, m *faena.Message) (seq uint64, duplicate bool, err error)
	// BusySlots asks the stream which of the user's slots hold a message.
	BusySlots(ctx context.Context, group, user string) (map[int]struct{}, error)
	// ActiveByUser counts the messages of every user.
	ActiveByUser(ctx context.Context, group string) (map[string]int, error)
	// SlotMessage tells which activation's message stands in a slot; KindNotFound where none does.
	SlotMessage(ctx context.Context, group, user string, slot int) (id string, seq uint64, err error)
	// SlotParameter reads an activation's parameter from its message in a slot; KindNotFound where another's stands there, or none;
	// faena.ErrUnreadable.
	SlotParameter(ctx context.Context, group, user string, slot int, id string) (faena.Blob, error)
	// DeleteMessage removes a message by sequence; one that is gone is no error.
	DeleteMessage(ctx context.Context, group string, seq uint64) error
}

// Backlog is what waits in a group beyond the users' limits, or for a retry that is some time off.
type Backlog interface {
	// PublishBacklog makes one try: faena.ErrFull, ErrRetry or ErrUnknown. The same publication standing there already is success.
	PublishBacklog(ctx context.Context, user, group string, publication int, m *faena.Message) error
	// BacklogByUser counts what waits in a group; BacklogSize, what waits of one user.
	BacklogByUser(ctx context.Context, group string) (map[string]int, error)
	BacklogSize(ctx context.Context, group, user string) (int, error)
	// BacklogMessage reads the message of an activation, BacklogNext the oldest of a user whose sequence is at least from;
	// KindNotFound where there is none.
	BacklogMessage(ctx context.Context, group, user, id string) (faena.Waiting, error)
	BacklogNext(ctx context.Context, group, user string, from uint64) (faena.Waiting, error)
	// DeleteBacklog removes a message by sequence; one that is gone is no error.
	DeleteBacklog(ctx context.Context, group string, seq uint64) error
	// Pending is how many messages of a group's queue no worker has been given yet.
	Pending(ctx context.Context, group string) (int, error)
}

// DeadLetters are what nobody will run any more, until somebody decides on it.
type DeadLetters interface {
	// DeadLetterIDs lists activations by user; of all users where user is "".
	DeadLetterIDs(ctx context.Context, group, user string) (map[string][]string, error)
	// DeadLetter reads one; KindNotFound where there is none, faena.ErrUnreadable or ErrSchema, with seq, where it means nothing.
	DeadLetter(ctx context.Context, group, user, id string) (d *faena.DeadLetter, seq uint64, err error)
	// PutDeadLetter writes one; a second one of the same activation replaces the first.
	PutDeadLetter(ctx context.Context, d *faena.DeadLetter) error
	// ReplaceDeadLetter is PutDeadLetter for one that stands at seq, and returns where it stands then; faena.ErrStale.
	ReplaceDeadLetter(ctx context.Context, d *faena.DeadLetter, seq uint64) (next uint64, err error)
	// DeleteDeadLetter removes one by sequence; one that is gone is no error.
	DeleteDeadLetter(ctx context.Context, group string, seq uint64) error
	// TrimDeadLetters removes the oldest of a user's but for keep, and returns how many.
	TrimDeadLetters(ctx context.Context, group, user string, keep int) (n int, err error)
}

// Claims are what the users' Idempotency-Keys stand for.
type Claims interface {
	// ClaimKey makes a key, of which hash is the hash, stand for claim, and returns what stands there then, with its age by the
	// server's clock; mine reports whether it is claim.
	ClaimKey(ctx context.Context, user, hash string, claim *faena.IdempotencyClaim) (there faena.IdempotencyClaim, mine bool, rev uint64, age time.Duration, err error)
	// RenewKey makes a key that stands at revision rev stand there anew, for the same claim; faena.ErrStale where it does not stand there.
	RenewKey(ctx context.Context, user, hash string, claim *faena.IdempotencyClaim, rev uint64) (next uint64, err error)
	// DropKey frees a key that stands at revision rev.
	DropKey(ctx context.Context, user, hash string, rev uint64) error
	// DropKeys frees all keys of a user.
	DropKeys(ctx context.Context, user string) error
}

// Objects is the group's store of what is over faena.MaxInlineBytes.
type Objects interface {
	PutObject(ctx context.Context, group, name string, data []byte) error
	Object(ctx context.Context, group, name string) ([]byte, error)
	DeleteObject(ctx context.Context, group, name string) error
}

// Pulse is told that loops go on, so that one that stands still is noticed. A loop that rests has nothing to do, however long.
type Pulse interface {
	Beat(loop string)
	Rest(loop string)
}

type noPulse struct{}

func (noPulse) Beat(string) {}
func (noPulse) Rest(string) {}

// Signals are the hints between daemons. Each may be lost; nothing depends on one alone.
type Signals interface {
	Complete(ctx context.Context, r *faena.Record) error
	Completed(instance string, fn func(*faena.Record)) (stop func(), err error)
	RequestCancel(ctx context.Context, group, id string) error
	// RequestDrain asks a worker to take nothing more, or to take activations again.
	RequestDrain(ctx context.Context, worker string, drain bool) error
	FollowLog(group, user, id string, fn func(offset int64, p []byte)) (stop func(), err error)
	LogSoFar(ctx context.Context, group, id string) (offset int64, p []byte, err error)
	PublishChanged(kind, user, name string) error
	Changed(fn func(kind, user, name string)) (stop func(), err error)
	// OnReconnect calls fn after a lost connection is back.
	OnReconnect(fn func()) (stop func())
	Connected() bool
}

// Clock is the servers': no host's own is trusted where something is removed, or ended, by its age.
type Clock interface {
	ServerNow() time.Time
}

// Observed are the small documents that the daemons publish about themselves.
type Observed interface {
	Workers(ctx context.Context) ([]faena.Worker, error)
	PutCounter(ctx context.Context, user, name string, n int64) error
}

// Leases are what one of several instances holds at a time.
type Leases interface {
	// HoldLease takes (rev 0) or renews a lease; held is false, for certain, where somebody else has it or it ran out. It runs
	// out faena.LeaseTTL after it was held last.
	HoldLease(ctx context.Context, name, holder string, rev uint64) (next uint64, held bool, err error)
	// DropLease gives it up at once where it still stands at rev.
	DropLease(ctx context.Context, name string, rev uint64) error
	// LeaseHolder is "" where nobody holds it.
	LeaseHolder(ctx context.Context, name string) (string, error)
}

// Declarations make and remove what a group has in the messaging system.
type Declarations interface {
	// DeclareGroup makes it, or brings it up to date; it may be called again, by several instances at once.
	DeclareGroup(ctx context.Context, group string) error
	// RemoveGroup removes it with all that is in it; what is absent is no error.
	RemoveGroup(ctx context.Context, group string) error
	// ForgetGroup tells that somebody else has removed it.
	ForgetGroup(group string)
}

// Bus is all that this package asks of the messaging system.
type Bus interface {
	Records
	Queue
	Backlog
	DeadLetters
	Claims
	Objects
	Signals
	Observed
	Storage
	Leases
	Declarations
	Clock
}

// QueueHealth is what the messaging system tells of itself, for a faena.Diagnosis.
type QueueHealth interface {
	Servers(ctx context.Context) ([]faena.QueueServer, error)
	Streams(ctx context.Context, groups []string) ([]faena.StreamHealth, error)
	Unreadable(ctx context.Context, groups []string) ([]faena.Unreadable, error)
	// Clocks tells how far the clocks of this process and of the workers are ahead of the servers'. Of is "" for our own.
	Clocks(ctx context.Context) ([]faena.ClockDifference, error)
}

// Storage reports how full the messaging system is.
type Storage interface {
	// Fill returns the fullest of what the group's stores and the server may hold, as a fraction of 1, with a word
	// for which it is, and how many records the group's bucket holds.
	Fill(ctx context.Context, group string) (fraction float64, what string, records uint64, err error)
	// BacklogFill returns how full the group's backlog is, as a fraction of 1.
	BacklogFill(ctx context.Context, group string) (float64, error)
	// TakesWrites writes what costs nothing to the group's records. faena.ErrUnknown is a write without an answer.
	TakesWrites(ctx context.Context, group string) error
}

// Resolver asks an image registry at deploy time.
type Resolver interface {
	// Resolve pins a reference to the digest of its manifest for linux/arch. Errors are *faena.Error of KindInvalid
	// in the registry's words, or KindUnavailable.
	Resolve(ctx context.Context, image string, creds *faena.Credentials, arch string) (faena.ResolvedImage, error)
}

// Sealer encrypts registry credentials for the workers of a group, whose public key is the recipient, and for the APIs.
type Sealer interface {
	Seal(recipient string, plaintext []byte) ([]byte, error)
}

// Passwords hashes what a user chose, and forgets what it remembered of a user.
type Passwords interface {
	// Hash refuses a password that the gateway could not carry, as *faena.Error of KindInvalid.
	Hash(ctx context.Context, password string) (string, error)
	Forget(user string)
}

// Observer is told what happens, for metrics. Its methods return at once.
type Observer interface {
	Admitted(group string, async bool)
	Refused(reason string)
	Recorded(r *faena.Record)
	// Released is told of each activation that has left the backlog for a slot.
	Released(group string)
	// Conserved is told where the activations of a group are; nil: it is not for this instance to say any more.
	Conserved(group string, is *faena.Conservation)
	Leading(yes bool)
	Swept(reason faena.Reason)
	Pruned(n int)
	// Trimmed is told how many dead letters were removed since their users had too many.
	Trimmed(n int)
}
