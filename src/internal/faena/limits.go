package faena

import "time"

// Limits that are part of the contract (design sections 1 to 4). Those that an operator may change are defaults here.
const (
	// MaxArgBytes is the longest parameter that fits into one argv string: Linux's MAX_ARG_STRLEN (131,072) less
	// the terminating NUL.
	MaxArgBytes = 131_071
	// MaxInlineBytes is the size up to which a parameter, a result or a log stands in its message or record; what
	// is larger is an object.
	MaxInlineBytes = 256 << 10
	// MaxRevisionBytes is the largest JSON form of a revision: it travels in every activation's message.
	MaxRevisionBytes = 256 << 10
	// DefaultMaxParameterBytes is the default of the largest parameter on stdin.
	DefaultMaxParameterBytes = 6 << 20
	// MaxLogBytes is how much of an activation's log is kept, its tail.
	MaxLogBytes = 1 << 20
	// LogTailBytes is how much of the log a problem document shows.
	LogTailBytes = 4 << 10

	// DefaultSlots is a user's limit of active activations in a group unless the profile says otherwise.
	DefaultSlots = 20
	// MaxSlots is the highest limit that a profile may give.
	MaxSlots = 1000

	// DefaultBacklog is how many activations of a user may wait in a group beyond the limit.
	DefaultBacklog = 10_000
	// MaxSlotDelay is the longest delay before a retry during which an activation keeps its slot.
	MaxSlotDelay = 30 * time.Second
	// IdempotencyTTL is how long an Idempotency-Key stands for its activation.
	IdempotencyTTL = 24 * time.Hour
	// ClaimWithin is how long an Idempotency-Key may stand for an activation that is nowhere, before it is admitted again.
	ClaimWithin = 30 * time.Second

	// MaxGroups is how many groups of worker hosts an installation may have.
	MaxGroups = 64

	// SyncWait is how long a synchronous call may wait, and the latest start of its activation after admission.
	SyncWait = 640 * time.Second
	// AsyncStartWithin is the default latest start of an asynchronous activation after admission.
	AsyncStartWithin = 24 * time.Hour
	// AdmitBudget bounds record and publication together, retries included.
	AdmitBudget = 4 * time.Second

	// AckWait is the worker failure detector: a message that is not confirmed for so long is redelivered.
	AckWait = 30 * time.Second
	// ProgressEvery is how often a worker confirms that it still holds a message, and re-reads its record.
	ProgressEvery = 10 * time.Second
	// FenceAfter is how long a worker runs on without a confirmation before it kills its own run.
	FenceAfter = 25 * time.Second
	// HeartbeatTTL is how long a worker counts as present after its last heartbeat.
	HeartbeatTTL = 15 * time.Second
	// LeaseTTL is how long an API stays the leader after it last said so, and LeaseEvery how often it says so.
	LeaseTTL   = 6 * time.Second
	LeaseEvery = 2 * time.Second
)
