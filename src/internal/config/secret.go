package config

import "fmt"

// Secret is bytes that must not be seen. However it is formatted, marshalled or logged, it prints redacted.
type Secret struct{ value []byte }

const redacted = "**redacted**"

// Reveal returns the bytes. They must not be changed.
func (s Secret) Reveal() []byte { return s.value }

// String hides the bytes.
func (Secret) String() string { return redacted }

// GoString hides the bytes.
func (Secret) GoString() string { return redacted }

// MarshalText hides the bytes, in JSON and in log lines.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// SecretFile is the path of a file that holds a secret, with what stood in it when the settings were loaded.
type SecretFile struct {
	Path   string
	Secret Secret
}

// Decode reads the file. One that every user of the host can read is refused: its secret is none.
func (f *SecretFile) Decode(text string) error {
	f.Path = text // kept in any case, so that one problem does not look like two
	content, mode, err := readFile(text)
	if err != nil {
		return err
	}
	if others := mode.Perm() & 0o007; others != 0 {
		return fmt.Errorf("may be used by everybody on this host (mode %04o)", mode.Perm())
	}
	f.Secret = Secret{value: content}
	return nil
}

func (SecretFile) expected() string {
	return "the path of a file that this daemon and no stranger may read (chmod 0600)"
}

// String is the path.
func (f SecretFile) String() string { return f.Path }
