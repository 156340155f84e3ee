package buildinfo

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	clean := []debug.BuildSetting{{Key: "vcs.revision", Value: "abcdef"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}}
	dirty := append(clean[:2:2], debug.BuildSetting{Key: "vcs.modified", Value: "true"})
	platform := " go1.26 " + runtime.GOOS + "/" + runtime.GOARCH
	for _, c := range []struct {
		name, linked string
		module       debug.BuildInfo
		want         string
	}{
		{"a release", "v1.2.3", debug.BuildInfo{GoVersion: "go1.26", Settings: clean}, "faena v1.2.3 (abcdef, 2026-01-02T03:04:05Z)"},
		{"a changed tree", "v1.2.3-4-gabcdef-dirty", debug.BuildInfo{GoVersion: "go1.26", Settings: dirty},
			"faena v1.2.3-4-gabcdef-dirty (abcdef-dirty, 2026-01-02T03:04:05Z)"},
		{"go install of a version", "", debug.BuildInfo{GoVersion: "go1.26", Main: debug.Module{Version: "v1.2.2"}}, "faena v1.2.2"},
		{"nothing known", "", debug.BuildInfo{GoVersion: "go1.26"}, "faena (devel)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := describe(c.linked, &c.module).Text("faena"); got != c.want+platform {
				t.Errorf("it is %q, want %q", got, c.want+platform)
			}
		})
	}
}

func TestRead(t *testing.T) {
	i := Read()
	if i.Version == "" || i.GoVersion != runtime.Version() {
		t.Errorf("the test was built from %+v", i)
	}
	t.Log(i.Text("test"))
}

// The Makefile passes the variable's name to the linker, which says nothing where it does not exist.
func TestVersion_IsSetByTheLinker(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join("..", "..", "..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	const variable = "-X faena.dev/faena/internal/buildinfo.version="
	if !strings.Contains(string(makefile), variable) {
		t.Errorf("the Makefile does not pass %s", variable)
	}
	binary := filepath.Join(t.TempDir(), "tests")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, "-ldflags", variable+"v9.9.9", ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), binary, "-test.run=^TestRead$", "-test.v").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "test v9.9.9 ") {
		t.Errorf("a program linked as v9.9.9 says %s, %v", out, err)
	}
}
