package faena

import "errors"

// The outcomes of a step on the queue, the live records and the object store that a caller must tell apart. They
// are matched with errors.Is; adapters wrap them with the server's words.
var (
	// ErrSlotTaken: the server says that a message stands in that slot. Definite: nothing was stored.
	ErrSlotTaken = errors.New("slot taken")
	// ErrFull: the stream or object store has reached its bytes. Definite: nothing was stored.
	ErrFull = errors.New("storage full")
	// ErrRetry: the server did not take it now (no leader, no responders); nothing was stored; try again.
	ErrRetry = errors.New("not stored, try again")
	// ErrUnknown: no answer; it may or may not have been stored. Only the same step may be repeated.
	ErrUnknown = errors.New("outcome unknown")
	// ErrStale: a compare-and-set met another revision, and a look at the leader showed that the write is not ours.
	ErrStale = errors.New("changed by somebody else")
	// ErrUnreadable: what stands under a record's key is none, or no API has admitted it: it counts for nothing.
	ErrUnreadable = errors.New("cannot be read")
	// ErrSchema: a message or record of a schema version that this build does not read.
	ErrSchema = errors.New("unknown schema version")
)
