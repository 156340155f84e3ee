package natsbus_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

var update = flag.Bool("update", false, "write the golden files")

// public is the public nkey of a number, the same in every run.
func public(t testing.TB, kind nkeys.PrefixByte, n byte) string {
	t.Helper()
	pair, err := nkeys.FromRawSeed(kind, bytes.Repeat([]byte{n}, 32))
	if err != nil {
		t.Fatal(err)
	}
	key, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestAuthorization(t *testing.T) {
	t.Parallel()
	api, one, two := public(t, nkeys.PrefixByteUser, 1), public(t, nkeys.PrefixByteUser, 2), public(t, nkeys.PrefixByteUser, 3)
	got, err := natsbus.Authorization(api, map[string]string{"gpu": two, "default": one})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("is as the golden file has it", func(t *testing.T) {
		golden := filepath.Join("testdata", "authorization.conf")
		if *update {
			if err := os.WriteFile(golden, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("it is\n%s\nif that is right: go test ./internal/natsbus -run TestAuthorization -update", got)
		}
	})
	t.Run("a server takes it", func(t *testing.T) { natstest.Start(t, natstest.Options{Authorization: got}) })
	t.Run("a server takes it without groups", func(t *testing.T) {
		none, err := natsbus.Authorization(api, nil)
		if err != nil {
			t.Fatal(err)
		}
		natstest.Start(t, natstest.Options{Authorization: none})
	})
	for name, c := range map[string]struct {
		api    string
		groups map[string]string
		want   string
	}{
		"no key of the APIs":         {"", nil, "the APIs' nkey"},
		"a key of another kind":      {public(t, nkeys.PrefixByteAccount, 1), nil, "the APIs' nkey"},
		"no key of a group":          {api, map[string]string{"gpu": ""}, "group gpu"},
		"a group with the APIs' key": {api, map[string]string{"gpu": api}, "group gpu has the nkey of the APIs"},
		"two groups with one key":    {api, map[string]string{"a": one, "b": one}, "group b has the nkey of group a"},
		"a name that is none":        {api, map[string]string{"a.>": one}, `"a.>"`},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := natsbus.Authorization(c.api, c.groups); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it gives %v and %d bytes, want an error with %q", err, len(got), c.want)
			}
		})
	}
}

func TestNewNkey(t *testing.T) {
	seed, public, err := natsbus.NewNkey()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the seed has the public half", func(t *testing.T) {
		if got, err := natsbus.PublicNkey(seed); err != nil || got != public {
			t.Errorf("got %s, %v, want %s", got, err, public)
		}
	})
	t.Run("no two are alike", func(t *testing.T) {
		if _, other, err := natsbus.NewNkey(); err != nil || other == public {
			t.Errorf("got %s again, %v", other, err)
		}
	})
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	of, err := account.Seed()
	if err != nil {
		t.Fatal(err)
	}
	for name, seed := range map[string][]byte{"a public key is no seed": []byte(public), "nothing is no seed": nil, "an account's seed is none of a user": of} {
		t.Run(name, func(t *testing.T) {
			got, err := natsbus.PublicNkey(seed)
			if err == nil || len(seed) > 0 && strings.Contains(err.Error(), string(seed)) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
