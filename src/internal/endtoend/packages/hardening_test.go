//go:build packages

package packages_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"faena.dev/faena/internal/faenatest"
)

// daemon is one of a host's daemons, and what it may do beyond its own state, its own /tmp and the internet.
type daemon struct {
	name         string
	capabilities uint64   // CapEff, CapBnd
	exposure     float64  // of systemd-analyze security, at most
	other        string   // whose state it must not see
	may          []string // of the probe's names
}

const netAdmin = 1 << 12 // CAP_NET_ADMIN

var daemons = []daemon{
	{"faena-api", 0, 2.0, "faena-nats", nil},
	{"faena-nats", 0, 2.0, "faena-api", nil},
	{"faena-worker", netAdmin, 2.0, "faena-api", []string{"speak to the Docker Engine", "netlink socket", "change an interface", "see other processes"}},
}

// own is what each daemon can do, and the probe must be able to in each unit: otherwise it shows nothing.
var own = []string{"own state", "own /tmp", "internet socket"}

func testHardening(t *testing.T, h *host) {
	program, err := os.ReadFile(faenatest.CProgram(t, filepath.Join("testdata", "probe.c")))
	if err != nil {
		t.Fatal(err)
	}
	h.Put(t, "/usr/local/bin/faena-probe", "0755", string(program))
	h.Put(t, "/home/ada/secret", "0644", "secret\n")
	// What root can do without a unit: only that can be forbidden by one. A container has not all that a host of its own would have.
	unbound := tried(t, h.Run(t, "mkdir -p /var/lib/probe && faena-probe /var/lib/probe /var/lib/faena-api"))
	if n := len(unbound); n < 25 {
		t.Errorf("root itself can do only %d of what is tried: %v", n, unbound)
	}
	for _, d := range daemons {
		t.Run(d.name+"/process", func(t *testing.T) { testProcess(t, h, d) })
		t.Run(d.name+"/security", func(t *testing.T) { testExposure(t, h, d) })
		t.Run(d.name+"/probe", func(t *testing.T) { testProbe(t, h, d) })
	}
	for _, unit := range []string{"faena-one-host.service", "faena-one-host-group.service", "faena-nats-watch.service"} {
		t.Run(unit+"/security", func(t *testing.T) { testExposure(t, h, daemon{name: unit, exposure: 3.5}) })
	}
}

// tried are the names of what the probe could do.
func tried(t *testing.T, out string) (done []string) {
	t.Helper()
	for line := range strings.Lines(out) {
		name, result, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok && result == "done" {
			done = append(done, name)
		}
	}
	return done
}

// testProcess looks at what the kernel says of a daemon.
func testProcess(t *testing.T, h *host, d daemon) {
	status := h.Run(t, "cat /proc/"+h.property(t, d.name, "MainPID")+"/status")
	field := func(name string) string {
		_, rest, _ := strings.Cut(status, "\n"+name+":")
		line, _, _ := strings.Cut(rest, "\n")
		return strings.TrimSpace(line)
	}
	for _, name := range []string{"CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh"} {
		if got, err := strconv.ParseUint(field(name), 16, 64); err != nil || got != d.capabilities {
			t.Errorf("%s is %s, want %016x", name, field(name), d.capabilities)
		}
	}
	if got := field("NoNewPrivs"); got != "1" {
		t.Errorf("NoNewPrivs is %q", got)
	}
	if got := field("Seccomp"); got != "2" {
		t.Errorf("Seccomp is %q", got)
	}
	if got := strings.Fields(field("Uid")); len(got) != 4 || slices.Contains(got, "0") {
		t.Errorf("its user ids are %v", got)
	}
}

func testExposure(t *testing.T, h *host, d daemon) {
	out := h.Run(t, "systemd-analyze security --no-pager "+d.name)
	_, rest, _ := strings.Cut(out, "Overall exposure level for ")
	_, level, _ := strings.Cut(rest, ": ")
	if got, err := strconv.ParseFloat(strings.Fields(level + " ?")[0], 64); err != nil || got > d.exposure {
		t.Errorf("the exposure level is %s, want %v at most:\n%s", level, d.exposure, out)
	} else {
		t.Logf("the exposure level is %v", got)
	}
}

// testProbe runs the probe with everything that the daemon's unit says but what is to be run.
func testProbe(t *testing.T, h *host, d daemon) {
	h.Run(t, fmt.Sprintf(`sed -e '/^\(ExecStartPre\|ExecReload\|ExecStopPost\|Restart\|WatchdogSec\|Condition\|TimeoutSt\)/d' -e 's/^Type=.*/Type=oneshot\nStandardOutput=truncate:\/run\/probe.out/' \
			-e 's,^RuntimeDirectory=.*,RuntimeDirectory=faena-probe,' -e 's,^ExecStart=.*,ExecStart=/usr/local/bin/faena-probe /var/lib/%[1]s /var/lib/%[2]s,' \
			/usr/lib/systemd/system/%[1]s.service >/run/systemd/system/faena-probe.service
		systemctl daemon-reload; systemctl start faena-probe`, d.name, d.other))
	out := h.Run(t, "cat /run/probe.out")
	done := tried(t, out)
	may := slices.Concat(own, d.may)
	for _, name := range done {
		if !slices.Contains(may, name) {
			t.Errorf("it can: %s", name)
		}
	}
	for _, name := range may {
		if !slices.Contains(done, name) {
			t.Errorf("it cannot: %s", name)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}
