package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is wrong with a backup or a restore is said before anything is touched.
func TestBackup_Refused(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
	words, empty, out := file("words", "correct horse\n"), file("empty", "\n"), filepath.Join(dir, "out.age")
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"backup", exitUsage, ""},
		{"backup " + out, exitUsage, "nothing to encrypt it with"},
		{"backup " + out + " --recipient age1x", exitUsage, "is no age recipient"},
		{"backup " + out + " --recipient " + recipient + " --passphrase-file " + words, exitUsage, "not both"},
		{"backup " + out + " --passphrase-file " + empty, exitUsage, "not empty"},
		{"backup " + out + " --passphrase-file " + words + ".not", exitFailed, "read the passphrase"},
		{"backup " + out + " --recipient " + recipient + " --socket " + dir + "/no.sock", exitFailed, "FAENA_ADMIN_SOCKET"},
		{"backup " + words + " --recipient " + recipient, exitFailed, "words is there already: give another name, or --force"},
		{"backup " + words + " --force --recipient " + recipient + " --socket " + dir + "/no.sock", exitFailed, "FAENA_ADMIN_SOCKET"},
		{"backup " + dir + "/no/out.age --recipient " + recipient, exitFailed, "no such file"},
		{"restore " + out, exitUsage, "nothing to open it with"},
		{"restore " + out + " --identity " + words, exitUsage, "no age identity"},
		{"restore " + out + " --passphrase-file " + words, exitFailed, "out.age: no such file"},
		{"restore " + words + " --passphrase-file " + words, exitFailed, "no whole backup"},
	} {
		got := a.run(nil, strings.Fields(c.args)...)
		if got.code != c.code || !strings.Contains(got.err, c.says) || strings.Contains(got.err, "horse") || got.out != "" {
			t.Errorf("faena %s ends with %d, want %d and %q: %s%s", c.args, got.code, c.code, c.says, got.out, got.err)
		}
	}
	if text, err := os.ReadFile(words); err != nil || string(text) != "correct horse\n" {
		t.Errorf("what was there is %q, %v", text, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "out*")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	if os.Geteuid() == 0 { // whoever else runs the tests was refused above
		if err := os.Chmod(programs, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{"backup out --recipient " + recipient, "restore in --passphrase-file " + words} {
		cmd := a.command(t.Context(), "faena", strings.Fields(args)...)
		cmd.Dir = "/"
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		if got := a.finish(cmd, nil); got.code != exitFailed || !strings.Contains(got.err, "only root") {
			t.Errorf("faena %s of somebody else ends with %d: %s", args, got.code, got.err)
		}
	}
}
