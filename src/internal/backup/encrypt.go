package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// Locks encrypt a backup: public keys (age1…), any of which opens it, or a passphrase.
type Locks struct {
	recipients []age.Recipient
}

// NewLocks reads them. Either recipients or passphrase must be given, not both.
func NewLocks(recipients []string, passphrase []byte) (Locks, error) {
	var l Locks
	for _, text := range recipients {
		r, err := age.ParseX25519Recipient(text)
		if err != nil {
			return l, fmt.Errorf("%q is no age recipient: age-keygen prints one, age1…", text)
		}
		l.recipients = append(l.recipients, r)
	}
	passphrase = bytes.TrimRight(passphrase, "\r\n")
	switch {
	case len(passphrase) == 0 && len(recipients) == 0:
		return l, errors.New("there is nothing to encrypt it with: give a recipient, or a file with a passphrase that is not empty")
	case len(passphrase) > 0 && len(recipients) > 0:
		return l, errors.New("give recipients or a passphrase, not both")
	case len(passphrase) > 0:
		r, err := age.NewScryptRecipient(string(passphrase))
		if err != nil {
			return l, errors.New("the passphrase cannot be used")
		}
		l.recipients = append(l.recipients, r)
	}
	return l, nil
}

// Encrypt begins an encrypted file. Close ends it: without it the file is cut short.
func (l Locks) Encrypt(w io.Writer) (io.WriteCloser, error) {
	out, err := age.Encrypt(w, l.recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypt the backup: %w", err)
	}
	return out, nil
}

// Keys open a backup. They are not safe for concurrent use.
type Keys struct {
	identities []age.Identity
}

// NewKeys reads identities as age-keygen writes them, or a passphrase.
func NewKeys(identities, passphrase []byte) (k Keys, err error) {
	passphrase = bytes.TrimRight(passphrase, "\r\n")
	switch {
	case len(identities) > 0 && len(passphrase) > 0:
		return k, errors.New("give an identity or a passphrase, not both")
	case len(identities) > 0:
		if k.identities, err = age.ParseIdentities(bytes.NewReader(identities)); err != nil {
			return k, errors.New("there is no age identity in the file: age-keygen makes one") // the library's words could show it
		}
	case len(passphrase) > 0:
		id, err := age.NewScryptIdentity(string(passphrase))
		if err != nil {
			return k, errors.New("the passphrase cannot be used")
		}
		k.identities = append(k.identities, &remembered{of: id})
	default:
		return k, errors.New("there is nothing to open it with: give an identity, or a file with a passphrase that is not empty")
	}
	return k, nil
}

// remembered is a passphrase that was tried on a file: that takes a second, and a restore reads its file twice.
type remembered struct {
	of  age.Identity
	on  string
	key []byte
}

// Unwrap implements age.Identity.
func (r *remembered) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	on := ""
	for _, s := range stanzas {
		on += fmt.Sprintf("%q %q %x\n", s.Type, s.Args, s.Body)
	}
	if r.key != nil && r.on == on {
		return bytes.Clone(r.key), nil
	}
	key, err := r.of.Unwrap(stanzas)
	if err == nil {
		r.on, r.key = on, bytes.Clone(key)
	}
	return key, err
}

// Open begins to read an encrypted file. What is read was not tampered with, and it ends with an error where it was cut short.
func (k Keys) Open(r io.Reader) (io.Reader, error) {
	out, err := age.Decrypt(r, k.identities...)
	if _, wrong := errors.AsType[*age.NoIdentityMatchError](err); wrong {
		return nil, errors.New("the backup was encrypted for another key, or with another passphrase")
	}
	if err != nil {
		return nil, damaged("it does not begin as a file of age does") // the library's words have what it begins with
	}
	return out, nil
}
