package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
)

func newIdentity(t *testing.T) Identity {
	t.Helper()
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return Identity{x}
}

func newSealer(t *testing.T, api Identity) *Sealer {
	t.Helper()
	s, err := NewSealer(api.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sealed(t *testing.T, s *Sealer, group Identity, plaintext []byte) []byte {
	t.Helper()
	out, err := s.Seal(group.Recipient()+"\n", plaintext)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSealer_RoundTrip(t *testing.T) {
	t.Parallel()
	api, group := newIdentity(t), newIdentity(t)
	s := newSealer(t, api)
	for name, size := range map[string]int{"Empty": 0, "OneByte": 1, "ACredential": 60, "OfOneChunk": 64<<10 - 1, "TheMost": MaxBytes} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plaintext := make([]byte, size)
			_, _ = rand.Read(plaintext) // never fails
			ciphertext := sealed(t, s, group, plaintext)
			for who, id := range map[string]Identity{"a worker of the group": group, "the API": api} {
				if got, err := NewOpener(id).Open(ciphertext); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("%s opens %d bytes, %v", who, len(got), err)
				}
			}
			if size > 16 && bytes.Contains(ciphertext, plaintext[:16]) {
				t.Error("the plain text is in what is sealed")
			}
		})
	}
	if one, two := sealed(t, s, group, []byte("secret")), sealed(t, s, group, []byte("secret")); bytes.Equal(one, two) {
		t.Error("what is sealed twice is the same: it tells which users have one password")
	}
}

func TestSealer_SealRefuses(t *testing.T) {
	t.Parallel()
	s := newSealer(t, newIdentity(t))
	group := newIdentity(t)
	for name, c := range map[string]struct {
		recipient string
		plaintext []byte
		want      string
	}{
		"TooLarge":      {group.Recipient(), bytes.Repeat([]byte("secret "), MaxBytes), "it is 458752 bytes, at most 65536 can be sealed"},
		"NoKey":         {"", []byte("secret"), "the public key to seal for is none"},
		"APrivateKey":   {group.x.String(), []byte("secret"), "the public key to seal for is none"},
		"SomethingElse": {"age1nonsense", []byte("secret"), "the public key to seal for is none"},
	} {
		if out, err := s.Seal(c.recipient, c.plaintext); out != nil || err == nil || err.Error() != c.want {
			t.Errorf("%s: it is %d bytes, %v; want %q", name, len(out), err, c.want)
		}
	}
}

// Whoever takes over a worker host has its group's key: it opens nothing of other groups.
func TestOpener_OpensForItsGroupOnly(t *testing.T) {
	t.Parallel()
	api, group, gpu := newIdentity(t), newIdentity(t), newIdentity(t)
	s := newSealer(t, api)
	ciphertext := sealed(t, s, gpu, []byte("user:password"))
	for name, c := range map[string]struct {
		identities []Identity
		opens      bool
	}{
		"TheGroup":            {[]Identity{gpu}, true},
		"TheAPI":              {[]Identity{api}, true},
		"AnotherGroup":        {[]Identity{group}, false},
		"AStranger":           {[]Identity{newIdentity(t)}, false},
		"ANewKeyAndTheOldOne": {[]Identity{newIdentity(t), gpu}, true},
		"TheOldOneFirst":      {[]Identity{gpu, newIdentity(t)}, true},
		"TheNewKeyAlone":      {[]Identity{newIdentity(t), newIdentity(t)}, false},
		"Nobody":              {nil, false},
	} {
		got, err := NewOpener(c.identities...).Open(ciphertext)
		if c.opens && (err != nil || string(got) != "user:password") || !c.opens && (err == nil || got != nil) {
			t.Errorf("%s: it is %q, %v", name, got, err)
		}
	}
}

// A byte that is changed anywhere, or is missing, or is too many, opens nothing; the error has neither text nor key.
func TestOpener_Damaged(t *testing.T) {
	t.Parallel()
	const plaintext = "ann:a-password-of-a-registry"
	api, group := newIdentity(t), newIdentity(t)
	good := sealed(t, newSealer(t, api), group, []byte(plaintext))
	o := NewOpener(group)
	try := func(what string, ciphertext []byte) {
		t.Helper()
		got, err := o.Open(ciphertext)
		if err == nil || got != nil {
			t.Errorf("%s: it is %q, %v", what, got, err)
			return
		}
		if text := err.Error(); strings.Contains(text, "password") || strings.Contains(text, group.x.String()) {
			t.Errorf("%s: the error tells too much: %s", what, text)
		}
	}
	for i := range good {
		if bad := slices.Clone(good); i%3 == 0 || i > len(good)-80 {
			bad[i] ^= 1
			try(fmt.Sprintf("byte %d of %d changed", i, len(good)), bad)
		}
	}
	for _, n := range []int{0, 1, 20, len(good) / 2, len(good) - 1} {
		try(fmt.Sprintf("cut off after %d bytes", n), good[:n])
	}
	other := sealed(t, newSealer(t, api), group, []byte(plaintext))
	body := func(b []byte) int { return bytes.LastIndex(b, []byte("---")) + 48 }
	for what, bad := range map[string][]byte{
		"a byte more":                append(slices.Clone(good), 0),
		"twice":                      append(slices.Clone(good), good...),
		"in clear":                   []byte(plaintext),
		"a header with another body": append(slices.Clone(good[:body(good)]), other[body(other):]...),
		"more than can be sealed":    append(slices.Clone(good), make([]byte, 2*MaxBytes)...),
	} {
		try(what, bad)
	}
}

// What somebody else sealed to the group's public key, which is no secret, is bounded too.
func TestOpener_TooLarge(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, id.x.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, MaxBytes+1)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := NewOpener(id).Open(out.Bytes()); got != nil || err == nil {
		t.Errorf("it is %d bytes, %v", len(got), err)
	}
}

func TestNewSealer_BadKeys(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	for name, own := range map[string]string{"None": "age1nonsense", "Private": id.x.String()} {
		if s, err := NewSealer(own); s != nil || err == nil || err.Error() != "the API's public key is none" {
			t.Errorf("%s: it is %v, %v", name, s, err)
		}
	}
}

func TestIdentity_PrintsRedacted(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	key := id.x.String()
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "id", id, "in", struct{ ID Identity }{id})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "id", id, "in", struct{ ID Identity }{id})
	text, err := json.Marshal(map[string]any{"id": id})
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{fmt.Sprint(id), fmt.Sprintf("%v %+v %#v %s %q", id, id, id, id, id), fmt.Sprintf("%+v %#v", &id, []Identity{id}),
		fmt.Sprintf("%+v", struct{ ID Identity }{id}), fmt.Errorf("with %v", id).Error(), log.String(), string(text)} {
		if strings.Contains(printed, key) || strings.Contains(printed, key[16:40]) {
			t.Errorf("the key is in %q", printed)
		}
	}
}
