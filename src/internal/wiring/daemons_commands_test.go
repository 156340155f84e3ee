package wiring_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"faena.dev/faena/internal/wiring"
)

// ran is how a command ended.
type ran struct {
	code      int
	out, errs string
}

type mainFunc func(context.Context, []string, io.Reader, io.Writer, io.Writer, []string) int

func command(t *testing.T, main mainFunc, environ []string, in string, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	code := main(t.Context(), args, strings.NewReader(in), &out, &errs, environ)
	return ran{code, out.String(), errs.String()}
}

// publicKeys are what keygen prints.
type publicKeys struct{ Nkey, Recipient string }

// keys makes keys in a directory.
func keys(t *testing.T, dir string) publicKeys {
	t.Helper()
	r := command(t, wiring.WorkerMain, nil, "", "keygen", "--dir", dir)
	var k publicKeys
	if err := json.Unmarshal([]byte(r.out), &k); err != nil || r.code != 0 || strings.Count(r.out, "\n") != 1 {
		t.Fatalf("keygen ends with %d, %v: %s%s", r.code, err, r.out, r.errs)
	}
	return k
}

// authorization is what an operator puts into the configuration of the first server.
func authorization(t *testing.T, api string, groups ...string) []byte {
	t.Helper()
	args := []string{"nats-config", "--api-nkey", api}
	for _, g := range groups {
		args = append(args, "--group", g)
	}
	r := command(t, wiring.APIMain, nil, "", args...)
	if r.code != 0 {
		t.Fatalf("nats-config ends with %d: %s", r.code, r.errs)
	}
	return []byte(r.out)
}

func TestKeygen(t *testing.T) {
	t.Parallel()
	read := func(t *testing.T, path string) string {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, main := range map[string]mainFunc{"faena-api": wiring.APIMain, "faena-worker": wiring.WorkerMain} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "new")
			first := command(t, main, []string{"FAENA_DATA_DIR=" + dir}, "", "keygen")
			var k publicKeys
			if err := json.Unmarshal([]byte(first.out), &k); err != nil || first.code != 0 || !strings.HasPrefix(k.Nkey, "U") || !strings.HasPrefix(k.Recipient, "age1") {
				t.Fatalf("it ends with %d, %v: %s%s", first.code, err, first.out, first.errs)
			}
			nkey, sealing := filepath.Join(dir, "nats.nk"), filepath.Join(dir, "seal.key")
			if !strings.Contains(first.errs, nkey+" is new") || !strings.Contains(first.errs, sealing+" is new") {
				t.Errorf("it says: %s", first.errs)
			}
			one, two := read(t, nkey), read(t, sealing)
			for _, secret := range []string{strings.TrimSpace(one), "AGE-SECRET-KEY"} {
				if strings.Contains(first.out+first.errs, secret) || !strings.Contains(one+two, secret) {
					t.Errorf("a private half is printed, or not written: %s%s", first.out, first.errs)
				}
			}
			again := command(t, main, nil, "", "keygen", "--dir", dir)
			if again.code != 0 || again.out != first.out || !strings.Contains(again.errs, "was there") {
				t.Errorf("again it ends with %d: %s%s", again.code, again.out, again.errs)
			}
			if read(t, nkey) != one || read(t, sealing) != two {
				t.Error("a key was replaced")
			}
			if err := os.Remove(sealing); err != nil {
				t.Fatal(err)
			}
			half := command(t, main, nil, "", "keygen", "--dir", dir)
			if half.code != 0 || !strings.Contains(half.out, k.Nkey) || strings.Contains(half.out, k.Recipient) || read(t, nkey) != one {
				t.Errorf("where one key is there it ends with %d: %s%s", half.code, half.out, half.errs)
			}
		})
	}
	for _, file := range []string{"nats.nk", "seal.key"} {
		t.Run("what is no key stays as it is: "+file, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, file)
			if err := os.WriteFile(path, []byte("hunter2\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			r := command(t, wiring.WorkerMain, nil, "", "keygen", "--dir", dir)
			if r.code != 1 || r.out != "" || !strings.Contains(r.errs, path) || strings.Contains(r.errs, "hunter2") || read(t, path) != "hunter2\n" {
				t.Errorf("it ends with %d: %s%s", r.code, r.out, r.errs)
			}
		})
	}
}

func TestMain_Usage(t *testing.T) {
	t.Parallel()
	k := keys(t, t.TempDir())
	for name, c := range map[string]struct {
		main      mainFunc
		args      string
		in        string
		code      int
		out, errs string // that are among what is said
	}{
		"help":                      {wiring.APIMain, "--help", "", 0, "faena-api admin create NAME [--password-stdin]", ""},
		"help of the worker":        {wiring.WorkerMain, "-h", "", 0, "faena-worker keygen [--dir DIR]", ""},
		"help of half a command":    {wiring.APIMain, "admin --help", "", 0, "faena-api admin create", ""},
		"help of admin create":      {wiring.APIMain, "admin create --help", "", 0, "--password-stdin\n", ""},
		"help of nats-config":       {wiring.APIMain, "nats-config --help", "", 0, "--group NAME=NKEY\n", ""},
		"help of keygen":            {wiring.WorkerMain, "keygen --help", "", 0, "--dir DIR\n      The DIRectory of the keys; it is made where it does not exist. Default: /var/lib/faena-worker.", ""},
		"version":                   {wiring.APIMain, "--version", "", 0, "faena-api", ""},
		"unknown argument":          {wiring.APIMain, "serve", "", 2, "", `faena-api: unknown argument "serve": settings are environment variables, and --help lists the commands`},
		"the API's command":         {wiring.WorkerMain, "nats-config", "", 2, "", `unknown argument "nats-config"`},
		"half a command":            {wiring.APIMain, "admin", "", 2, "", `unknown argument "admin"`},
		"unknown flag":              {wiring.APIMain, "keygen --colour", "", 2, "", "usage: faena-api keygen [--dir DIR]"},
		"too many arguments":        {wiring.APIMain, "keygen here", "", 2, "", `"here" is too much`},
		"no name":                   {wiring.APIMain, "admin create", "", 2, "", "give one name"},
		"two names":                 {wiring.APIMain, "admin create ann bob", "", 2, "", "give one name"},
		"no password":               {wiring.APIMain, "admin create ann --password-stdin", "\n", 2, "", "there is no password on standard input"},
		"groups without the API":    {wiring.APIMain, "nats-config --group gpu=" + k.Nkey, "", 2, "", "--group goes with --api-nkey"},
		"no nkey":                   {wiring.APIMain, "nats-config --api-nkey nonsense", "", 2, "", "faena-api nats-config: "},
		"a group without a key":     {wiring.APIMain, "nats-config --api-nkey " + k.Nkey + " --group gpu", "", 2, "", "write NAME=NKEY"},
		"a group that cannot be":    {wiring.APIMain, "nats-config --api-nkey " + k.Nkey + " --group GPU=" + k.Nkey, "", 2, "", "write NAME=NKEY"},
		"the block":                 {wiring.APIMain, "nats-config --group gpu=" + keys(t, t.TempDir()).Nkey + " --api-nkey " + k.Nkey, "", 0, k.Nkey, "is to reload it twice"},
		"no daemon for an admin":    {wiring.APIMain, "admin create ann --socket /nonexistent/admin.sock", "", 1, "", "Is it running on this host, are you root, and is /nonexistent/admin.sock its socket"},
		"no daemon for nats-config": {wiring.APIMain, "nats-config --socket /nonexistent/admin.sock", "", 1, "", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := command(t, c.main, nil, c.in, strings.Fields(c.args)...)
			if r.code != c.code || !strings.Contains(r.out, c.out) || !strings.Contains(r.errs, c.errs) {
				t.Errorf("it ends with %d: %s%s", r.code, r.out, r.errs)
			}
		})
	}
}
