package faena

import (
	"crypto/ed25519"
	"encoding/base32"
	"strings"
	"time"
)

// Group is a group of worker hosts: the unit of placement, of isolation and of scale. It has a queue, a bucket and an object
// store of its own, and an identity that its workers share. Only public halves of keys are known here.
type Group struct {
	Schema int    `json:"schema"`
	Name   string `json:"name"`
	// Nkey is the public nkey (U…) by which NATS knows the group's workers; "" where NATS asks for none.
	Nkey string `json:"nkey,omitempty"`
	// Recipient is the public age key (age1…) that registry credentials and secrets are sealed to for the group.
	Recipient string `json:"recipient,omitempty"`
	// ConnectedAt is when a worker of the group was seen first; nil: the group is pending.
	ConnectedAt *time.Time `json:"connected_at,omitempty"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
}

// Pending reports whether no worker of the group has ever connected: functions may not name it yet.
func (g *Group) Pending() bool { return g.ConnectedAt == nil }

// Validate checks name and keys. It returns nil or an *Error of KindInvalid.
func (g *Group) Validate() error {
	var bad []FieldError
	if !ValidName(g.Name) {
		bad = append(bad, FieldError{"name", "must match " + NamePattern})
	}
	if g.Nkey != "" && !validNkey(g.Nkey) {
		bad = append(bad, FieldError{"nkey", "is no public nkey of a user, which faena-worker keygen prints: U and 55 more letters and digits"})
	}
	if g.Recipient != "" && !strings.HasPrefix(g.Recipient, "age1") {
		bad = append(bad, FieldError{"recipient", "is no public age key, which faena-worker keygen prints: age1…"})
	}
	if len(bad) > 0 {
		return Invalid(bad...)
	}
	return nil
}

// validNkey checks the form of a public nkey of a user (nats-io/nkeys): a prefix byte, an Ed25519 key, a CRC-16, in base 32.
func validNkey(s string) bool {
	code := base32.StdEncoding.WithPadding(base32.NoPadding)
	raw, err := code.DecodeString(s)
	// The decoder passes over line breaks and a letter too many, and the key becomes a line of the servers' settings.
	if err != nil || len(raw) != 1+ed25519.PublicKeySize+2 || raw[0] != 20<<3 || code.EncodeToString(raw) != s {
		return false
	}
	body, sum := raw[:len(raw)-2], raw[len(raw)-2:]
	var crc uint16
	for _, b := range body { // CRC-16/XMODEM
		crc ^= uint16(b) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return sum[0] == byte(crc) && sum[1] == byte(crc>>8)
}

// GroupUse is what uses a group: a user whom it is granted to, or one of the user's functions.
type GroupUse struct {
	User     string
	Function string // "" for the profile itself
}

// String is "user ann" or "function ann/resize".
func (u GroupUse) String() string {
	if u.Function == "" {
		return "user " + u.User
	}
	return "function " + u.User + "/" + u.Function
}

// GroupState is a group as its operator sees it.
type GroupState struct {
	Group
	Workers int // that sent a heartbeat lately
	Ready   int // of these, which take activations
	Active  int // activations that are queued or running
}
