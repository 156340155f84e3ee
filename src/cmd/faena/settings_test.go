package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// Each program refuses to start where a setting is wrong, names the setting, and has touched nothing.
func TestPrograms_BadSettings(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	dir := filepath.Dir(a.data)
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open, forbidden := file("open", 0o644), file("forbidden", 0)
	for _, p := range []struct {
		program string
		code    int
		secret  string // a setting that names the file of a secret
	}{
		{"faena", exitUsage, "FAENA_TLS_KEY_FILE"},
		{"faena-api", 3, "FAENA_NATS_NKEY_FILE"},
		{"faena-worker", 3, "FAENA_NATS_NKEY_FILE"},
	} {
		for _, c := range []struct{ name, setting, value, why string }{
			{"unknown", "FAENA_COLOUR", "red", "no setting"},
			{"misspelt", "FAENA_LOG_LEVELS", "info", "FAENA_LOG_LEVEL"},
			{"bad word", "FAENA_LOG_FORMAT", "xml", "json, text or journal"},
			{"bad address", "FAENA_OPERATIONS_LISTEN", "here", "host:port"},
			{"relative directory", "FAENA_DATA_DIR", "data", "absolute"},
			{"absent file", p.secret, "/nonexistent/secret", "no such file"},
			{"directory for a file", p.secret, "/", "no regular file"},
			{"file that it may not read", p.secret, forbidden, "permission denied"},
			{"secret that everybody may read", p.secret, open, "mode 0644"},
		} {
			t.Run(p.program+"/"+c.name, func(t *testing.T) { refuses(a.of(t), p.program, p.code, c.setting, c.value, c.why) })
		}
		duration := "FAENA_WORKER_IDLE_TTL"
		if p.program == "faena-api" {
			duration = "FAENA_DRAIN_AFTER"
		}
		for _, value := range []string{"5", "soon", "-1s"} {
			t.Run(p.program+"/duration "+value, func(t *testing.T) { refuses(a.of(t), p.program, p.code, duration, value, "") })
		}
	}
	t.Run("faena/loopback unless given a certificate", func(t *testing.T) {
		refuses(a.of(t), "faena", exitUsage, "FAENA_LISTEN", "0.0.0.0:0", "FAENA_TLS_CERT_FILE")
	})
	for _, program := range []string{"faena-api", "faena-worker"} {
		t.Run(program+"/right settings", func(t *testing.T) { waits(newAccount(t), program) })
		t.Run(program+"/argument", func(t *testing.T) {
			a := a.of(t)
			if got := a.finish(a.command(t.Context(), program, "--listen=:80"), nil); got.code != 2 || !strings.Contains(got.err, `"--listen=:80"`) {
				t.Errorf("got %+v", got)
			}
			if got := a.finish(a.command(t.Context(), program, "--version"), nil); got.code != 0 || !strings.HasPrefix(got.out, program+" ") {
				t.Errorf("--version: %+v", got)
			}
		})
	}
}

// refuses runs a program with one setting as somebody whom file modes bind, whoever runs the tests.
func refuses(a *account, program string, code int, setting, value, why string) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	defer cancel()
	cmd := a.daemon(ctx, program)
	cmd.Env = append(cmd.Env, setting+"="+value)
	cmd.Dir = "/"
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	got := a.finish(cmd, nil)
	if got.code != code || got.out != "" {
		a.t.Errorf("it ends with %d, want %d, and writes %q", got.code, code, got.out)
	}
	if !strings.Contains(got.err, setting+" ") || !strings.Contains(got.err, why) {
		a.t.Errorf("it does not name %s and say %q: %s", setting, why, got.err)
	}
	if _, err := os.Stat(a.data); err == nil {
		a.t.Error("it has made its data directory")
	}
}

// waits runs a daemon with right settings but no NATS server: it waits for one, says which setting names it, and ends by
// SIGTERM.
func waits(a *account, program string) {
	a.t.Helper()
	cmd := a.daemon(a.t.Context(), program)
	var said text
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	faenatest.EventuallyNil(a.t, 30*time.Second, program+" says what it waits for", func() error {
		if text := said.String(); !strings.Contains(text, "nats://127.0.0.1:1 ") || !strings.Contains(text, "FAENA_NATS_URLS") {
			return errors.New(text)
		}
		return nil
	})
	send(a.t, cmd, syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		a.t.Errorf("it ends with %v: %s", err, said.String())
	}
}

// daemon is a program with settings that are right.
func (a *account) daemon(ctx context.Context, program string) *exec.Cmd {
	if program == "faena" {
		return a.upCommand(ctx)
	}
	cmd := a.command(ctx, program)
	cmd.Env = append(cmd.Env, "FAENA_DATA_DIR="+a.data, "FAENA_NATS_URLS=nats://127.0.0.1:1", "FAENA_OPERATIONS_LISTEN=127.0.0.1:0")
	if program == "faena-api" {
		cmd.Env = append(cmd.Env, "FAENA_AUTH=local", "FAENA_LISTEN=127.0.0.1:0")
	}
	return cmd
}
