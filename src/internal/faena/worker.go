package faena

import (
	"log/slog"
	"time"
)

// Worker is a worker's heartbeat: what it can run and what it is doing. It is stored with a TTL of HeartbeatTTL,
// so a worker that is not listed is away.
type Worker struct {
	Schema      int       `json:"schema"`
	ID          string    `json:"id"`
	Group       string    `json:"group"`
	Host        string    `json:"host"`
	Version     string    `json:"version"`
	Places      int       `json:"places"`               // activations that it runs at once
	MemoryBytes int64     `json:"memory_bytes"`         // that containers may use together
	MilliCPUs   int64     `json:"milli_cpus"`           // that containers may use together, in thousandths
	Busy        int       `json:"busy"`                 // places in use
	Containers  int       `json:"containers"`           // in its pool, idle and starting ones included
	Draining    bool      `json:"draining,omitempty"`   // it takes nothing more: it was asked to, which NotReady says then, or is being stopped
	NotReady    string    `json:"not_ready,omitempty"`  // why it takes nothing, in a sentence; empty when it is ready, or is being stopped
	Unfiltered  string    `json:"unfiltered,omitempty"` // why its functions reach whatever its host reaches; empty where packet rules hold
	StartedAt   time.Time `json:"started_at"`
	SeenAt      time.Time `json:"seen_at"`
	Engine      *Engine   `json:"engine,omitempty"` // nil before the engine was asked, and from workers that are older than it
}

// Engine is what a worker says of its Docker Engine and its host: codes alone, since it is said every few seconds; who reads them has
// the words.
type Engine struct {
	Version string   `json:"version"`
	Advice  []string `json:"advice,omitempty"` // Advice…, some with "=" and a detail behind; at most MaxAdvice
}

// Advice is what an operator should know of an engine and its host. A newer worker may know more codes.
const (
	AdviceNoMemoryLimit = "no_memory_limit" // the kernel limits no container's memory
	AdviceNoCPULimit    = "no_cpu_limit"    // nor processors
	AdviceNoPIDsLimit   = "no_pids_limit"   // nor processes
	AdviceNoSeccomp     = "no_seccomp"      // containers may make every system call
	AdviceNoForwarding  = "no_forwarding"   // the kernel forwards no packets of containers
	AdviceFewAddresses  = "few_addresses"   // =N: the network has addresses for N containers, fewer than the worker may have
	AdviceNoSwapLimit   = "no_swap_limit"   // a container swaps beyond its memory
	AdviceNoLiveRestore = "no_live_restore" // a restart of the engine kills what runs
	AdviceStorageDriver = "storage_driver"  // =NAME: not one that is fast and meant for production
	AdviceCgroupDriver  = "cgroup_driver"   // =NAME: not systemd, which has the tree of cgroup v2
	AdviceInsecure      = "insecure"        // =LIST: registries that are spoken to without a certificate that is checked
	AdviceNoMirror      = "no_mirror"       // images of Docker Hub come from there, for each worker anew
	AdviceDiskHigh      = "disk_high"       // =PERCENT: so much of the disk is in use that images are removed
)

const (
	// MaxAdvice is how many codes an Engine has.
	MaxAdvice = 16
	// MaxAdviceBytes is how long one is.
	MaxAdviceBytes = 128
)

// Credentials are a user name and password for an image registry. They print redacted.
type Credentials struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// String hides both parts, so that credentials cannot reach a log through formatting.
func (Credentials) String() string { return "**redacted**" }

// GoString hides both parts.
func (Credentials) GoString() string { return "**redacted**" }

// LogValue hides both parts from a logger that would write them as JSON.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// ResolvedImage is what a registry says of an image reference.
type ResolvedImage struct {
	Digest    string      // of the platform's manifest: "sha256:…"
	Pull      string      // repository@digest
	SizeBytes int64       // compressed layers
	Config    ImageConfig // the image's own configuration
}
