package faena

import "regexp"

// DefaultGroup is the group of worker hosts that exists from the start and that a function without a group uses.
const DefaultGroup = "default"

var (
	namePattern  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	userPattern  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$`)
	envPattern   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	labelPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$`)
	idPattern    = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
)

// NamePattern and UserPattern are the patterns in words of a regular expression, for error texts and the specification.
const (
	NamePattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
	UserPattern = "^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$"
)

// ValidName reports whether s may name a function, a group, a service, a secret or a config. Such a name is
// valid as a token of a NATS subject, in a KV key, as a container label and in a URL path.
func ValidName(s string) bool { return namePattern.MatchString(s) }

// ValidUser reports whether s may name a user. It is also a valid APISIX consumer name.
func ValidUser(s string) bool { return userPattern.MatchString(s) }

// ValidActivationID reports whether s is a UUIDv7 in its canonical form, the only form of an activation id.
func ValidActivationID(s string) bool { return idPattern.MatchString(s) }
