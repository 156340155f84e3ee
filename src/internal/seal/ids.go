package seal

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"

	"faena.dev/faena/internal/clock"
)

// IDs makes ids of activations that show which user and group they were made for, to who has the key and to nobody else
// (ADR 10). So an API believes of a record, which the workers of a group may write, at least whose it is.
type IDs struct{ key []byte }

// macBytes is how much of an id is the proof: the last five bytes. Before it are a time in milliseconds, and 34 bits that make
// it unique.
const macBytes = 5

// NewIDs derives the key of ids from the identity that all APIs share.
func NewIDs(of Identity) (*IDs, error) {
	key, err := hkdf.Key(sha256.New, []byte(of.x.String()), nil, "faena: ids of activations", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive the key of ids: %w", err)
	}
	return &IDs{key}, nil
}

// New makes an id, which is a UUIDv7 (RFC 9562).
func (s *IDs) New(user, group string) (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(clock.Now().UnixMilli()))
	copy(id[:6], ms[2:])
	copy(id[len(id)-macBytes:], s.mac(id, user, group))
	return id.String(), nil
}

// Made reports whether an id was made for a user in a group.
func (s *IDs) Made(user, group, text string) bool {
	id, err := uuid.Parse(text)
	return err == nil && id.String() == text && hmac.Equal(id[len(id)-macBytes:], s.mac(id, user, group))
}

func (s *IDs) mac(id uuid.UUID, user, group string) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write(id[:len(id)-macBytes])
	h.Write([]byte(user + "/" + group)) // neither has a slash
	return h.Sum(nil)[:macBytes]
}
