package httpapi

import (
	"context"
	"net/http"

	"faena.dev/faena/internal/faena"
)

// Errors of every use case are *faena.Error where they mean something to the caller; any other one is answered with
// 500 and its text is logged only. All methods are safe for concurrent use. user is always the authenticated one: a
// thing of somebody else is a KindNotFound.

// Functions are the use cases of functions and their revisions.
type Functions interface {
	// Deploy stores a new revision, with its image pinned to a digest, and makes it the one that serves.
	Deploy(ctx context.Context, user string, d faena.Deployment) (f faena.Function, rev faena.Revision, created bool, warnings []string, err error)
	// Function returns a head and the revision that serves.
	Function(ctx context.Context, user, name string) (faena.Function, faena.Revision, error)
	// Functions lists heads in order of name, those after the given name ("" is from the start).
	Functions(ctx context.Context, user, after string, limit int) ([]faena.Function, error)
	// Revisions lists revisions, newest first, those below the given number (0 is from the newest).
	Revisions(ctx context.Context, user, name string, below, limit int) ([]faena.Revision, error)
	// Rollback makes an earlier revision the one that serves; 0 is the one before the current.
	Rollback(ctx context.Context, user, name string, revision int, c faena.Condition) (faena.Function, faena.Revision, error)
	// Delete removes a function with all its revisions.
	Delete(ctx context.Context, user, name string, c faena.Condition) error
}

// Activations are the use cases of activations.
type Activations interface {
	// Activate admits an activation and waits for its end unless it is asynchronous. A record that is not terminal
	// means that it was accepted and goes on. It keeps no reference to the parameter once it has returned.
	Activate(ctx context.Context, req faena.ActivationRequest) (faena.Record, error)
	// ActivateOnce is Activate with an Idempotency-Key: whoever of the user's calls with the key comes later gets the activation
	// that the first one has made, and replayed is true. KindInvalid with the reason idempotency_mismatch where that was of another
	// function or parameter, KindConflict with idempotency_in_progress while nobody knows whether it was made.
	ActivateOnce(ctx context.Context, key string, req faena.ActivationRequest) (r faena.Record, replayed bool, err error)
	// Activation returns one record, live or ended.
	Activation(ctx context.Context, user, id string) (faena.Record, error)
	// Activations returns a page, newest first.
	Activations(ctx context.Context, q faena.HistoryQuery) ([]faena.Record, error)
	// Result returns an ended activation with its result; KindConflict while it has not ended, KindGone once the
	// result has expired.
	Result(ctx context.Context, user, id string) (faena.Record, []byte, error)
	// ResultOf returns the bytes of a terminal record's result.
	ResultOf(ctx context.Context, r *faena.Record) ([]byte, error)
	// Logs returns an activation with its log: what is kept of it, or of a running one what there is so far.
	Logs(ctx context.Context, user, id string) (faena.Record, []byte, error)
	// FollowLogs calls fn with each new run of bytes of the log, in order and from what is kept of its start, until
	// the activation ends, and returns the terminal record. offset counts from the log's first byte. It stops with
	// fn's error, or ctx's.
	FollowLogs(ctx context.Context, user, id string, fn func(offset int64, p []byte) error) (faena.Record, error)
	// Cancel ends a queued activation and has a running one killed. One that has ended is returned as it is.
	Cancel(ctx context.Context, user, id string) (faena.Record, error)
}

// DeadLetters are the use cases of what nobody will run any more. call says who calls now: its Traceparent and RequestID.
type DeadLetters interface {
	// DeadLetters returns a page, newest first, without the bytes of parameters, and the From of the next one.
	DeadLetters(ctx context.Context, q faena.DeadLetterQuery) (list []faena.DeadLetter, next string, err error)
	// DeadLetter returns one. Where it cannot be read it has Raw.
	DeadLetter(ctx context.Context, user, id string) (faena.DeadLetter, error)
	// Redrive makes a new activation of one and removes it. It happens once. KindGone where the function or parameter is gone,
	// KindConflict where it cannot be read, and the errors of admission.
	Redrive(ctx context.Context, user, id string, call faena.ActivationRequest) (faena.Record, error)
	// RedriveAll does so with several, oldest first, up to one that would not be let through now.
	RedriveAll(ctx context.Context, q faena.DeadLetterQuery, call faena.ActivationRequest) (faena.Redriven, error)
	// PurgeDeadLetter removes one, PurgeDeadLetters all that q selects.
	PurgeDeadLetter(ctx context.Context, user, id string) error
	PurgeDeadLetters(ctx context.Context, q faena.DeadLetterQuery) (n int, err error)
}

// Users are the use cases of users' profiles; but for Usage and SetPassword of oneself they are an admin's.
type Users interface {
	// PutUser makes or replaces a profile. password "" keeps the one that is.
	PutUser(ctx context.Context, u faena.User, password string) (created bool, err error)
	// User returns a profile.
	User(ctx context.Context, name string) (faena.User, error)
	// Users lists profiles in order of name, those after the given name.
	Users(ctx context.Context, after string, limit int) ([]faena.User, error)
	// DeleteUser cancels what is live and erases everything of the user. The name is never given again.
	DeleteUser(ctx context.Context, name string) error
	// SetPassword replaces a password; the old one is refused from then on.
	SetPassword(ctx context.Context, name, password string) error
	// Usage counts what a user has active and has had.
	Usage(ctx context.Context, name string) (faena.UserUsage, error)
}

// Groups are the use cases of groups of worker hosts; all are an admin's.
type Groups interface {
	// Groups lists all of them in order of name.
	Groups(ctx context.Context) ([]faena.GroupState, error)
	// Group returns one; KindNotFound where there is none.
	Group(ctx context.Context, name string) (faena.GroupState, error)
	// PutGroup makes a group, or replaces its keys. KindInvalid names each field; KindConflict has the reason groups_full, or
	// groups_fixed where the installation's groups cannot be changed.
	PutGroup(ctx context.Context, g faena.Group) (created bool, err error)
	// DeleteGroup removes a group that nobody uses. KindNotFound; KindConflict has the reason group_in_use and says who uses
	// it, or default_group.
	DeleteGroup(ctx context.Context, name string) error
}

// Diagnoser looks for what is wrong with the installation.
type Diagnoser interface {
	// Diagnose returns what it sees; a part that is away is a finding, not an error.
	Diagnose(ctx context.Context) (faena.Diagnosis, error)
}

// Workers are the use cases of workers; all are an admin's.
type Workers interface {
	// Workers lists those that are present.
	Workers(ctx context.Context) ([]faena.Worker, error)
	// DrainWorker makes one take nothing more, or take activations again, and returns it as it says it is then. KindNotFound;
	// KindUnavailable with the reason worker_does_not_answer.
	DrainWorker(ctx context.Context, id string, drain bool) (faena.Worker, error)
}

// Health tells whether this instance can do its work.
type Health interface {
	// Ready names everything that is missing; ready stays true for what activations can do without.
	Ready(ctx context.Context) (missing []string, ready bool)
}

// Authenticator tells who calls. Its errors are *faena.Error of KindUnauthenticated, or KindLimit for a caller that
// failed too often, or KindUnavailable where profiles cannot be read.
type Authenticator interface {
	Authenticate(r *http.Request) (faena.User, error)
}
