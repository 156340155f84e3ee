package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// written are the files below a directory, by their names.
func written(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string, len(entries))
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(text)
	}
	return files
}

func TestGendocs(t *testing.T) {
	man, completions := filepath.Join(t.TempDir(), "man"), filepath.Join(t.TempDir(), "completions")
	if err := run([]string{"-man", man, "-completions", completions}); err != nil {
		t.Fatal(err)
	}
	pages, shells := written(t, man), written(t, completions)
	for page, words := range map[string][]string{
		"faena.1":               {`.TH "FAENA" "1" "" "Faena" "Faena"`, "of invoke: the function succeeded", "faena-invoke(1)"},
		"faena-invoke.1":        {"--idempotency-key", "faena invoke NAME"},
		"faena-groups-put.1":    {"faena groups put"},
		"faena-api.8":           {`.TH "FAENA-API" "8" "" "Faena" "Faena"`, "admin create NAME", "/etc/faena/api.env", "check-config"},
		"faena-worker.8":        {"keygen", "/etc/faena/worker.env", "check-config"},
		"faena-users-usage.1":   nil,
		"faena-deadletters.1":   nil,
		"faena-workers-drain.1": nil,
	} {
		text, ok := pages[page]
		if !ok {
			t.Errorf("there is no page %s", page)
		}
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%s does not have %q", page, w)
			}
		}
	}
	for file, word := range map[string]string{"faena.bash": "__start_faena", "_faena": "#compdef faena", "faena.fish": "complete -c faena"} {
		if !strings.Contains(shells[file], word) {
			t.Errorf("%s does not have %q", file, word)
		}
	}
	t.Run("twice the same", func(t *testing.T) {
		t.Setenv("FAENA_PROFILE", "another")
		t.Setenv("FAENA_DATA_DIR", "/srv/another")
		again := t.TempDir()
		if err := run([]string{"-man", again, "-completions", again}); err != nil {
			t.Fatal(err)
		}
		both := written(t, again)
		if len(both) != len(pages)+len(shells) {
			t.Errorf("%d files are %d another time", len(pages)+len(shells), len(both))
		}
		for name, text := range both {
			if pages[name] != text && shells[name] != text {
				t.Errorf("%s is another one", name)
			}
		}
	})
}

// TestPrograms_AreWithoutTheirManual sees that what writes the pages is in no program.
func TestPrograms_AreWithoutTheirManual(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "faena.dev/faena/cmd/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "github.com/spf13/cobra\n") {
		t.Fatal("the list of packages is not what it must be")
	}
	for line := range strings.Lines(string(out)) {
		for _, bad := range []string{"github.com/spf13/cobra/doc", "go-md2man", "blackfriday"} {
			if strings.Contains(line, bad) {
				t.Errorf("a program is made of %s", line)
			}
		}
	}
}
