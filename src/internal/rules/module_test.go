package rules

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestModule_ReplacesNothing(t *testing.T) {
	for _, name := range []string{"go.mod", "tools/go.mod"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word == "replace" || word == "exclude" {
				t.Errorf("%s: %s: what is built must be what others get", name, strings.TrimSpace(line))
			}
		}
	}
}

// docs/dependencies.md has a row for each module that is imported, tests included, and for no other.
func TestModule_DependenciesAreExplained(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "..", "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ := strings.Cut(rest, "`")
			explained = append(explained, name)
		}
	}
	for _, f := range source(t) {
		for _, path := range f.imports() {
			if std(path) || strings.HasPrefix(path, module+"/") {
				continue
			}
			if !slices.ContainsFunc(explained, func(name string) bool { return path == name || strings.HasPrefix(path, name+"/") }) {
				t.Errorf("%s imports %s, which docs/dependencies.md does not explain", f.path, path)
			}
		}
	}
	for name := range mayUse {
		if !slices.Contains(explained, name) {
			t.Errorf("docs/dependencies.md does not explain %s", name)
		}
	}
}
