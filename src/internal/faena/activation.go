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
	ReasonRestored        Reason = "restored"
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
	ReasonRestored:        {StateLost, ComponentQueue, true},
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

// Failure is how an attempt ended that was not the last.
type Failure struct {
	Attempt int       `json:"attempt"`
	Reason  Reason    `json:"reason"`
	Message string    `json:"message"`
	Worker  string    `json:"worker"`
	EndedAt time.Time `json:"ended_at"`
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

	Slot          int   `json:"slot"`                // its subject is Activations.<group>.<user>.<slot>
	Publication   int   `json:"publication"`         // n of Nats-Msg-Id <id>.<n>
	StartWithinMS int64 `json:"start_within_ms"`     // latest start, after the server's timestamp of the message or, in the backlog, the record
	WithinMS      int64 `json:"within_ms,omitempty"` // StartWithinMS as it was admitted, from when on the two differ: of every attempt's wait
	// Backlogged is true while the activation waits beyond its user's limit, or for a retry that is some time off: it uses no slot
	// then, and its message is in the backlog, not in the queue.
	Backlogged bool       `json:"backlogged,omitempty"`
	NotBefore  *time.Time `json:"not_before,omitempty"` // of a retry: by the servers' clock
	// Parameter is set where a worker has put the activation back for a later retry, until an API has filed it in the backlog.
	Parameter *Blob `json:"parameter,omitempty"`
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
	// Failures are the ends of earlier attempts, the first one first.
	Failures []Failure `json:"failures,omitempty"`
	// RedrivenFrom is the activation whose dead letter this one was made from.
	RedrivenFrom string `json:"redriven_from,omitempty"`

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
// It fails where the record is not queued, or waits in the backlog: then the message is an old one. The caller stores the change by
// compare-and-set.
func (r *Record) Claim(worker string, sequence uint64, now time.Time) error {
	if r.State != StateQueued || r.Backlogged {
		return fmt.Errorf("claim activation %s: it is %s, in the backlog: %v", r.ID, r.State, r.Backlogged)
	}
	r.State, r.Worker, r.Sequence, r.NotBefore = StateRunning, worker, sequence, nil
	r.Attempt++
	r.StartedAt = &now
	return nil
}

// Reclaim makes a running record another worker's, which has been given its message (the same sequence) once more since the
// worker that it names is lost. It fails where the record is not running; the caller has asked Spec.Retry.
func (r *Record) Reclaim(worker string, now time.Time) error {
	if r.State != StateRunning {
		return fmt.Errorf("claim activation %s again: it is %s", r.ID, r.State)
	}
	r.fail(ReasonWorkerLost, "The worker "+r.Worker+", which ran it, was lost.", now)
	r.Worker, r.StartedAt = worker, &now
	r.Attempt++
	return nil
}

// Requeue makes a running record queued for its next attempt, which may start delay from now and must start within what it was
// admitted with after that; waited is how long ago by the server's clock its message was published. With a parameter it waits in
// the backlog and gives up its slot; without one its message stays in its slot and is handed back. It fails where the record is
// not running.
func (r *Record) Requeue(reason Reason, message string, delay, waited time.Duration, parameter *Blob, serverNow, now time.Time) error {
	if r.State != StateRunning {
		return fmt.Errorf("queue activation %s again: it is %s", r.ID, r.State)
	}
	r.fail(reason, message, now)
	due := serverNow.Add(delay)
	r.State, r.Worker, r.Sequence, r.StartedAt, r.NotBefore = StateQueued, "", 0, nil, &due
	r.StartWithinMS = r.within() + delay.Milliseconds()
	if parameter == nil {
		r.StartWithinMS += waited.Milliseconds()
		return nil
	}
	r.Backlogged, r.Parameter = true, parameter
	return nil
}

func (r *Record) fail(reason Reason, message string, now time.Time) {
	r.Failures = append(slices.Clip(r.Failures), Failure{Attempt: r.Attempt, Reason: reason, Message: message, Worker: r.Worker, EndedAt: now})
}

// Release gives a record of the backlog a slot, for its next publication, age after it was put there by the server's clock. It
// fails where the record is not in the backlog.
func (r *Record) Release(slot int, age time.Duration) error {
	if r.State != StateQueued || !r.Backlogged {
		return fmt.Errorf("release activation %s: it is %s, and not in the backlog", r.ID, r.State)
	}
	r.Slot, r.Backlogged, r.NotBefore, r.Parameter = slot, false, nil, nil
	r.Publication++
	r.within()
	r.StartWithinMS = max(0, r.StartWithinMS-age.Milliseconds())
	return nil
}

// within is how long each attempt may wait. It is noted before StartWithinMS is changed for the first time.
func (r *Record) within() int64 {
	if r.WithinMS == 0 {
		r.WithinMS = r.StartWithinMS
	}
	return r.WithinMS
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
	r.EndedAt, r.Parameter, r.NotBefore = &now, nil, nil
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

// DeadLetter is an activation that nobody will run any more although its user has not been told so in time to do anything about
// it: it has used up its attempts, or its message cannot be read. It is kept apart from history, with all that it takes to run it
// again by hand.
type DeadLetter struct {
	Schema    int       `json:"schema"`
	ID        string    `json:"id"` // of the activation
	User      string    `json:"user"`
	Group     string    `json:"group"`
	Function  string    `json:"function,omitempty"`
	Revision  int       `json:"revision,omitempty"`
	Reason    Reason    `json:"reason"`
	Message   string    `json:"message"` // for a person
	Attempts  int       `json:"attempts"`
	Worker    string    `json:"worker"` // that has written this; empty where the leader has
	Parameter Blob      `json:"parameter"`
	Raw       []byte    `json:"raw,omitempty"`      // the message, where it could not be read
	Redriven  string    `json:"redriven,omitempty"` // the activation that is being made of it
	At        time.Time `json:"at"`
}

// IdempotencyClaim is what a user's Idempotency-Key stands for.
type IdempotencyClaim struct {
	Schema          int       `json:"schema"`
	ID              string    `json:"id"` // of the activation
	Group           string    `json:"group"`
	Function        string    `json:"function"`
	ParameterSHA256 string    `json:"parameter_sha256"`
	ClaimedAt       time.Time `json:"claimed_at"`
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

// Waiting is an activation's message in the backlog.
type Waiting struct {
	Message   *Message  // nil where Err is set
	Err       error     // why it could not be decoded; ErrSchema for another version's
	User, ID  string    // by the subject
	Sequence  uint64    // in the stream of the backlog
	Published time.Time // by the server's clock
}

// Conservation is where the activations of a group are. What was accepted is in one of the first four places, or in history.
type Conservation struct {
	Backlog int
	Queued  int // in a slot, and no worker has it
	Running int // a worker has it
	Ended   int // and not in history yet
	// Drift is how many records have no message, and how many messages no live record, for longer than a step takes: 0.
	Drift int
}
