package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"io"
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

// --json gives the record with result and log, of a failed activation too.
func testInvokeJSON(a *account) {
	for _, c := range []struct {
		function, in string
		code         int
		state        client.State
	}{{"cat", "\x00\xff", exitOK, client.StateSucceeded}, {"fails", "x", exitFunctionFailed, client.StateFailed}} {
		got := a.run(strings.NewReader(c.in), "invoke", c.function, "--json")
		var r client.Activation
		d := json.NewDecoder(strings.NewReader(got.out))
		if err := d.Decode(&r); err != nil || got.code != c.code || r.State != c.state || r.ActivationID == "" {
			a.t.Errorf("%s: exit code %d, %v, record %+v", c.function, got.code, err, r)
		}
		if _, err := d.Token(); err != io.EOF {
			a.t.Errorf("%s: there is more than one document on standard output", c.function)
		}
		if c.code == exitOK && string(r.Result.Base64) != c.in {
			a.t.Errorf("the result is %+v", r.Result)
		}
		if c.code != exitOK && (r.Reason != "exit_nonzero" || r.ExitCode == nil || *r.ExitCode != 3 || r.Log.Text != "err") {
			a.t.Errorf("the failed record is %+v", r)
		}
	}
}
