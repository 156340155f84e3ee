//go:build packages

package packages_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// withinAMinute is how soon after its installation a host has run something.
const withinAMinute = time.Minute

// TestOneHost goes the way of docs/install.md on a host that reaches nothing, and goes on there: what the units may not do, what is wrong with
// settings, and what dies.
func TestOneHost(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	h := s.host(t, "one")
	install(t, h)
	t.Run("hardening", func(t *testing.T) { testHardening(t, h) })
	t.Run("deaths", func(t *testing.T) { testDeaths(t, h) })
	t.Run("wrong", func(t *testing.T) { testWrong(t, h) })
	t.Run("shell", func(t *testing.T) { testShell(t, h) })
	t.Run("one host", func(t *testing.T) { testOneHostUnit(t, h) })
	t.Run("full", func(t *testing.T) { testFull(t, h) })
	t.Run("starts", func(t *testing.T) { testStarts(t, h) })
	t.Run("registries", func(t *testing.T) { testRegistries(t, h) })
}

// install runs every command of docs/install.md as it stands there, one block after the other. Only the image is another one: there is no
// internet.
func install(t *testing.T, h *host) {
	image := h.site.push(t, filepath.Join("testdata", "echo.c"))
	var installed time.Time
	for n, block := range blocks(t, filepath.Join(faenatest.SourceDir(t), "..", "docs", "install.md")) {
		first, _, _ := strings.Cut(block, "\n")
		ok := t.Run(fmt.Sprintf("install/%d %s", n+1, first), func(t *testing.T) {
			began := time.Now()
			out := h.Run(t, "cd /root\n"+strings.ReplaceAll(block, "docker.io/library/busybox:1.37", image))
			t.Logf("%v\n%s", time.Since(began).Round(time.Millisecond), out)
			switch {
			case strings.Contains(block, "install --yes faena"):
				installed = time.Now()
			case strings.Contains(block, "systemctl status"):
				for _, want := range []string{"Status: \"takes activations", "Active: active (running)"} {
					if !strings.Contains(out, want) {
						t.Errorf("the status says nowhere %q", want)
					}
				}
			case strings.Contains(block, "faena deploy"):
				if !strings.Contains(out, "good morning\n") {
					t.Error("the result is not the parameter")
				}
				if took := time.Since(installed); took > withinAMinute {
					t.Errorf("the first activation had ended %v after the installation, which may take %v", took, withinAMinute)
				}
			case strings.Contains(block, "journalctl"):
				if !strings.Contains(out, "faena-worker[") {
					t.Error("the journal has nothing of the activation")
				}
				testFields(t, h)
			}
		})
		if !ok {
			t.FailNow() // nothing of what follows can work
		}
	}
}

// testFields looks for lines of the daemons by the fields that they have.
func testFields(t *testing.T, h *host) {
	t.Helper()
	for _, fields := range []string{"USER=admin FUNCTION=hello WORKER=one _SYSTEMD_UNIT=faena-worker.service", "USER=admin METHOD=PUT STATUS=201 _SYSTEMD_UNIT=faena-api.service"} {
		if out, err := h.Try(t.Context(), "journalctl --no-pager --lines 1 --output cat "+fields); err != nil || out == "" || strings.Contains(out, "No entries") {
			t.Errorf("the journal has no line with %s: %q, %v", fields, out, err)
		}
	}
}

var fence = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// blocks are the commands of a document.
func blocks(t *testing.T, document string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range fence.FindAllStringSubmatch(string(text), -1) {
		list = append(list, b[1])
	}
	if len(list) == 0 {
		t.Fatalf("%s has no commands", document)
	}
	return list
}
