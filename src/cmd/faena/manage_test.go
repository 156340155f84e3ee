package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

// testFunctions: what is deployed, rolled back and deleted is what answers.
func testFunctions(a *account, s *site) {
	a.deploy("version", s.image)
	a.deploy("version", s.image, append(mode("uid"), "--timeout", "5s", "--label", "team=a", "-e", "A=b=c")...)
	says := func(want string) {
		a.t.Helper()
		if got := a.faena("invoke", "version", "one"); got != want {
			a.t.Errorf("it answers %q, want %q", got, want)
		}
	}
	says("0:0")
	revisions := decode[[]client.Revision](a, "functions", "version")
	if len(revisions) != 2 || revisions[0].Revision != 2 || revisions[0].Spec.TimeoutMs != 5000 || revisions[0].Spec.Env["A"] != "b=c" ||
		revisions[0].Spec.Labels["team"] != "a" || revisions[1].Revision != 1 || !strings.HasPrefix(revisions[0].Digest, "sha256:") {
		a.t.Errorf("the revisions are %+v", revisions)
	}
	if got := a.run(nil, "rollback", "version"); got != (answer{exitOK, "", "Revision 1 serves now.\n"}) {
		a.t.Errorf("rollback: %+v", got)
	}
	says("one")
	table := strings.Split(a.faena("functions", "version"), "\n")
	if len(table) != 4 || !strings.HasPrefix(table[2], "1         yes ") || !strings.HasPrefix(table[1], "2             ") {
		a.t.Errorf("the table of revisions is\n%s", strings.Join(table, "\n"))
	}
	if strings.Count(table[2], "sha256:") != 1 || !strings.Contains(table[2], " "+s.registry+"/admin/version ") {
		a.t.Errorf("the image and its digest are not told once: %s", table[2])
	}
	words := strings.Fields(table[2])
	etag := words[len(words)-1]
	if strings.Contains(table[1], `"`) {
		a.t.Errorf("a revision that does not serve has an ETag: %s", table[1])
	}
	if got := a.run(nil, "rollback", "version", "--revision", "1", "--if-match", etag); got.code != exitOK {
		a.t.Errorf("rollback with the ETag %s of the table: %+v", etag, got)
	}
	if got := a.run(nil, "rollback", "version", "--revision", "2"); got.code != exitOK {
		a.t.Errorf("rollback to 2: %+v", got)
	}
	says("0:0")
	if f := decode[client.Function](a, "rollback", "version", "--revision", "1"); f.Name != "version" || f.Current != 1 {
		a.t.Errorf("rollback -o json: %+v", f)
	}
	if got := a.run(nil, "rollback", "version", "--revision", "9"); got.code != exitNotFound && got.code != exitInvalid {
		a.t.Errorf("rollback to what is not there: %+v", got)
	}
	if got := a.run(nil, "delete", "version", "--if-match", `"7"`); got.code != exitInvalid {
		a.t.Errorf("delete with another's ETag: %+v", got)
	}
	if got := a.run(nil, "delete", "version"); got.code != exitOK || got.out != "" {
		a.t.Errorf("delete: %+v", got)
	}
	for _, args := range [][]string{{"invoke", "version", "x"}, {"functions", "version"}, {"rollback", "version"}, {"delete", "version"}} {
		if got := a.run(nil, args...); got.code != exitNotFound || got.out != "" || !strings.Contains(got.err, "function_not_found") {
			a.t.Errorf("%s after that: %+v", args[0], got)
		}
	}
	for _, f := range decode[[]client.FunctionHead](a, "functions") {
		if f.Name == "version" {
			a.t.Error("it is still listed")
		}
	}
}

func testDeploy(a *account, s *site) {
	spec := filepath.Join(a.t.TempDir(), "spec.json")
	if err := os.WriteFile(spec, []byte(`{"timeout_ms": 7000, "input": "stdin", "memory_bytes": 33554432, "retries": 3, "warm": 2}`), 0o600); err != nil {
		a.t.Fatal(err)
	}
	got := a.run(nil, "deploy", "filed", "-f", spec, "--from-engine", s.image, "--input", "arg", "--retries", "0", "--warm", "0")
	if got.code != exitOK || !strings.HasPrefix(got.out, "FUNCTION  REVISION  DIGEST ") || !strings.Contains(got.err, "Pushing to ") {
		a.t.Fatalf("with a file: %+v", got)
	}
	r := decode[[]client.Revision](a, "functions", "filed")[0]
	*a.pulled = append(*a.pulled, r.Pull)
	if r.Spec.TimeoutMs != 7000 || r.Spec.Input != client.InputArg || r.Spec.MemoryBytes != 32<<20 || r.Spec.Retries != 0 || r.Spec.Warm != 0 {
		a.t.Errorf("the file and the flags give %+v", r.Spec)
	}
	if got := a.faena("invoke", "filed", "it runs"); got != "it runs" {
		a.t.Errorf("it answers %q", got)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"neither image", []string{"deploy", "f"}, exitUsage, "deploy needs one image"},
		{"both images", []string{"deploy", "f", "--image", "x", "--from-engine", s.image}, exitUsage, "deploy needs one image"},
		{"a bad size", []string{"deploy", "f", "--image", "x", "--memory", "1G"}, exitUsage, "--memory"},
		{"a bad pair", []string{"deploy", "f", "--image", "x", "-e", "A"}, exitUsage, "--env"},
		{"a bad duration", []string{"deploy", "f", "--image", "x", "--timeout", "5"}, exitUsage, "--timeout"},
		{"an absent file", []string{"deploy", "f", "-f", "/nonexistent/spec"}, exitFailed, "/nonexistent/spec"},
		{"an image that the engine has not", []string{"deploy", "f", "--from-engine", "faenatest/none:latest"}, exitFailed, `There is no image "faenatest/none:latest" in the Docker Engine at ` + faenatest.Engine(a.t).Host + "; docker images lists"},
		{"an image that is not there", []string{"deploy", "f", "--image", s.registry + "/admin/none:1"}, exitInvalid, "image_"},
		{"a name against the pattern", []string{"deploy", "Bad_Name", "--image", s.registry + "/admin/none:1"}, exitInvalid, "name"},
		{"such a name from the engine", []string{"deploy", "Bad_Name", "--from-engine", s.image}, exitUsage, "name"},
	} {
		if got := a.run(nil, c.args...); got.code != c.code || got.out != "" || !strings.Contains(got.err, c.want) {
			a.t.Errorf("%s: ends with %d, want %d and %q: %s", c.name, got.code, c.code, c.want, got.err)
		}
	}
	a.t.Run("out of range", func(t *testing.T) { testDeployRanges(a.of(t), s) })
	a.t.Run("no engine", func(t *testing.T) { testNoEngine(a.of(t), s) })
}

// What the API would refuse is refused before an image is read and sent, in the words of the flags.
func testDeployRanges(a *account, s *site) {
	spec := filepath.Join(a.t.TempDir(), "spec.json")
	if err := os.WriteFile(spec, []byte(`{"memory_bytes": 1024, "warm": 101}`), 0o600); err != nil {
		a.t.Fatal(err)
	}
	for flags, want := range map[string]string{
		"--memory 1KiB":                     "--memory is 1KiB, must be from 16MiB to 64GiB",
		"--memory 0":                        "--memory is 0, must be from 16MiB to 64GiB",
		"--timeout 50ms":                    "--timeout is 50ms, must be from 100ms to 10m",
		"--timeout 11m":                     "--timeout is 11m0s, must be from 100ms to 10m",
		"--timeout 100us":                   "--timeout is 100µs, must be from 100ms to 10m",
		"--cpus 0.01":                       "--cpus is 0.01, must be from 0.05 to 64",
		"--cpus NaN":                        "NaN",
		"--pids 5000":                       "--pids is 5000, must be from 1 to 4096",
		"--result-limit 65MiB":              "--result-limit is 65MiB, must be from 1 to 64MiB",
		"--tmpfs 1KiB --warm 101":           "--tmpfs is 1KiB, must be from 1MiB to 4GiB\n--warm is 101, must be from 0 to 100",
		"--retries 11":                      "--retries is 11, must be from 0 to 10",
		"--retries 0 --retry-on timeout":    "retries: is 0, so retry_on, retry_delay_ms and retry_max_delay_ms mean nothing",
		"--retries 1 --retry-on cancelled":  `retry_on[0]: is "cancelled", must be one of `,
		"--retries 1 --retry-max-delay 1ms": "--retry-max-delay is 1ms, must be from the delay to 1h",
		"--input tape":                      `input: is "tape", must be arg, stdin or both`,
		"-f " + spec:                        "memory_bytes: is 1024, must be from 16777216 to 68719476736 bytes",
		"-f " + spec + " --warm 101":        "--warm is 101, must be from 0 to 100",
	} {
		got := a.run(nil, append([]string{"deploy", "f", "--from-engine", s.image}, strings.Fields(flags)...)...)
		if got.code != exitInvalid || got.out != "" || !strings.HasPrefix(got.err, "faena: ") || !strings.Contains(got.err, want) || strings.Contains(got.err, "Reading") {
			a.t.Errorf("%s: %+v, want %q", flags, got, want)
		}
	}
}

// Where no Docker Engine answers, what uses one says how to name another.
func testNoEngine(a *account, s *site) {
	const want = "open the Docker Engine, which FAENA_DOCKER_HOST or DOCKER_HOST names: The container engine cannot be reached: " +
		"ask the engine for its version: Cannot connect to the Docker daemon at unix:///nonexistent/docker.sock. Is the docker daemon running?\n"
	for _, setting := range []string{"FAENA_DOCKER_HOST", "DOCKER_HOST"} {
		deploy := a.command(a.t.Context(), "faena", "deploy", "f", "--from-engine", s.image)
		deploy.Env = append(deploy.Env, setting+"=unix:///nonexistent/docker.sock")
		if got := a.finish(deploy, nil); got.code != exitFailed || got.err != "faena: "+want {
			a.t.Errorf("deploy with %s: %+v", setting, got)
		}
		doctor := a.command(a.t.Context(), "faena", "doctor")
		doctor.Env = append(doctor.Env, setting+"=unix:///nonexistent/docker.sock")
		// Columns are as wide as what else there is.
		if got := a.finish(doctor, nil); got.code != exitFailed || !strings.Contains(strings.Join(strings.Fields(got.out), " ")+" ", " docker engine BAD "+strings.TrimSpace(want)+" ") {
			a.t.Errorf("doctor with %s: %+v", setting, got)
		}
		up := newAccount(a.t).upCommand(a.t.Context(), setting+"=unix:///nonexistent/docker.sock")
		if got := a.finish(up, nil); got.code != exitFailed || !strings.HasSuffix(got.err, "faena: "+want) {
			a.t.Errorf("up with %s: %+v", setting, got)
		}
	}
}

func testUsers(a *account, s *site) {
	login := func(password string) answer {
		return a.run(strings.NewReader(password), "login", s.url, "--profile", "bob", "-u", "bob", "--password-stdin")
	}
	put := a.run(strings.NewReader("first-password\n"), "users", "put", "bob", "--limit", "default=1", "--password-stdin")
	if put != (answer{exitOK, "", "User bob: role user, limits default=1.\n"}) {
		a.t.Fatalf("put: %+v", put)
	}
	if got := login("first-password"); got.code != exitOK {
		a.t.Fatalf("login: %+v", got)
	}
	a.t.Run("a change leaves the rest", func(t *testing.T) { testUserChange(a.of(t), login) })
	for _, args := range [][]string{{"users"}, {"workers"}, {"users", "put", "eve"}, {"users", "delete", "admin", "--yes"}} {
		if got := a.run(nil, append(args, "--profile", "bob")...); got.code != exitUnauthenticated || got.out != "" {
			a.t.Errorf("who is no admin calls %s: %+v", strings.Join(args, " "), got)
		}
	}
	if got := a.run(strings.NewReader("second-password"), "users", "password", "--profile", "bob", "--password-stdin"); got != (answer{exitOK, "", "The password of bob is replaced.\n"}) {
		a.t.Errorf("password: %+v", got)
	}
	if got := a.faena("users", "usage", "--profile", "bob"); !strings.HasPrefix(got, "USER  ACTIVE  LIMIT  BACKLOG  COMPLETED  FAILED\nbob   0       1 ") {
		a.t.Errorf("with the password that the profile has now, usage is\n%s", got)
	}
	if got := login("first-password"); got.code != exitUnauthenticated {
		a.t.Errorf("with the password before: %+v", got)
	}
	found := false
	for _, u := range decode[[]client.User](a, "users") {
		found = found || u.Name == "bob" && u.Role == client.RoleUser && u.Groups["default"] == 1
	}
	if !found || !strings.Contains(a.faena("users"), "\nbob ") {
		a.t.Error("he is not listed")
	}
	a.t.Run("who deletes is asked", func(t *testing.T) { testUserDelete(a.of(t)) })
	if got := a.run(nil, "users", "delete", "bob", "--yes"); got.code != exitOK || got.out != "" || !strings.HasPrefix(got.err, "User bob is gone") {
		a.t.Errorf("delete: %+v", got)
	}
	if got := a.run(nil, "functions", "--profile", "bob"); got.code != exitUnauthenticated {
		a.t.Errorf("deleted, he calls: %+v", got)
	}
	if got := a.run(nil, "users", "usage", "nobody"); got.code != exitNotFound {
		a.t.Errorf("usage of nobody: %+v", got)
	}
}

// What no flag names stays as it is: the role, the limits, the password.
func testUserChange(a *account, login func(password string) answer) {
	for _, c := range []struct{ flags, want string }{
		{"--role admin", "User bob: role admin, limits default=1.\n"},
		{"--limit default=3", "User bob: role admin, limits default=3.\n"},
		{"", "User bob: role admin, limits default=3.\n"},
		{"--role user", "User bob: role user, limits default=3.\n"},
		{"--limit default=1", "User bob: role user, limits default=1.\n"},
	} {
		if got := a.run(nil, append([]string{"users", "put", "bob"}, strings.Fields(c.flags)...)...); got != (answer{exitOK, "", c.want}) {
			a.t.Errorf("put %s: %+v, want %q", c.flags, got, c.want)
		}
	}
	if got := login("first-password"); got.code != exitOK {
		a.t.Errorf("with the password that no flag named: %+v", got)
	}
	got := a.run(nil, "users", "put", "mute", "--limit", "default=2")
	if got.code != exitOK || !strings.HasPrefix(got.err, "User mute: role user, limits default=2.\n") || !strings.Contains(got.err, "faena users password mute\n") {
		a.t.Errorf("made without a password: %+v", got)
	}
	if got := a.run(nil, "users", "put", "mute"); strings.Contains(got.err, "password") { // whether it has one is not known
		a.t.Errorf("changed without a password: %+v", got)
	}
	if u := decode[client.User](a, "users", "put", "bob"); u.Name != "bob" || u.Groups["default"] != 1 {
		a.t.Errorf("put -o json: %+v", u)
	}
	for _, limit := range []string{"1", "default", "default=", "=1", "default=many"} {
		want := `faena: --limit is "` + limit + `", must be GROUP=NUMBER, for example default=20`
		if got := a.run(nil, "users", "put", "bob", "--limit", limit); got.code != exitUsage || !strings.HasPrefix(got.err, want) {
			a.t.Errorf("--limit %s: %+v", limit, got)
		}
	}
	if got := a.run(nil, "users", "put", "bob", "--limit", "default=0"); got.code != exitInvalid || !strings.Contains(got.err, "from 1 to 1000") {
		a.t.Errorf("--limit default=0: %+v", got)
	}
}

// Nothing is deleted without a yes, and there is one that no pipe gives by accident.
func testUserDelete(a *account) {
	if got := a.run(strings.NewReader("y\n"), "users", "delete", "bob"); got.code != exitUsage || !strings.Contains(got.err, "--yes") {
		a.t.Errorf("without a terminal: %+v", got)
	}
	for _, c := range []struct {
		name, user, typed string
		code              int
		says              string
	}{
		{"enter", "bob", "\n", exitFailed, "Nothing is changed."},
		{"no", "bob", "no\n", exitFailed, "Nothing is changed."},
		{"end of input", "bob", "\x04", exitFailed, "Nothing is changed."},
		{"Ctrl-C", "bob", "", exitInterrupted, ""},
		{"yes", "mute", "y\n", exitOK, "User mute is gone"},
	} {
		a.t.Run(c.name, func(t *testing.T) {
			a := a.of(t)
			master, slave := terminalPair(t)
			cmd := a.command(t.Context(), "faena", "users", "delete", c.user)
			var said text
			cmd.Stdin, cmd.Stderr = slave, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			faenatest.Eventually(t, 20*time.Second, "it asks", func() bool { return strings.HasSuffix(said.String(), "[y/N] ") })
			if c.typed == "" {
				send(t, cmd, os.Interrupt)
			} else if _, err := master.WriteString(c.typed); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // its exit code is looked at
			if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(said.String(), "Remove user "+c.user) || !strings.Contains(said.String(), c.says) {
				t.Errorf("it ends with %d, want %d and %q: %s", code, c.code, c.says, said.String())
			}
			there := strings.Contains(a.faena("users"), "\n"+c.user+" ")
			if deleted := c.code == exitOK; there == deleted {
				t.Errorf("he is there: %v", there)
			}
		})
	}
}

// A shell must be able to read what completion writes for it.
func testCompletion(a *account, _ *site) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := a.run(nil, "completion", shell); got.code != exitOK || !strings.Contains(got.out, "faena") || got.err != "" {
			a.t.Errorf("%s: %+v", shell, got)
		}
	}
	check := exec.CommandContext(a.t.Context(), "bash", "-n")
	check.Stdin = bytes.NewReader([]byte(a.faena("completion", "bash")))
	if out, err := check.CombinedOutput(); err != nil {
		a.t.Errorf("bash does not take it: %v: %s", err, out)
	}
	if got := a.faena("__complete", "logs", "--f"); !strings.HasPrefix(got, "--follow\t") {
		a.t.Errorf("logs --f is completed with %q", got)
	}
}
