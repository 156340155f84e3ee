package faena

import "time"

// The values that pass between the REST layer, which declares the use cases as interfaces, and their implementation.

// Deployment is a new revision of a function as its user describes it.
type Deployment struct {
	Name      string
	Spec      Spec         // without its defaults
	Registry  *Credentials // for the image's registry; nil is an anonymous pull
	Condition Condition
}

// ActivationRequest is a call to run a function once.
type ActivationRequest struct {
	User        string
	Function    string
	Parameter   []byte        // as it came; the callee keeps no reference once its call has returned
	Async       bool          // answered as soon as it is accepted
	Expires     time.Duration // latest start after admission; 0 is the default
	Traceparent string        // W3C Trace Context of the call
	RequestID   string

	// ID is that of the activation where one stands for it already; "" makes one. Revision is the one that runs; 0 is the one that
	// serves. RedrivenFrom is the activation whose dead letter is run again. A caller from outside gives none of them.
	ID           string
	Revision     int
	RedrivenFrom string
}

// DeadLetterQuery selects a page of dead letters.
type DeadLetterQuery struct {
	User     string // "" is everybody
	Function string // "" is any
	From     string // only those that come after this id in the order of the list; "" is from its start
	Limit    int
}

// Redriven is what has become of dead letters that were to be run again.
type Redriven struct {
	Accepted []Redrive
	Refused  []Redrive
	Next     string // the DeadLetterQuery.From that goes on; "" where there are no more
}

// Redrive is what has become of the dead letter of activation From.
type Redrive struct {
	From string
	ID   string // of the new activation; "" where Err is set
	Err  *Error
}

// UserUsage is what a user has running and has had, over all groups.
type UserUsage struct {
	Active    int64 // queued or running now
	Completed int64 // ended as succeeded, ever
	Failed    int64 // ended in any other way, ever
	Limit     int64 // of active ones
	Backlog   int64 // waiting beyond the limit
}
