package worker

import (
	"context"
	"time"

	"faena.dev/faena/internal/faena"
)

// Bus is all that a worker asks of the messaging system.
type Bus interface {
	Records
	Objects
	Signals
	Presence
	// PutDeadLetter writes down what nobody will run; a second one of the same activation replaces the first.
	PutDeadLetter(ctx context.Context, d *faena.DeadLetter) error
	// HandBack hands back what was delivered to a process that is gone, by the Receipt of that delivery. The caller has made sure
	// that nobody else holds the message.
	HandBack(ctx context.Context, receipt string) error
}

// Records is the bucket of live records. Every change is a compare-and-set on the record's revision.
type Records interface {
	// Record reads from the leader; KindNotFound where it is absent.
	Record(ctx context.Context, group, user, id string) (*faena.Record, uint64, error)
	// UpdateRecord replaces the record at revision rev. faena.ErrStale is a definite mismatch by somebody else's
	// write; faena.ErrUnknown may have been stored.
	UpdateRecord(ctx context.Context, r *faena.Record, rev uint64) (uint64, error)
}

// Objects is the group's store of what is over faena.MaxInlineBytes.
type Objects interface {
	// Object reads one; KindNotFound or KindGone where it is absent.
	Object(ctx context.Context, group, name string) ([]byte, error)
	// PutObject stores one; faena.ErrFull where the store has reached its bytes.
	PutObject(ctx context.Context, group, name string, data []byte) error
	// DeleteObject removes one; one that is absent is no error.
	DeleteObject(ctx context.Context, group, name string) error
}

// Signals are hints. Each may be lost; nothing depends on one alone.
type Signals interface {
	// Complete tells the API that waits, if there is one, how an activation ended.
	Complete(ctx context.Context, r *faena.Record) error
	// Cancels calls fn for each activation whose cancellation is asked for.
	Cancels(group string, fn func(id string)) (stop func(), err error)
	// Drains calls fn when this worker is asked to take nothing more, or to take activations again.
	Drains(worker string, fn func(drain bool)) (stop func(), err error)
	// PublishLog sends a piece of a running activation's log that begins at offset. It does not wait.
	PublishLog(group, user, id string, offset int64, data []byte) error
	// ServeLogs answers who asks for the log so far; fn's ok is false for an activation that is not held here.
	ServeLogs(group string, fn func(id string) (offset int64, data []byte, ok bool)) (stop func(), err error)
}

// Presence tells the APIs that this worker is there.
type Presence interface {
	Heartbeat(ctx context.Context, w faena.Worker) error
	RemoveHeartbeat(ctx context.Context, group, id string) error
}

// Deliveries is the group's shared consumer. Next is called by each free place at once.
type Deliveries interface {
	// Next waits for one message until ctx ends. Whatever it has been given when ctx ends it returns or hands back.
	Next(ctx context.Context) (Delivery, error)
}

// Delivery is one message that this worker holds until it acknowledges it, hands it back, or stops confirming it.
type Delivery struct {
	Acker
	Message     *faena.Message // nil where Err is set
	Err         error          // why the message could not be decoded; faena.ErrSchema for another version's
	Sequence    uint64         // in the stream; a redelivery has the same
	Redelivered bool           // it was delivered before
	Published   time.Time      // by the server's clock
	User        string         // whose slot it is in, also where Err is set
	Slot        int            // likewise: which of them
	ID          string         // of the activation, also where Err is set; "" where the message has none
	Raw         []byte         // the message where Err is set
}

// readable reports whether the message says what to run.
func (d *Delivery) readable() bool {
	return d.Err == nil && d.Message != nil && d.Message.Revision != nil
}

// Acker answers for one delivery. Each method waits for the server's confirmation, Nak excepted.
type Acker interface {
	// Receipt is what HandBack takes.
	Receipt() string
	// Confirm says that the message is still being worked on.
	Confirm(ctx context.Context) error
	// DoubleAck removes the message from the stream; the user's slot is free when it returns nil.
	DoubleAck(ctx context.Context) error
	// Nak hands the message back; it is delivered again at once.
	Nak(ctx context.Context) error
}

// Engine is all that a worker asks of the container engine. Errors that a user can act on are *faena.Error whose
// Reason is a faena.Reason; an engine that is away is KindUnavailable. Every call honours ctx.
type Engine interface {
	Images
	Containers
	// Ping reports whether the engine answers.
	Ping(ctx context.Context) error
}

// Images is the engine's store of images.
type Images interface {
	PullImage(ctx context.Context, ref string, creds *faena.Credentials) error
	HasImage(ctx context.Context, ref string) (bool, error)
	Images(ctx context.Context) ([]Image, error)
	// RemoveImage fails for an image that a container uses.
	RemoveImage(ctx context.Context, id string) error
}

// Image is one image that the engine has.
type Image struct {
	ID    string
	Refs  []string // repository@digest and repository:tag
	Size  int64
	InUse bool // a container was made from it
}

// Containers is the engine's hold of containers.
type Containers interface {
	// Create makes a container that is not started and returns its id.
	Create(ctx context.Context, spec ContainerSpec) (id string, err error)
	Start(ctx context.Context, id string) error
	// Remove kills and removes a container with its volumes; one that is absent is no error.
	Remove(ctx context.Context, id string) error
	// Owned lists the containers of every Faena worker on this engine.
	Owned(ctx context.Context) ([]Owned, error)
	// Cgroup opens the counters of a container, one of whose processes has the pid on this host.
	Cgroup(id string, pid int) (Cgroup, error)
}

// ContainerSpec is a container as a worker wants it; everything that is the same for all is the engine's business.
type ContainerSpec struct {
	Name, Image      string // Image is repository@digest
	Worker, LockFile string // who owns it, and the file that the owner holds locked while it lives
	User, Function   string
	Revision         int
	InitPath         string // of faena-init on this host
	SocketDir        string // of this container alone
	RunAs            string // the image's USER
	WorkingDir       string
	MemoryBytes      int64
	CPUs             float64
	PIDs             int64 // of the function, without what init needs
	TmpfsBytes       int64
	Volumes          []string
	WritableRoot     bool
	Capabilities     []string
	Network          string
}

// Owned is a container of some Faena worker.
type Owned struct {
	ID, Worker, LockFile string
}

// Cgroup counts what the kernel did to a container since it was made.
type Cgroup interface {
	// OOMKills is how many processes were killed because the memory limit was met.
	OOMKills() (uint64, error)
	// PeakMemory is the most bytes in use since ResetPeak.
	PeakMemory() (int64, error)
	ResetPeak() error
	// PIDsExceeded is how often a fork failed because the limit of processes was met.
	PIDsExceeded() (uint64, error)
	Close() error
}

// Registries says which image registries may be asked, just before a pull.
type Registries interface {
	// Check returns an error, in words for the user, for a host whose addresses may not be reached.
	Check(ctx context.Context, host string) error
}

// Opener opens what was sealed for this worker's group.
type Opener interface {
	Open(ciphertext []byte) ([]byte, error)
}

// Pulse is told that loops go on, so that one that stands still is noticed.
type Pulse interface{ Beat(loop string) }

type noPulse struct{}

func (noPulse) Beat(string) {}

// Observer is told what happens, for metrics. Its methods return at once.
type Observer interface {
	// Settled: this worker made the record terminal.
	Settled(r *faena.Record)
	// Retried: this worker has queued an activation again whose attempt ended for reason.
	Retried(reason faena.Reason)
	// DeadLettered: this worker has written a dead letter.
	DeadLettered(reason faena.Reason)
	// HandedBack: a message that an earlier life of this worker held was handed back at the start of this one.
	HandedBack()
	// Draining: whether this worker takes nothing more, at the start and whenever that changes.
	Draining(yes bool)
	// Containers: what a sweep has found. unknown are containers of this worker that the engine has and the pool has not, missing
	// those that the pool has and the engine has not.
	Containers(unknown, missing int)
	// Abandoned: this worker gave up an activation without settling it, and its result was thrown away; why is fenced or superseded.
	Abandoned(why string)
	// Unreadable: a message ("queue") or record ("records") of another version was met and handed back.
	Unreadable(where string)
	// Pulled: an image pull ended.
	Pulled(took time.Duration, err error)
	// Launched: a container was made and started, or not.
	Launched(took time.Duration, err error)
	// Removed: an orphaned container or an unused image was removed; what says which.
	Removed(what string)
}

type noObserver struct{}

func (noObserver) Settled(*faena.Record)         {}
func (noObserver) Retried(faena.Reason)          {}
func (noObserver) DeadLettered(faena.Reason)     {}
func (noObserver) HandedBack()                   {}
func (noObserver) Draining(bool)                 {}
func (noObserver) Containers(int, int)           {}
func (noObserver) Abandoned(string)              {}
func (noObserver) Unreadable(string)             {}
func (noObserver) Pulled(time.Duration, error)   {}
func (noObserver) Launched(time.Duration, error) {}
func (noObserver) Removed(string)                {}
