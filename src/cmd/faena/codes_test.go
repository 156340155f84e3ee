package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

// Scripts tell what happened by the exit code.
func testCodes(a *account, s *site) {
	a.deploy("quick", s.image)
	a.deploy("slow", s.image, mode("stubborn")...)
	a.t.Run("the command line is wrong", func(t *testing.T) {
		for _, line := range []string{
			"nonsense", "completion nonsense", "users nonsense", "up now", "-o xml", "functions -o xml", "functions --nonsense", "delete nothing -o json", "result x -o json",
			"functions a b",
			"get", "get a b", "invoke", "invoke quick a -d b", "activations --limit many",
			"login", "login " + s.url, "login " + s.url + " -u admin", // no user; nothing to ask for the password at
			"login nonsense -u admin --password-stdin",
			"login " + s.url + " -u admin --password-stdin --registry 192.0.2.1:5000", // the password would go in clear
			"login " + s.url + " -u admin --password-stdin --registry example.org:5000",
		} {
			args := strings.Fields(line)
			got := a.of(t).run(strings.NewReader("x"), args...)
			if got.code != exitUsage || got.out != "" || !strings.Contains(got.err, "See faena --help.") {
				t.Errorf("faena %s: %+v, want exit code %d", line, got, exitUsage)
			}
		}
	})
	a.t.Run("arguments are missing, or too many", func(t *testing.T) { testArguments(a.of(t)) })
	a.t.Run("a flag is out of range", func(t *testing.T) { testRanges(a.of(t)) })
	a.t.Run("at the limit", func(t *testing.T) {
		a := a.of(t)
		a.run(strings.NewReader("a-password-of-cy"), "users", "put", "cy", "--limit", "default=1", "--password-stdin")
		a.run(strings.NewReader("a-password-of-cy"), "login", s.url, "--registry", s.registry, "--profile", "cy", "-u", "cy", "--password-stdin")
		a.deploy("slow", s.image, append(mode("stubborn"), "--profile", "cy")...)
		id := strings.TrimSuffix(a.faena("invoke", "slow", "x", "--async", "--profile", "cy"), "\n")
		got := a.run(nil, "invoke", "slow", "x", "--profile", "cy")
		if got.code != exitLimit || got.out != "" {
			t.Errorf("got %+v, want exit code %d", got, exitLimit)
		}
		a.faena("cancel", id, "--profile", "cy")
	})
	a.t.Run("too large", func(t *testing.T) {
		got := a.of(t).run(strings.NewReader(strings.Repeat("x", 200_000)), "invoke", "quick")
		if got.code != exitInvalid || got.out != "" || !strings.Contains(got.err, "stdin") {
			t.Errorf("got %+v, want exit code %d", got, exitInvalid)
		}
	})
	a.t.Run("interrupted", func(t *testing.T) { testInterrupted(a.of(t)) })
	a.t.Run("something in between answers", func(t *testing.T) { testInBetween(a.of(t)) })
	a.t.Run("nobody knows the outcome", func(t *testing.T) { testUnknown(a.of(t)) })
}

// loginAt makes a login at a server of the test's own.
func (a *account) loginAt(profile string, s *httptest.Server) {
	a.t.Helper()
	login := fmt.Sprintf(`{"url": %q, "username": "admin", "password": "x"}`, s.URL)
	if err := os.WriteFile(filepath.Join(a.home, ".config", "faena", profile+".json"), []byte(login), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// Who does not know whether his activation was accepted must not be told that it was not.
func testUnknown(a *account) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/said/") {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"reason":"outcome_unknown","detail":"It may run or not.","status":503,"retryable":true,"outcome_unknown":true,"activation_id":"id-1"}`)
	}))
	defer s.Close()
	a.loginAt("unknown", s)
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"invoke broken x", "the activation may have been accepted and may run. See `faena activations` before trying again.", exitUnknown},
		{"invoke broken x --async", "the activation may have been accepted and may run. See `faena activations` before trying again.", exitUnknown},
		{"invoke said x", "It may run or not. (outcome_unknown)\nActivation id-1", exitUnknown},
		{"functions", "the connection broke", exitUnavailable},
	} {
		if got := a.run(nil, append(strings.Fields(c.args), "--profile", "unknown")...); got.code != c.code || got.out != "" || !strings.Contains(got.err, c.want) {
			a.t.Errorf("%s: %+v, want exit code %d and %q", c.args, got, c.code, c.want)
		}
	}
}

// Who leaves out an argument is told which.
func testArguments(a *account) {
	for args, want := range map[string]string{
		"get":                "ACTIVATION is missing: faena get ACTIVATION",
		"users delete --yes": "NAME is missing: faena users delete NAME",
		"invoke":             "NAME is missing: faena invoke NAME [PARAMETER]",
		"login":              "URL is missing: faena login URL",
		"get a b":            "faena get takes ACTIVATION and nothing more, 2 arguments are given",
		"functions a b":      "faena functions takes [NAME] and nothing more, 2 arguments are given",
		"workers a":          "faena workers takes no arguments",
	} {
		if got := a.run(nil, strings.Fields(args)...); got.code != exitUsage || got.err != "faena: "+want+"\nSee faena --help.\n" {
			a.t.Errorf("%s: %+v, want %q", args, got, want)
		}
	}
}

// What is out of range is said in the words of the flag, before anything is sent: there is no login.
func testRanges(a *account) {
	const expires, limit = "must be from 1s to 168h, in whole seconds", "must be from 1 to 1000"
	for _, c := range []struct{ args, want string }{
		{"invoke quick x --expires 0", "--expires is 0s, " + expires},
		{"invoke quick x --expires 500ms", "--expires is 500ms, " + expires},
		{"invoke quick x --expires 1500ms", "--expires is 1.5s, " + expires},
		{"invoke quick x --expires -5s", "--expires is -5s, " + expires},
		{"invoke quick x --expires 169h", "--expires is 169h0m0s, " + expires},
		{"activations --limit 0", "--limit is 0, " + limit},
		{"activations --limit -1", "--limit is -1, " + limit},
		{"activations --limit 1001", "--limit is 1001, " + limit},
	} {
		got := a.run(nil, append(strings.Fields(c.args), "--profile", "nobody")...)
		if got.code != exitUsage || got.out != "" || !strings.HasPrefix(got.err, "faena: "+c.want) {
			a.t.Errorf("%s: %+v, want %q", c.args, got, c.want)
		}
	}
	for _, args := range []string{"invoke quick x --expires 1s --async", "invoke quick x --expires 168h", "activations --limit 1", "activations --limit 1000"} {
		if got := a.run(nil, strings.Fields(args)...); got.code != exitOK {
			a.t.Errorf("%s: %+v", args, got)
		}
	}
}

// Ctrl-C ends the wait, not the activation, and says how to find it.
func testInterrupted(a *account) {
	cmd := a.command(a.t.Context(), "faena", "invoke", "slow", "x")
	var out, errs text
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	var id string
	faenatest.Eventually(a.t, 30*time.Second, "it runs", func() bool {
		list := decode[[]client.Activation](a, "activations", "--function", "slow", "--state", "running")
		if len(list) > 0 {
			id = list[0].ActivationID
		}
		return len(list) == 1
	})
	send(a.t, cmd, os.Interrupt)
	_ = cmd.Wait() // its exit code is looked at
	if cmd.ProcessState.ExitCode() != exitInterrupted || out.String() != "" || !strings.Contains(errs.String(), "faena activations --function slow") {
		a.t.Errorf("it ends with %d and says %q", cmd.ProcessState.ExitCode(), errs.String())
	}
	if r := a.record(id); r.State != client.StateRunning {
		a.t.Errorf("the activation is %s", r.State)
	}
	a.faena("cancel", id)
	a.reaches(id, ended)
}

// A proxy's own answers are no activation's end, and never data.
func testInBetween(a *account) {
	for _, c := range []struct{ status, code int }{{301, exitFailed}, {401, exitUnauthenticated}, {404, exitNotFound}, {500, exitFailed},
		{502, exitUnavailable}, {503, exitUnavailable}, {504, exitUnavailable}} {
		a.t.Run(fmt.Sprint(c.status), func(t *testing.T) {
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://example.org/")
				http.Error(w, "<html>something</html>", c.status)
			}))
			defer proxy.Close()
			a.of(t).loginAt("proxy", proxy)
			for _, args := range [][]string{{"invoke", "quick", "x"}, {"result", "x"}, {"functions"}} {
				got := a.of(t).run(nil, append(args, "--profile", "proxy")...)
				if got.code != c.code || got.out != "" || !strings.Contains(got.err, fmt.Sprint(c.status)) {
					t.Errorf("%s: %+v, want exit code %d", args[0], got, c.code)
				}
			}
		})
	}
}
