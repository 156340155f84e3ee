package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/faenatest"
)

func testLogin(a *account, s *site) {
	logins := filepath.Join(a.home, ".config", "faena")
	mayRead := func(t *testing.T, path string, want os.FileMode) {
		t.Helper()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v, %v", path, info.Mode().Perm(), want, err)
		}
	}
	login := func(a *account, profile, user, password string) answer {
		return a.run(strings.NewReader(password+"\n"), "login", s.url, "--profile", profile, "--user", user, "--password-stdin")
	}
	a.t.Run("up logs its first admin in", func(t *testing.T) {
		mayRead(t, logins, 0o700)
		mayRead(t, filepath.Join(logins, "default.json"), 0o600)
		mayRead(t, filepath.Join(a.data, "admin.password"), 0o600)
		if said := s.said.String(); strings.Contains(said, a.password()) {
			t.Errorf("the password is among what it says: %s", said)
		}
	})
	a.t.Run("each profile is a login of its own", func(t *testing.T) {
		a := a.of(t)
		a.run(strings.NewReader("a-password-of-ada\n"), "users", "put", "ada", "--password-stdin")
		if got := login(a, "ada", "ada", "a-password-of-ada"); got.code != exitOK || got.out != "" {
			t.Fatalf("login ends with %d: %s", got.code, got.err)
		}
		mayRead(t, filepath.Join(logins, "ada.json"), 0o600)
		if got := a.faena("users", "usage", "--profile", "ada"); !strings.Contains(got, "\nada ") {
			t.Errorf("with --profile it is not ada who calls: %s", got)
		}
		if got := a.faena("users", "usage"); !strings.Contains(got, "\nadmin ") {
			t.Errorf("without it is not the admin who calls: %s", got)
		}
		cmd := a.command(t.Context(), "faena", "users", "usage")
		cmd.Env = append(cmd.Env, "FAENA_PROFILE=ada")
		if got := a.finish(cmd, nil); !strings.Contains(got.out, "\nada ") {
			t.Errorf("with FAENA_PROFILE it is not ada who calls: %+v", got)
		}
	})
	a.t.Run("a wrong password is not kept", func(t *testing.T) {
		got := login(a.of(t), "wrong", "admin", "not-"+a.password())
		if _, err := os.Stat(filepath.Join(logins, "wrong.json")); got.code != exitUnauthenticated || got.out != "" || err == nil {
			t.Errorf("login ends with %d, %v: %s", got.code, err, got.err)
		}
		if strings.Contains(got.err, a.password()) {
			t.Errorf("the password is among what it says: %s", got.err)
		}
	})
	a.t.Run("a password is asked for without showing it", func(t *testing.T) { testPrompt(a.of(t), s.url) })
	a.t.Run("Ctrl-C at that question", func(t *testing.T) { testPromptInterrupted(a.of(t), s.url) })
	a.t.Run("a login that cannot be used", func(t *testing.T) { testBadLogins(a.of(t), logins) })
}

func testBadLogins(a *account, logins string) {
	if err := os.WriteFile(filepath.Join(logins, "open.json"), []byte(`{}`), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(logins, "open.json"), 0o640); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(logins, "broken.json"), []byte(`{`), 0o600); err != nil {
		a.t.Fatal(err)
	}
	for _, c := range []struct {
		name, profile string
		code          int
		want          string
	}{
		{"none", "none", exitUnauthenticated, `there is no login "none"`},
		{"others may read it", "open", exitUnauthenticated, "open.json"},
		{"it is broken", "broken", exitFailed, "broken.json"},
		{"a name that is a path", "../x", exitUsage, "--profile"},
	} {
		a.t.Run(c.name, func(t *testing.T) {
			got := a.of(t).run(nil, "functions", "--profile", c.profile)
			if got.code != c.code || got.out != "" || !strings.Contains(got.err, c.want) {
				t.Errorf("it ends with %d, want %d and %q: %s", got.code, c.code, c.want, got.err)
			}
		})
	}
}

// testPrompt types the password at a terminal.
func testPrompt(a *account, url string) {
	master, slave := terminalPair(a.t)
	cmd := a.command(a.t.Context(), "faena", "login", url, "--profile", "typed", "--user", "admin")
	var said text
	cmd.Stdin, cmd.Stderr = slave, &said
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	faenatest.EventuallyNil(a.t, 20*time.Second, "it asks, and shows nothing of what is typed", func() error {
		mode, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err == nil && (said.String() != "Password of admin: " || mode.Lflag&unix.ECHO != 0) {
			err = fmt.Errorf("it says %q, local modes %#x", said.String(), mode.Lflag)
		}
		return err
	})
	if _, err := fmt.Fprintln(master, a.password()); err != nil {
		a.t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		a.t.Errorf("login: %v: %s", err, said.String())
	}
	if a.run(nil, "functions", "--profile", "typed").code != exitOK {
		a.t.Error("the login is of no use")
	}
	_ = slave.Close() // ends what is read of the other end
	if shown, _ := io.ReadAll(master); strings.Contains(string(shown)+said.String(), a.password()) {
		a.t.Errorf("the password is shown: %q", shown)
	}
}

// Ctrl-C at the question ends the command, with the terminal as it was.
func testPromptInterrupted(a *account, url string) {
	_, slave := terminalPair(a.t)
	was, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		a.t.Fatal(err)
	}
	cmd := a.command(a.t.Context(), "faena", "login", url, "--profile", "given-up", "--user", "admin")
	var said text
	cmd.Stdin, cmd.Stderr = slave, &said
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	faenatest.Eventually(a.t, 20*time.Second, "nothing is shown of what is typed", func() bool {
		mode, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		return err == nil && mode.Lflag&unix.ECHO == 0
	})
	send(a.t, cmd, os.Interrupt)
	_ = cmd.Wait() // its exit code is looked at
	is, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || err != nil || *is != *was {
		a.t.Errorf("it ends with %d, %v; the terminal was %+v and is %+v: %s", code, err, *was, *is, said.String())
	}
}

// terminalPair makes a pseudo-terminal.
func terminalPair(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

// takesPassword finds, in a command's help, a flag for a password that is followed by the type of its value. The name of a file is none.
var takesPassword = regexp.MustCompile(`--\S*(pass|secret|token|credential)\S* \S+`)

const namesFile = "-file FILE"

// Other users of a host see the arguments of every process: no flag may take a password.
func TestNoPasswordInArguments(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, flag := range takesPassword.FindAllString(c.Flags().FlagUsages(), -1) {
			if !strings.HasSuffix(flag, namesFile) {
				t.Errorf("%s has %s", c.CommandPath(), flag)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{terminal: &terminal{}}).root())
	a := newAccount(t)
	for _, args := range [][]string{
		{"login", "http://127.0.0.1:1", "-u", "admin", "--password", "hunter2"},
		{"login", "http://127.0.0.1:1", "admin", "hunter2"},
		{"login", "http://admin:hunter2@127.0.0.1:1", "-u", "admin", "--password-stdin"},
		{"users", "put", "ada", "hunter2"},
		{"users", "password", "ada", "hunter2"},
	} {
		if got := a.run(strings.NewReader("x\n"), args...); got.code != exitUsage || strings.Contains(got.err, "hunter2") {
			t.Errorf("faena %s ends with %d, want %d: %s", strings.Join(args, " "), got.code, exitUsage, got.err)
		}
	}
}

// The first admin is logged in without taking a login to another appliance away; without a home the appliance is up all
// the same.
func TestUp_FirstLogin(t *testing.T) {
	t.Parallel()
	t.Run("there is another", func(t *testing.T) {
		a := newAccount(t)
		path := filepath.Join(a.home, ".config", "faena", "default.json")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		other := `{"url": "https://faena.example.org", "username": "ada", "password": "x"}`
		if err := os.WriteFile(path, []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
		u := a.up()
		if text, err := os.ReadFile(path); err != nil || string(text) != other {
			t.Errorf("the login is now %s, %v", text, err)
		}
		canLogIn(a, u)
	})
	t.Run("there is no home", func(t *testing.T) {
		a := newAccount(t)
		u := a.up("HOME=")
		canLogIn(a, u)
	})
}

// canLogIn follows what `faena up` says where it has logged nobody in.
func canLogIn(a *account, u *appliance) {
	a.t.Helper()
	_, said, found := strings.Cut(u.said.String(), "To log in: faena ")
	line, _, _ := strings.Cut(said, "\n")
	command, file, redirected := strings.Cut(strings.Replace(line, "NAME", "here", 1), " < ")
	if !found || !redirected {
		a.t.Fatalf("it does not say how to log in: %s", u.said.String())
	}
	password, err := os.Open(file)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = password.Close() }()
	if got := a.run(password, strings.Fields(command)...); got.code != exitOK {
		a.t.Errorf("faena %s: %+v", command, got)
	}
	faenatest.EventuallyNil(a.t, 20*time.Second, "the login that it led to is good, and so is the appliance", func() error { // its worker may still start
		if got := a.run(nil, "doctor", "--profile", "here"); got.code != exitOK {
			return fmt.Errorf("the doctor says %+v", got)
		}
		return nil
	})
}
