package faena

import (
	"fmt"
	"slices"
	"time"
)

// State is where an activation stands. See the package comment for the ways between them.
type State string

// The states of an activation.
const (
	StateQueued    State = "queued"
	StateRunning   State = "running"
	StateSucceeded State = "succeeded"
	StateFailed    State = "failed"
	StateTimedOut  State = "timed_out"
	StateCancelled State = "cancelled"
	StateLost      State = "lost"
)

// States lists every state, in the order of an activation's life.
var States = []State{StateQueued, StateRunning, StateSucceeded, StateFailed, StateTimedOut, StateCancelled, StateLost}

// Terminal reports whether s is never left again.
func (s State) Terminal() bool { return s != StateQueued && s != StateRunning && s != "" }

// Reason says why an activation did not succeed. The list is closed; see Explain for what each means.
type Reason string

// The reasons.
const (
	ReasonExitNonzero     Reason = "exit_nonzero"
	ReasonKilledBySignal  Reason = "killed_by_signal"
	ReasonOOMKilled       Reason = "oom_killed"
	ReasonTimeout         Reason = "timeout"
	ReasonResultTooLarge  Reason = "result_too_large"
	ReasonImageNotFound   Reason = "image_not_found"
	ReasonImageDenied     Reason = "image_denied"
	ReasonImagePlatform   Reason = "image_platform"
	ReasonNoCommand       Reason = "no_command"
	ReasonExecFormat      Reason = "exec_format"
	ReasonStartFailed     Reason = "start_failed"
	ReasonWorkerLost      Reason = "worker_lost"
	ReasonCancelled       Reason = "cancelled"
	ReasonFunctionDeleted Reason = "function_deleted"
	ReasonExpired         Reason = "expired"
	ReasonNoWorker        Reason = "no_worker"
	ReasonResultStoreFull Reason = "result_store_full"
)

// Explanation is what is known of a Reason without looking at the activation.
type Explanation struct {
	State     State     // the terminal state that the reason leads to
	Component Component // the part where it happened
	Retryable bool      // whether the same activation may succeed another time
}

var explanations = map[Reason]Explanation{
	ReasonExitNonzero:     {StateFailed, ComponentFunction, false},
	ReasonKilledBySignal:  {StateFailed, ComponentFunction, false},
	ReasonOOMKilled:       {StateFailed, ComponentFunction, false},
	ReasonTimeout:         {StateTimedOut, ComponentFunction, false},
	ReasonResultTooLarge:  {StateFailed, ComponentFunction, false},
	ReasonImageNotFound:   {StateFailed, ComponentRegistry, false},
	ReasonImageDenied:     {StateFailed, ComponentRegistry, false},
	ReasonImagePlatform:   {StateFailed, ComponentRegistry, false},
	ReasonNoCommand:       {StateFailed, ComponentFunction, false},
	ReasonExecFormat:      {StateFailed, ComponentFunction, false},
	ReasonStartFailed:     {StateFailed, ComponentEngine, true},
	ReasonWorkerLost:      {StateLost, ComponentWorker, true},
	ReasonCancelled:       {StateCancelled, ComponentCaller, false},
	ReasonFunctionDeleted: {StateCancelled, ComponentCaller, false},
	ReasonExpired:         {StateFailed, ComponentQueue, true},
	ReasonNoWorker:        {StateFailed, ComponentQueue, true},
	ReasonResultStoreFull: {StateFailed, ComponentStore, true},
}

// Explain returns what is known of r; ok is false for a word that is not on the list.
func Explain(r Reason) (e Explanation, ok bool) { e, ok = explanations[r]; return e, ok }

// Reasons returns the closed list, sorted.
func Reasons() []Reason {
	out := make([]Reason, 0, len(explanations))
	for r := range explanations {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

// Blob is a run of bytes that is inline where small, and an object of the group's object store where large.
// Bytes are never decoded, trimmed or re-encoded.
type Blob struct {
	Size      int64  `json:"size"`                // of what is kept, in bytes
	Inline    []byte `json:"inline,omitempty"`    // set where Object is empty
	Object    string `json:"object,omitempty"`    // name in the object store
	Truncated bool   `json:"truncated,omitempty"` // something was dropped: of a log the head, of a result the tail
	Dropped   int64  `json:"dropped,omitempty"`   // of a log: how many bytes before the first that is kept
}

// Timings are the stages of an activation in microseconds, each measured on one host's monotonic clock, but
// QueueUS, which is from the server's timestamp of the message to the claim.
type Timings struct {
	QueueUS int64 `json:"queue_us"` // waiting in the stream
	PullUS  int64 `json:"pull_us"`  // image pull; 0 when present
	StartUS int64 `json:"start_us"` // container made ready: create and start, or 0 when warm
	RunUS   int64 `json:"run_us"`   // the function's process, from its start to its end
	StoreUS int64 `json:"store_us"` // large result and log written
	TotalUS int64 `json:"total_us"` // from the server's timestamp of the message to the settle
}

// Record is the one truth about an activation. It lives in the group's bucket while the activation is live, and
// in the document store afterwards. Every change of it is a compare-and-set.
type Record struct {
	Schema      int    `json:"schema"`
	ID          string `json:"id"` // UUIDv7
	User        string `json:"user"`
	Group       string `json:"group"`
	Function    string `json:"function"`
	Revision    int    `json:"revision"`
	Digest      string `json:"digest"`
	Traceparent string `json:"traceparent,omitempty"` // W3C Trace Context
	RequestID   string `json:"request_id,omitempty"`
	Instance    string `json:"instance,omitempty"` // the API that waits for it; empty for an asynchronous call

	Slot          int   `json:"slot"`            // its subject is Activations.<group>.<user>.<slot>
	Publication   int   `json:"publication"`     // n of Nats-Msg-Id <id>.<n>
	StartWithinMS int64 `json:"start_within_ms"` // latest start, after the server's timestamp of the message
	// ParameterObject is the parameter's name in the object store where it is too large for the message. The object is
	// removed when the activation has ended.
	ParameterObject string `json:"parameter_object,omitempty"`

	State           State  `json:"state"`
	Reason          Reason `json:"reason,omitempty"`
	Message         string `json:"message,omitempty"` // for a person: what happened, with the limit that was met
	CancelRequested bool   `json:"cancel_requested,omitempty"`
	Attempt         int    `json:"attempt"`            // 0 until claimed
	Worker          string `json:"worker,omitempty"`   // who holds or held it
	Sequence        uint64 `json:"sequence,omitempty"` // stream sequence of the message that was claimed

	ExitCode        *int     `json:"exit_code,omitempty"`
	Signal          int      `json:"signal,omitempty"`
	Warm            bool     `json:"warm,omitempty"` // ran in a container that was ready
	PeakMemoryBytes int64    `json:"peak_memory_bytes,omitempty"`
	Remarks         []string `json:"remarks,omitempty"` // for example "pids limit met 3 times"
	Result          Blob     `json:"result"`
	Log             Blob     `json:"log"`
	Timings         Timings  `json:"timings"`

	AdmittedAt time.Time  `json:"admitted_at"` // by the API's clock
	StartedAt  *time.Time `json:"started_at,omitempty"`
	EndedAt    *time.Time `json:"ended_at,omitempty"`
}

// StartWithin is the latest start after the server's timestamp of the activation's message.
func (r *Record) StartWithin() time.Duration {
	return time.Duration(r.StartWithinMS) * time.Millisecond
}

// Claim turns a queued record into a running one of worker, for the message with the given stream sequence.
// It fails where the record is not queued; the caller stores the change by compare-and-set.
func (r *Record) Claim(worker string, sequence uint64, now time.Time) error {
	if r.State != StateQueued {
		return fmt.Errorf("claim activation %s: it is %s", r.ID, r.State)
	}
	r.State, r.Worker, r.Sequence = StateRunning, worker, sequence
	r.Attempt++
	r.StartedAt = &now
	return nil
}

// HeldBy reports whether the record still names this worker and attempt: only then may it go on or settle.
func (r *Record) HeldBy(worker string, attempt int) bool {
	return r.State == StateRunning && r.Worker == worker && r.Attempt == attempt
}

// Succeed makes the record terminal with success. It fails where the record is not running.
func (r *Record) Succeed(now time.Time) error {
	return r.end(StateSucceeded, "", "", now)
}

// Fail makes the record terminal for reason; the state is the one that the reason leads to. message is for a
// person. It fails where the record is terminal already, where it is queued and the reason is one of a run (a
// timeout), and where the reason is not on the list.
func (r *Record) Fail(reason Reason, message string, now time.Time) error {
	e, ok := Explain(reason)
	if !ok {
		return fmt.Errorf("settle activation %s: unknown reason %q", r.ID, reason)
	}
	return r.end(e.State, reason, message, now)
}

func (r *Record) end(s State, reason Reason, message string, now time.Time) error {
	if !follows(r.State, s) {
		return fmt.Errorf("settle activation %s as %s: it is %q", r.ID, s, r.State)
	}
	r.State, r.Reason, r.Message = s, reason, message
	r.EndedAt = &now
	return nil
}

// follows reports whether a terminal state may come after another; the package comment draws the ways.
func follows(from, to State) bool {
	switch from {
	case StateRunning:
		return true
	case StateQueued:
		return to == StateFailed || to == StateCancelled || to == StateLost
	}
	return false
}

// TraceID is the trace that the request belongs to, as W3C Trace Context writes it; "" where it has none.
func (r *Record) TraceID() string {
	if len(r.Traceparent) < 35 {
		return ""
	}
	return r.Traceparent[3:35]
}

// Message is what stands in the stream: all that a worker needs to run an activation. With the record as it was stored
// before the message, and its revision in the bucket, a first delivery is claimed without reading it.
type Message struct {
	Schema         int       `json:"schema"`
	ID             string    `json:"id"`
	Record         *Record   `json:"record,omitempty"`
	RecordRevision uint64    `json:"record_revision,omitempty"`
	Revision       *Revision `json:"revision"`
	Parameter      Blob      `json:"parameter"`
}
