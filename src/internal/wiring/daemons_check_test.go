package wiring_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
)

// badSettings are settings that are wrong, and what is said of them.
type badSettings struct {
	worker bool
	env    []string
	want   []string // the beginning of each line, behind the program's name
}

func badSettingsOf(t *testing.T) (good map[bool][]string, bad map[string]badSettings) {
	t.Helper()
	dir := t.TempDir()
	keys(t, dir)
	ca := faenatest.NewCA(t)
	one, two, old := ca.Issue("one"), ca.Issue("two"), ca.IssueExpired("old")
	nothing, secret := filepath.Join(dir, "nothing"), filepath.Join(dir, "open")
	for path, mode := range map[string]os.FileMode{nothing: 0o600, secret: 0o644} {
		if err := os.WriteFile(path, []byte("nothing\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	nkey, seal, missing := filepath.Join(dir, "nats.nk"), filepath.Join(dir, "seal.key"), filepath.Join(dir, "missing")
	shared := []string{"FAENA_NATS_URLS=tls://192.0.2.1:4222", "FAENA_NATS_CA_FILE=" + ca.File, "FAENA_NATS_CERT_FILE=" + one.CertFile,
		"FAENA_NATS_KEY_FILE=" + one.KeyFile, "FAENA_NATS_NKEY_FILE=" + nkey, "FAENA_SEAL_KEY_FILE=" + seal, "FAENA_DATA_DIR=" + missing}
	good = map[bool][]string{
		false: append([]string{"FAENA_TLS_CERT_FILE=" + one.CertFile, "FAENA_TLS_KEY_FILE=" + one.KeyFile, "FAENA_AUTH_GATEWAY_CA_FILE=" + ca.File,
			"FAENA_AUTH_GATEWAY_SAN=gateway", "FAENA_MONGODB_URI=mongodb+srv://mongodb.invalid/", "FAENA_MONGODB_CA_FILE=" + ca.File}, shared...),
		true: append([]string{"FAENA_INIT_PATH=" + faenatest.InitBinary(t), "FAENA_DOCKER_HOST=unix://" + missing}, shared...),
	}
	bad = map[string]badSettings{
		"unknown":             {true, []string{"FAENA_WORKER_PLACE=2"}, []string{"FAENA_WORKER_PLACE is no setting of this daemon; FAENA_WORKER_PLACES is: correct the name, or remove it"}},
		"the other daemon's":  {true, []string{"FAENA_LISTEN=:1"}, []string{"FAENA_LISTEN is no setting of this daemon, it is one of faena-api: remove it here"}},
		"what cannot be read": {false, []string{"FAENA_RETENTION=7d"}, []string{`FAENA_RETENTION is "7d": it cannot be read; right would be a duration`}},
		"a file that is not there": {false, []string{"FAENA_NATS_CA_FILE=" + missing},
			[]string{`FAENA_NATS_CA_FILE is "` + missing + `": it cannot be read: no such file or directory`}},
		"a secret that is open": {true, []string{"FAENA_SEAL_KEY_FILE=" + secret}, []string{`FAENA_SEAL_KEY_FILE is "` + secret + `": it may be used by everybody`}},
		"a credential that is none": {true, []string{"FAENA_NATS_NKEY_FILE=", "CREDENTIALS_DIRECTORY=" + credentials(t, "faena.nats_nkey")},
			[]string{"read FAENA_NATS_NKEY_FILE "}},
		"no address of a server": {false, []string{"FAENA_NATS_URLS=http://h:1"}, []string{"FAENA_NATS_URLS has what is no address of a server"}},
		"an expired certificate": {false, []string{"FAENA_TLS_CERT_FILE=" + old.CertFile, "FAENA_TLS_KEY_FILE=" + old.KeyFile},
			[]string{"FAENA_TLS_CERT_FILE " + old.CertFile + " has expired, on "}},
		"a key of another certificate": {false, []string{"FAENA_TLS_KEY_FILE=" + two.KeyFile},
			[]string{"FAENA_TLS_CERT_FILE " + one.CertFile + " and FAENA_TLS_KEY_FILE " + two.KeyFile + ": read the server's certificate and key: tls: private key does not match"}},
		"an expired certificate for NATS": {true, []string{"FAENA_NATS_CERT_FILE=" + old.CertFile, "FAENA_NATS_KEY_FILE=" + old.KeyFile},
			[]string{"FAENA_NATS_CERT_FILE " + old.CertFile + " has expired, on "}},
		"all that is no key": {false, []string{"FAENA_SEAL_KEY_FILE=" + nothing, "FAENA_NATS_NKEY_FILE=" + nothing, "FAENA_AUTH_GATEWAY_CA_FILE=" + nothing,
			"FAENA_MONGODB_CA_FILE=" + nothing}, []string{"read FAENA_AUTH_GATEWAY_CA_FILE: there is no certificate in", "read FAENA_SEAL_KEY_FILE " + nothing,
			"read FAENA_NATS_NKEY_FILE " + nothing, "read FAENA_MONGODB_CA_FILE: there is no certificate in"}},
		"several settings": {false, []string{"FAENA_LOG_LEVEL=loud", "FAENA_COLOUR=red"}, []string{"FAENA_COLOUR is no setting", `FAENA_LOG_LEVEL is "loud"`}},
		"no init":          {true, []string{"FAENA_INIT_PATH=" + missing}, []string{"FAENA_INIT_PATH, the first process of every container: stat " + missing}},
	}
	return good, bad
}

// credentials is a directory as systemd makes it, with one that is no key.
func credentials(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("no key\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The daemon says the same as --check-config, with the same exit code, and so does the journal with a mark at each line.
func TestMain_CheckConfig(t *testing.T) {
	t.Parallel()
	good, bad := badSettingsOf(t)
	for worker, main := range map[bool]mainFunc{false: wiring.APIMain, true: wiring.WorkerMain} {
		good[worker] = append(good[worker], fmt.Sprintf("SYSTEMD_EXEC_PID=%d", os.Getpid()))
		if r := command(t, main, good[worker], "", "--check-config"); r.code != 0 || r.out+r.errs != "" {
			t.Errorf("good settings of the worker (%v) end with %d: %s%s", worker, r.code, r.out, r.errs)
		}
	}
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			main, program := mainFunc(wiring.APIMain), "faena-api"
			if c.worker {
				main, program = wiring.WorkerMain, "faena-worker"
			}
			environ := changed(good[c.worker], c.env)
			for args, mark := range map[string]string{"--check-config": "", "": "", "--check-config journal": "<3>"} {
				env := environ
				if mark != "" {
					env = changed(environ, []string{"FAENA_LOG_FORMAT=journal"})
				}
				r := command(t, main, env, "", strings.Fields(strings.TrimSuffix(args, " journal"))...)
				lines := strings.Split(strings.TrimSuffix(r.errs, "\n"), "\n")
				if r.code != 3 || r.out != "" || len(lines) != len(c.want) {
					t.Fatalf("%q ends with %d: %s%s", args, r.code, r.out, r.errs)
				}
				for i, want := range c.want {
					if !strings.HasPrefix(lines[i], mark+program+": "+want) {
						t.Errorf("%q says %q, want %q", args, lines[i], want)
					}
				}
			}
		})
	}
	if dir := strings.TrimPrefix(good[true][len(good[true])-2], "FAENA_DATA_DIR="); exists(dir) {
		t.Errorf("%s was made", dir)
	}
}

// In a shell it says whose settings it has checked, and how the unit's are: with all that the unit of the packages names.
func TestMain_CheckConfig_InAShell(t *testing.T) {
	t.Parallel()
	good, _ := badSettingsOf(t)
	for worker, name := range map[bool]string{false: "api", true: "worker"} {
		main := map[bool]mainFunc{false: wiring.APIMain, true: wiring.WorkerMain}[worker]
		unit, err := os.ReadFile(filepath.Join("..", "..", "..", "systemd", "faena-"+name+".service"))
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"checked was what this shell has set", "\n  systemd-run ", "--uid=faena-" + name + " ", " /usr/bin/faena-" + name + " --check-config\n"}
		for line := range strings.Lines(string(unit)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "LoadCredential=") || strings.HasPrefix(line, "EnvironmentFile=") {
				want = append(want, " -p "+line+" ")
			}
		}
		// systemd's are the daemons, and not what is typed into a shell below one.
		for code, environ := range map[int][]string{0: changed(good[worker], []string{"SYSTEMD_EXEC_PID=1"}), 3: changed(good[worker], []string{"FAENA_COLOUR=red"})} {
			r := command(t, main, environ, "", "--check-config")
			for _, want := range want {
				if !strings.Contains(r.errs, want) {
					t.Errorf("of %s there is no %q: %s", name, want, r.errs)
				}
			}
			if r.code != code || r.out != "" || strings.Count(r.errs, " -p ") != len(want)-3 || strings.HasPrefix(r.errs, "faena-"+name+": FAENA_COLOUR is no setting") != (code == 3) {
				t.Errorf("%s ends with %d, want %d: %s", name, r.code, code, r.errs)
			}
		}
	}
}

// changed are settings of which some have other values.
func changed(environ, by []string) []string {
	kept := slices.DeleteFunc(slices.Clone(environ), func(old string) bool {
		name, _, _ := strings.Cut(old, "=")
		return slices.ContainsFunc(by, func(s string) bool { return strings.HasPrefix(s, name+"=") })
	})
	return append(kept, by...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// What only shows when the daemon starts is said in one line too. Only what may mend itself is tried again.
func TestMain_CannotStart(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // after the parts, which are parallel
	port, file := taken.Addr().String(), filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		worker bool
		env    string
		code   int
		want   string
	}{
		"a port in use":              {false, "FAENA_OPERATIONS_LISTEN=" + port, 3, "(FAENA_OPERATIONS_LISTEN is " + port + "): another process listens there, which ss -ltnp shows"},
		"a port in use at a worker":  {true, "FAENA_OPERATIONS_LISTEN=" + port, 3, "address already in use"},
		"an address of another host": {false, "FAENA_OPERATIONS_LISTEN=192.0.2.1:80", 1, "cannot assign requested address (FAENA_OPERATIONS_LISTEN is 192.0.2.1:80)"},
		"a file as directory":        {false, "FAENA_DATA_DIR=" + file, 3, "which FAENA_DATA_DIR names: mkdir " + file + ": not a directory"},
		"a file above the socket":    {false, "FAENA_ADMIN_SOCKET=" + file + "/admin.sock", 3, "which FAENA_ADMIN_SOCKET names: mkdir " + file + ": not a directory. Name a path"},
		"no engine":                  {true, "FAENA_DOCKER_HOST=unix:///nonexistent/docker.sock", 3, "there is no Docker Engine at unix:///nonexistent/docker.sock, which FAENA_DOCKER_HOST"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			environ, _, ops := apiSettings(t, shortDir(t), "FAENA_NATS_URLS=nats://"+freeAddress(t))
			main := mainFunc(wiring.APIMain)
			if c.worker {
				environ, main = []string{"FAENA_DATA_DIR=" + shortDir(t), "FAENA_OPERATIONS_LISTEN=" + ops, "FAENA_INIT_PATH=" + faenatest.InitBinary(t)}, wiring.WorkerMain
				if !strings.HasPrefix(c.env, "FAENA_DOCKER_HOST=") {
					environ = append(environ, "FAENA_DOCKER_HOST=tcp://"+freeAddress(t))
				}
			}
			r := commandWithin(t, main, append(environ, c.env, "FAENA_LOG_FORMAT=journal"))
			if r.code != c.code || !strings.Contains(r.errs, c.want) || strings.Count(r.errs, "<3>") != 1 {
				t.Errorf("it ends with %d: %s", r.code, r.errs)
			}
		})
	}
}

// commandWithin is a daemon that is to end by itself.
func commandWithin(t *testing.T, main mainFunc, environ []string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out, errs strings.Builder
	code := main(ctx, nil, strings.NewReader(""), &out, &errs, environ)
	return ran{code, out.String(), errs.String()}
}
