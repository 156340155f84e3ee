package auth

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"faena.dev/faena/internal/faena"
)

// The parameters of new hashes (RFC 9106, section 4, with less memory: at most one is computed at a time, on a host that
// has other work): about 50 ms. They stand in each hash, so that they can be changed.
const (
	argonTime    = 2
	argonMemory  = 32 << 10 // KiB
	argonThreads = 1
	saltBytes    = 16
	keyBytes     = 32
)

// Bounds of what a stored hash may ask for: a document that was tampered with must not take the host's memory.
const (
	maxTime   = 16
	maxMemory = 256 << 10 // KiB
)

// MinPassword and MaxPassword bound a password, in bytes.
const (
	MinPassword = 8
	MaxPassword = 128
)

// checkPassword refuses what a gateway or a Basic header could not carry (RFC 7617; apisix.md).
func checkPassword(p string) error {
	bad := func(r rune) bool { return r == ':' || unicode.IsSpace(r) || unicode.IsControl(r) }
	if len(p) < MinPassword || len(p) > MaxPassword || !utf8.ValidString(p) || strings.ContainsFunc(p, bad) {
		return faena.Invalid(faena.FieldError{Field: "password",
			Message: fmt.Sprintf("must be %d to %d bytes of UTF-8 without colons, white space and control characters", MinPassword, MaxPassword)})
	}
	return nil
}

// hash returns the PHC form of a new argon2id hash.
func hash(password string) string {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, keyBytes)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		b64.EncodeToString(salt), b64.EncodeToString(key))
}

var errHash = errors.New("is no argon2id hash that this build knows")

// matches reports whether password has the hash.
func matches(password, phc string) (bool, error) {
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return false, errHash
	}
	var memory, time uint32
	var threads uint8
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &threads); err != nil || n != 3 {
		return false, errHash
	}
	if time < 1 || time > maxTime || memory < 8 || memory > maxMemory || threads < 1 || threads > 16 {
		return false, errHash
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil || len(salt) < 8 || len(salt) > 64 {
		return false, errHash
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(want) < 16 || len(want) > 64 {
		return false, errHash
	}
	got := argon2.IDKey([]byte(password), salt, time, memory, threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}
