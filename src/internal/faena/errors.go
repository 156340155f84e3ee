package faena

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind says what sort of failure an Error is. The HTTP status of each kind is known to package httpapi alone.
type Kind string

const (
	// KindMalformed is input that cannot be parsed at all (not JSON, a header that is no header).
	KindMalformed Kind = "malformed"
	// KindInvalid is input that is well-formed but breaks a rule; Error.Fields names each field.
	KindInvalid Kind = "invalid"
	// KindUnauthenticated is a caller whose credentials are missing or wrong.
	KindUnauthenticated Kind = "unauthenticated"
	// KindForbidden is a known caller whose role does not allow the call.
	KindForbidden Kind = "forbidden"
	// KindNotFound is a thing that does not exist, or that belongs to somebody else.
	KindNotFound Kind = "not_found"
	// KindConflict is a change that collides with the present state (a name taken, a lost compare-and-set).
	KindConflict Kind = "conflict"
	// KindPrecondition is an If-Match that does not match.
	KindPrecondition Kind = "precondition_failed"
	// KindGone is a result that existed and has expired.
	KindGone Kind = "gone"
	// KindTooLarge is a parameter or body over its limit.
	KindTooLarge Kind = "too_large"
	// KindLimit is a user who is at a limit; RetryAfter says when to try again.
	KindLimit Kind = "limit"
	// KindUnavailable is a part of the platform that is away; usually retryable.
	KindUnavailable Kind = "unavailable"
	// KindInternal is everything else: a bug or an unexpected answer. Its cause is logged, never shown.
	KindInternal Kind = "internal"
)

// Component names the part in which a failure happened.
type Component string

// The components that an error, a reason or a log line may name.
const (
	ComponentAPI      Component = "api"
	ComponentQueue    Component = "queue"
	ComponentStore    Component = "store"
	ComponentWorker   Component = "worker"
	ComponentEngine   Component = "engine"
	ComponentRegistry Component = "registry"
	ComponentFunction Component = "function"
	ComponentCaller   Component = "caller"
)

// FieldError says what is wrong with one field of the input.
type FieldError struct {
	Field   string `json:"field"`   // path of the field, for example "memory_bytes" or "env.PATH"
	Message string `json:"message"` // what is wrong and what would be right, with the range
}

// Error is the only error that crosses a package boundary with a meaning for the caller. Any other error is
// internal to its reader. It is immutable once returned.
type Error struct {
	Kind       Kind
	Reason     string        // a stable, machine-readable word, for example "function_not_found"
	Component  Component     // where it happened
	Message    string        // one sentence for a person: what happened and what to do
	Retryable  bool          // whether the same call may succeed later
	RetryAfter time.Duration // zero, or when to try again
	Activation string        // the activation's id where there is one
	// OutcomeUnknown is true where the platform cannot say whether the activation was accepted; Activation is set then.
	OutcomeUnknown bool
	Fields         []FieldError
	Err            error // the cause; for logs only
}

// Error returns the message for a person together with its cause.
func (e *Error) Error() string {
	s := e.Message
	if s == "" {
		s = e.Reason
	}
	if e.Err != nil {
		s = strings.TrimSuffix(s, ".") + ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the Kind of the first Error in err's chain, and KindInternal where there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return KindInternal
}

// IsKind reports whether err carries an Error of kind k.
func IsKind(err error, k Kind) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == k
}

// NotFound makes the error for a thing that does not exist for this caller. what is the noun: "function",
// "activation", "user", "revision".
func NotFound(what, name string) *Error {
	e := &Error{Kind: KindNotFound, Reason: what + "_not_found", Component: ComponentCaller, Message: fmt.Sprintf("There is no %s %q.", what, name)}
	if what == "activation" { // who looks for another user's, which may be there or not
		e.Message = fmt.Sprintf("You have no activation %q. Each user, an admin too, sees only their own.", name)
	}
	return e
}

// Invalid makes the error for input that breaks rules, one FieldError each.
func Invalid(fields ...FieldError) *Error {
	msg := "The request is not valid."
	if len(fields) > 0 {
		msg = fields[0].Field + ": " + fields[0].Message
	}
	return &Error{Kind: KindInvalid, Reason: "invalid", Component: ComponentCaller, Message: msg, Fields: fields}
}

// Unavailable makes the retryable error for a part that is away.
func Unavailable(c Component, reason, message string, err error) *Error {
	return &Error{Kind: KindUnavailable, Reason: reason, Component: c, Message: message, Retryable: true,
		RetryAfter: time.Second, Err: err}
}
