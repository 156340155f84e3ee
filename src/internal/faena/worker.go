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
	Places      int       `json:"places"`       // activations that it runs at once
	MemoryBytes int64     `json:"memory_bytes"` // that containers may use together
	MilliCPUs   int64     `json:"milli_cpus"`   // that containers may use together, in thousandths
	Busy        int       `json:"busy"`         // places in use
	Containers  int       `json:"containers"`   // in its pool, idle and starting ones included
	Draining    bool      `json:"draining,omitempty"`
	NotReady    string    `json:"not_ready,omitempty"`  // why it takes nothing, in a sentence; empty when it is ready
	Unfiltered  string    `json:"unfiltered,omitempty"` // why its functions reach whatever its host reaches; empty where packet rules hold
	StartedAt   time.Time `json:"started_at"`
	SeenAt      time.Time `json:"seen_at"`
}

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
