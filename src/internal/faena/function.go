package faena

import (
	"path"
	"strconv"
	"strings"
	"time"
)

// SchemaVersion is the version of every message, record and document that this build writes. A reader accepts
// this version and the one before it.
const SchemaVersion = 2

// ImageConfig is what Faena needs of an image's own configuration (OCI image spec, config.md).
type ImageConfig struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"` // NAME=value
	WorkingDir string   `json:"working_dir,omitempty"`
	User       string   `json:"user,omitempty"`    // name or uid, optionally ":group"
	Volumes    []string `json:"volumes,omitempty"` // paths
	StopSignal string   `json:"stop_signal,omitempty"`
}

// Revision is one immutable version of a function: its spec with the image resolved to a digest. It travels
// whole in each activation's message, so that a worker needs neither the store nor an API.
type Revision struct {
	Schema    int         `json:"schema"`
	User      string      `json:"user"`
	Function  string      `json:"function"`
	Number    int         `json:"revision"`         // 1, 2, 3 … per function; a number is never given twice
	Spec      Spec        `json:"spec"`             // with its defaults written out
	Digest    string      `json:"digest"`           // of the platform's manifest: "sha256:…"
	Pull      string      `json:"pull"`             // repository@digest: what the engine pulls
	SizeBytes int64       `json:"size_bytes"`       // compressed size of all layers
	Config    ImageConfig `json:"config"`           // as in the image
	Sealed    []byte      `json:"sealed,omitempty"` // registry credentials, age ciphertext for the group and the API
	CreatedAt time.Time   `json:"created_at"`
}

// Argv returns the function's command line for a parameter: ENTRYPOINT and CMD of the image, each overridden by
// the spec's command and args where given (a command without args drops the image's CMD, as in OCI runtimes),
// followed by the parameter unless input is stdin.
func (r *Revision) Argv(parameter string) []string {
	entry, cmd := r.Config.Entrypoint, r.Config.Cmd
	if len(r.Spec.Command) > 0 {
		entry, cmd = r.Spec.Command, nil
	}
	if len(r.Spec.Args) > 0 {
		cmd = r.Spec.Args
	}
	argv := make([]string, 0, len(entry)+len(cmd)+1)
	argv = append(append(argv, entry...), cmd...)
	if r.Spec.Input != InputStdin {
		argv = append(argv, parameter)
	}
	return argv
}

// HasCommand reports whether image and spec together name a program to run.
func (r *Revision) HasCommand() bool {
	return len(r.Config.Entrypoint)+len(r.Config.Cmd)+len(r.Spec.Command)+len(r.Spec.Args) > 0
}

// Env returns the environment of the function's process without what belongs to one activation: the image's ENV
// overridden by the spec's, in a stable order. PATH has Docker's default where the image sets none.
func (r *Revision) Env() []string {
	env := make([]string, 0, len(r.Config.Env)+len(r.Spec.Env)+1)
	hasPath := false
	for _, kv := range r.Config.Env {
		name, _, _ := strings.Cut(kv, "=")
		if _, overridden := r.Spec.Env[name]; overridden {
			continue
		}
		hasPath = hasPath || name == "PATH"
		env = append(env, kv)
	}
	for _, k := range sortedKeys(r.Spec.Env) {
		hasPath = hasPath || k == "PATH"
		env = append(env, k+"="+r.Spec.Env[k])
	}
	if !hasPath {
		env = append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	return env
}

// BadVolume returns the first VOLUME of the image that no container can have, "" where there is none: what a container is
// made of lies there.
func (c ImageConfig) BadVolume() string {
	for _, v := range c.Volumes {
		p := path.Clean(v)
		if p == "/dev/shm" {
			continue
		}
		for _, root := range []string{"/.faena", "/proc", "/sys", "/dev"} {
			if !path.IsAbs(p) || p == "/" || p == root || strings.HasPrefix(p, root+"/") {
				return v
			}
		}
	}
	return ""
}

// Warnings returns what a user should know of this revision although it is valid.
func (r *Revision) Warnings() []string {
	var out []string
	entry := r.Config.Entrypoint
	if len(r.Spec.Command) > 0 {
		entry = r.Spec.Command
	}
	if r.Spec.Input != InputStdin && len(entry) == 3 && strings.HasSuffix(entry[0], "sh") && entry[1] == "-c" {
		out = append(out, "The ENTRYPOINT is in shell form ("+entry[0]+" -c …): the parameter becomes $0 of that shell, "+
			"not an argument of the command. Use the exec form, or input: stdin.")
	}
	if r.Spec.WritableRoot {
		out = append(out, "writable_root: what the function writes outside /tmp goes to a layer without a bound.")
	}
	return out
}

// Function is the head of a function's history: which revision serves.
type Function struct {
	Schema    int       `json:"schema"`
	User      string    `json:"user"`
	Name      string    `json:"name"`
	Current   int       `json:"current"` // number of the revision that serves
	Latest    int       `json:"latest"`  // highest number ever given
	Version   uint64    `json:"version"` // raised by every change of the head; the ETag
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// ETag is the entity tag of the function's head (RFC 9110 section 8.8.3).
func (f Function) ETag() string {
	return `"` + strconv.FormatInt(f.CreatedAt.UnixMilli(), 36) + "." + strconv.FormatUint(f.Version, 10) + `"`
}

// Role is what a user may do.
type Role string

const (
	// RoleUser may use functions and activations of its own.
	RoleUser Role = "user"
	// RoleAdmin may also manage users, groups and workers.
	RoleAdmin Role = "admin"
)

// User is a user's profile. A deleted user stays as a tombstone, so that its name is never given again.
type User struct {
	Schema       int            `json:"schema"`
	Name         string         `json:"name"`
	Role         Role           `json:"role"`
	Groups       map[string]int `json:"groups"`                  // group → limit of active activations, 1 to MaxSlots
	PasswordHash string         `json:"password_hash,omitempty"` // argon2id in PHC form; empty with auth=gateway
	Deleted      bool           `json:"deleted,omitempty"`
	CreatedAt    time.Time      `json:"created_at"`
	UpdatedAt    time.Time      `json:"updated_at"`
}

// Limit is the user's limit of active activations in group, and whether the user may use the group at all.
func (u *User) Limit(group string) (int, bool) {
	n, ok := u.Groups[group]
	return n, ok
}

// Validate checks a profile. It returns nil or an *Error of KindInvalid.
func (u *User) Validate() error {
	var bad []FieldError
	if !ValidUser(u.Name) {
		bad = append(bad, FieldError{"name", "must match " + UserPattern})
	}
	if u.Role != RoleUser && u.Role != RoleAdmin {
		bad = append(bad, FieldError{"role", "must be user or admin"})
	}
	for g, n := range u.Groups {
		if !ValidName(g) {
			bad = append(bad, FieldError{"groups." + g, "must match " + NamePattern})
		}
		if n < 1 || n > MaxSlots {
			bad = append(bad, FieldError{"groups." + g, "is " + strconv.Itoa(n) + ", must be from 1 to " + strconv.Itoa(MaxSlots)})
		}
	}
	if len(bad) > 0 {
		return Invalid(bad...)
	}
	return nil
}
