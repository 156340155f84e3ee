//go:build packages

package packages_test

import (
	"strings"
	"testing"
)

// testShell is what root types on a host with the packages, and what that means beside the services.
func testShell(t *testing.T, h *host) {
	for _, daemon := range []string{"api", "worker"} {
		t.Run("settings of the "+daemon, func(t *testing.T) { testShellCheck(t, h, daemon) })
	}
	t.Run("second appliance", func(t *testing.T) {
		if out, err := h.Try(t.Context(), "timeout 20 faena up 2>&1"); err == nil || !strings.Contains(out, "faena-api.service") || !strings.Contains(out, "FAENA_DATA_DIR") {
			t.Errorf("it ends with %v: %s", err, out)
		}
	})
	h.works(t)
}

// testShellCheck takes what --check-config prints in a shell: that command finds what is wrong in the file of the unit, and nothing where all is well.
func testShellCheck(t *testing.T, h *host, daemon string) {
	file := "/etc/faena/" + daemon + ".env"
	said, _ := h.Try(t.Context(), "faena-"+daemon+" --check-config 2>&1")
	_, command, found := strings.Cut(said, "\n  systemd-run ")
	if !found {
		t.Fatalf("there is no command in %q", said)
	}
	command = "systemd-run " + strings.TrimSpace(command)
	if out, err := h.Try(t.Context(), command+" 2>&1"); err != nil || out != "" {
		t.Errorf("of good settings it says %q, %v", out, err)
	}
	h.Run(t, "cp -a "+file+" /root/shell.env; echo FAENA_COLOUR=red >>"+file)
	defer h.Run(t, "cp -a /root/shell.env "+file)
	out, err := h.Try(t.Context(), command+" 2>&1 || echo it ends with $?")
	if err != nil || !strings.Contains(out, "faena-"+daemon+": FAENA_COLOUR is no setting") || !strings.HasSuffix(out, "it ends with 3\n") {
		t.Errorf("of bad settings it says %q, %v", out, err)
	}
}
