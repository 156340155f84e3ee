package wiring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/seal"
)

// The files of a daemon's keys.
const (
	nkeyFile    = "nats.nk"  // an nkey seed: whom NATS knows the daemon as
	sealKeyFile = "seal.key" // an age identity: what is sealed for the daemon opens with it
)

// PublicKeys are what others need of a daemon's keys.
type PublicKeys struct {
	Nkey      string `json:"nkey"`
	Recipient string `json:"recipient"`
}

// keygen makes the keys of a daemon in a directory, of which those that are there stay, and writes their public halves to out, as
// one line of JSON. mode is of the directory where there is none.
func keygen(dir string, mode os.FileMode, out, say io.Writer) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("make the directory of the keys: %w", err)
	}
	nkeyPath, sealPath := filepath.Join(dir, nkeyFile), filepath.Join(dir, sealKeyFile)
	nkey, made, err := loadOrCreateNkey(nkeyPath)
	if err != nil {
		return err
	}
	fmt.Fprintln(say, saysOf(nkeyPath, made, "FAENA_NATS_NKEY_FILE"))
	_, err = os.Stat(sealPath)
	made = errors.Is(err, os.ErrNotExist)
	identity, err := seal.LoadOrCreate(sealPath)
	if err != nil {
		return err
	}
	fmt.Fprintln(say, saysOf(sealPath, made, "FAENA_SEAL_KEY_FILE"))
	return json.NewEncoder(out).Encode(PublicKeys{Nkey: nkey, Recipient: identity.Recipient()})
}

// maxKeys bounds what is read of what keygen has printed.
const maxKeys = 16 << 10

// ReadKeys reads what keygen has printed, from a file, or from stdin where that is "-". Anything else in it is refused: it may be a
// private key.
func ReadKeys(file string, stdin io.Reader) (keys PublicKeys, err error) {
	from := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return keys, fmt.Errorf("read the keys: %w", err)
		}
		defer func() { _ = f.Close() }() // it is read only
		from = f
	}
	d := json.NewDecoder(io.LimitReader(from, maxKeys))
	d.DisallowUnknownFields()
	if err = d.Decode(&keys); err == nil && (keys.Nkey == "" || keys.Recipient == "") {
		err = errors.New("nkey or recipient is missing")
	}
	if err != nil {
		return keys, fmt.Errorf("read the keys from %s, which must be what faena-worker keygen prints: %w", file, err)
	}
	return keys, nil
}

func saysOf(path string, made bool, setting string) string {
	if made {
		return path + " is new: it is for " + setting
	}
	return path + " was there, and is as it was: it is for " + setting
}

// loadOrCreateNkey returns the public half of the nkey in a file, which is made where there is none.
func loadOrCreateNkey(path string) (public string, made bool, err error) {
	seed, public, err := natsbus.NewNkey()
	if err != nil {
		return "", false, fmt.Errorf("make an nkey: %w", err)
	}
	err = seal.WriteKey(path, string(seed)+"\n")
	if err == nil {
		return public, true, nil
	}
	if !errors.Is(err, os.ErrExist) {
		return "", false, fmt.Errorf("write the nkey %s: %w", path, err)
	}
	if seed, err = os.ReadFile(path); err != nil {
		return "", false, fmt.Errorf("read the nkey: %w", err)
	}
	if public, err = natsbus.PublicNkey(bytes.TrimSpace(seed)); err != nil {
		return "", false, fmt.Errorf("read the nkey %s: %w", path, err)
	}
	return public, false, nil
}
