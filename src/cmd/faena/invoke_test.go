package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"faena.dev/faena/internal/client"
)

func testInvoke(a *account, s *site) {
	a.deploy("echo", s.image)
	a.deploy("cat", s.image, append(mode("cat"), "--input", "stdin")...)
	a.deploy("fails", s.image, mode("exit", "3")...)
	a.t.Run("the parameter", func(t *testing.T) { testParameter(a.of(t)) })
	a.t.Run("bytes", func(t *testing.T) { testBytes(a.of(t)) })
	a.t.Run("json", func(t *testing.T) { testInvokeJSON(a.of(t)) })
	a.t.Run("async", func(t *testing.T) {
		a := a.of(t)
		got := a.run(nil, "invoke", "echo", "later", "--async")
		id, newline := strings.CutSuffix(got.out, "\n")
		if got.code != exitOK || !newline || strings.ContainsAny(id, " \n") {
			t.Fatalf("it writes %q and ends with %d, want the id and a newline: %s", got.out, got.code, got.err)
		}
		if r := a.reaches(id, ended); r.State != client.StateSucceeded || a.faena("result", id) != "later" {
			t.Errorf("it is %s: %s", r.State, r.Message)
		}
		if accepted := decode[client.Accepted](a, "invoke", "echo", "later", "--async"); accepted.ActivationID == "" || accepted.Location == "" {
			t.Errorf("-o json gives %+v", accepted)
		}
	})
	a.t.Run("a function that fails", func(t *testing.T) {
		got := a.of(t).run(nil, "invoke", "fails", "x")
		if got.code != exitFunctionFailed || got.out != "" {
			t.Errorf("it ends with %d and writes %q to standard output, want %d and nothing", got.code, got.out, exitFunctionFailed)
		}
		for _, want := range []string{"exit_nonzero", "  err\n", "Activation "} {
			if !strings.Contains(got.err, want) {
				t.Errorf("standard error has no %q: %s", want, got.err)
			}
		}
	})
}

// The parameter is taken from where the caller says, and never altered.
func testParameter(a *account) {
	file := filepath.Join(a.t.TempDir(), "parameter")
	if err := os.WriteFile(file, []byte("of a file\n"), 0o600); err != nil {
		a.t.Fatal(err)
	}
	for _, c := range []struct {
		name, in string
		args     []string
		want     string
	}{
		{"argument", "unread", []string{"an argument"}, "an argument"},
		{"argument that looks like a flag", "unread", []string{"--", "-d"}, "-d"},
		{"-d with text", "unread", []string{"-d", "text"}, "text"},
		{"-d with nothing", "unread", []string{"-d", ""}, ""},
		{"-d @FILE", "unread", []string{"-d", "@" + file}, "of a file\n"},
		{"-d @-", "of standard input\n", []string{"-d", "@-"}, "of standard input\n"},
		{"standard input", "of standard input\n", nil, "of standard input\n"},
		{"nothing", "", nil, ""},
	} {
		a.t.Run(c.name, func(t *testing.T) {
			got := a.of(t).run(strings.NewReader(c.in), append([]string{"invoke", "echo"}, c.args...)...)
			if got != (answer{exitOK, c.want, ""}) {
				t.Errorf("got %+v, want %q on standard output and nothing on standard error", got, c.want)
			}
		})
	}
	a.t.Run("a file that is absent", func(t *testing.T) {
		got := a.of(t).run(nil, "invoke", "echo", "-d", "@/nonexistent/x")
		if got.code != exitFailed || got.out != "" || !strings.Contains(got.err, "/nonexistent/x") {
			t.Errorf("got %+v", got)
		}
	})
}

// What comes out is what went in, whatever bytes there are.
func testBytes(a *account) {
	noise := make([]byte, 3<<20)
	_, _ = rand.Read(noise) // never fails
	for name, in := range map[string][]byte{"no newline": []byte("x"), "newlines": []byte("\n\r\n\n"), "NUL and no UTF-8": {0, 0xff, 0xfe, 0},
		"lone CR": []byte("10 %\r20 %\r"), "3 MiB of noise": noise} {
		a.t.Run(name, func(t *testing.T) {
			got := a.of(t).run(bytes.NewReader(in), "invoke", "cat")
			if got.code != exitOK || sha256.Sum256([]byte(got.out)) != sha256.Sum256(in) || got.err != "" {
				t.Errorf("%d bytes came out of %d, exit code %d, standard error %q", len(got.out), len(in), got.code, got.err)
			}
		})
	}
	a.t.Run("read again as the result", func(t *testing.T) {
		a := a.of(t)
		id := strings.TrimSuffix(a.run(bytes.NewReader(noise), "invoke", "cat", "--async").out, "\n")
		a.reaches(id, ended)
		if got := a.run(nil, "result", id); sha256.Sum256([]byte(got.out)) != sha256.Sum256(noise) || got.err != "" {
			t.Errorf("%d bytes came out of %d, standard error %q", len(got.out), len(noise), got.err)
		}
	})
}

// readRecord reads one record that is all of a command's standard output, in the form of all JSON.
func readRecord(t *testing.T, out string) (r client.Activation) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.ActivationID == "" {
		t.Errorf("it is no record: %v: %s", err, out)
	}
	if !strings.HasPrefix(out, "{\n  \"") || !strings.HasSuffix(out, "\n}\n") {
		t.Errorf("it is not indented: %s", out)
	}
	return r
}

// --json gives the record with result and log, of a failed activation too; -o json is the same.
func testInvokeJSON(a *account) {
	for _, c := range []struct {
		function, in, flag string
		code               int
		state              client.State
	}{
		{"cat", "\x00\xff", "--json", exitOK, client.StateSucceeded},
		{"cat", "\x00\xff", "-o=json", exitOK, client.StateSucceeded},
		{"fails", "x", "--json", exitFunctionFailed, client.StateFailed},
		{"fails", "x", "-o=json", exitFunctionFailed, client.StateFailed},
	} {
		got := a.run(strings.NewReader(c.in), "invoke", c.function, c.flag)
		r := readRecord(a.t, got.out)
		if got.code != c.code || r.State != c.state {
			a.t.Errorf("%s %s: exit code %d, record %+v", c.function, c.flag, got.code, r)
		}
		if c.code == exitOK && string(r.Result.Base64) != c.in {
			a.t.Errorf("the result is %+v", r.Result)
		}
		if c.code != exitOK && (r.Reason != "exit_nonzero" || r.ExitCode == nil || *r.ExitCode != 3 || r.Log.Text != "err") {
			a.t.Errorf("the failed record is %+v", r)
		}
	}
}
