// Package seal encrypts what only the workers of a group may read, such as registry credentials: the API seals to public
// keys (age, X25519), a worker opens with its identity. Neither plain text nor a key is ever in an error.
package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
)

// MaxBytes bounds what is sealed at once.
const MaxBytes = 64 << 10

// Identity is a private key. It prints redacted.
type Identity struct{ x *age.X25519Identity }

// String hides the key.
func (Identity) String() string { return "**redacted**" }

// GoString hides the key.
func (Identity) GoString() string { return "**redacted**" }

// Recipient is the public half: age1…
func (i Identity) Recipient() string { return i.x.Recipient().String() }

// ParseIdentity reads an identity as age-keygen writes it: the key on a line of its own, comments allowed.
func ParseIdentity(text []byte) (Identity, error) {
	list, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil || len(list) != 1 {
		return Identity{}, errors.New("there is no age identity in it, or more than one")
	}
	x, ok := list[0].(*age.X25519Identity)
	if !ok {
		return Identity{}, errors.New("it is no X25519 identity")
	}
	return Identity{x}, nil
}

// LoadOrCreate reads the identity in a file, or makes one where the file does not exist. The file is for its owner only.
func LoadOrCreate(path string) (Identity, error) {
	id, err := read(path)
	if errors.Is(err, os.ErrNotExist) {
		return create(path)
	}
	return id, err
}

func read(path string) (Identity, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Identity{}, fmt.Errorf("read the sealing key: %w", err)
	}
	id, err := ParseIdentity(text)
	if err != nil {
		return Identity{}, fmt.Errorf("read the sealing key %s: %w", path, err)
	}
	return id, nil
}

// create writes a new identity whole or not at all, and onto the disk before anything is sealed to it. Where another
// process was first, the key is that one's.
func create(path string) (Identity, error) {
	x, err := age.GenerateX25519Identity()
	if err != nil {
		return Identity{}, fmt.Errorf("make a sealing key: %w", err)
	}
	switch err := WriteKey(path, fmt.Sprintf("# public key: %s\n%s\n", x.Recipient(), x)); {
	case errors.Is(err, os.ErrExist):
		return read(path)
	case err != nil:
		return Identity{}, fmt.Errorf("write the sealing key %s: %w", path, err)
	}
	return Identity{x}, nil
}

// WriteKey makes the file of a key whole or not at all, and on the disk, for its owner only. os.ErrExist where there is one: a key
// is never replaced.
func WriteKey(path, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // unlike a rename it never replaces a key
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Sealer seals for the workers of a group, and for the APIs, which seal anew when a group's key changes.
type Sealer struct{ own age.Recipient }

// NewSealer takes the APIs' own public key.
func NewSealer(own string) (*Sealer, error) {
	r, err := age.ParseX25519Recipient(own)
	if err != nil {
		return nil, errors.New("the API's public key is none")
	}
	return &Sealer{r}, nil
}

// Seal returns the ciphertext of at most MaxBytes for the owner of a public key (age1…), and for the APIs. An error never
// holds the content.
func (s *Sealer) Seal(recipient string, plaintext []byte) ([]byte, error) {
	to, err := age.ParseX25519Recipient(strings.TrimSpace(recipient))
	switch {
	case err != nil:
		return nil, errors.New("the public key to seal for is none")
	case len(plaintext) > MaxBytes:
		return nil, fmt.Errorf("it is %d bytes, at most %d can be sealed", len(plaintext), MaxBytes)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, s.own, to)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if _, err := w.Write(plaintext); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return out.Bytes(), nil
}

// Opener opens what was sealed for any of its identities: more than one while a key is being replaced.
type Opener struct{ identities []age.Identity }

// NewOpener makes it.
func NewOpener(identities ...Identity) *Opener {
	o := &Opener{}
	for _, id := range identities {
		o.identities = append(o.identities, id.x)
	}
	return o
}

var errDamaged = errors.New("what is sealed is damaged")

// Open returns the plain text.
func (o *Opener) Open(ciphertext []byte) ([]byte, error) {
	if len(ciphertext) > 2*MaxBytes {
		return nil, errors.New("what is sealed is too large")
	}
	r, err := age.Decrypt(bytes.NewReader(ciphertext), o.identities...)
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		return nil, errors.New("it was sealed for another key")
	}
	if err != nil { // its text may quote what was read, which may be in clear
		return nil, errDamaged
	}
	plaintext, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil || len(plaintext) > MaxBytes {
		return nil, errDamaged
	}
	return plaintext, nil
}
