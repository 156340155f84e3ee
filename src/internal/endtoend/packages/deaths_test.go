//go:build packages

package packages_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/endtoend/hosts"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/tools/chaos/load"
)

// backWithin is how soon a daemon that died runs again: RestartSec=2, and what a busy machine needs.
const backWithin = 20 * time.Second

// testDeaths kills each daemon, and lets each hang that systemd watches.
func testDeaths(t *testing.T, h *host) {
	for _, d := range daemons {
		t.Run(d.name+"/killed", func(t *testing.T) {
			before := h.died(t, d.name)
			h.Run(t, "systemctl kill --kill-who=main --signal KILL "+d.name)
			h.back(t, d.name, before, backWithin)
			h.works(t)
		})
	}
	for _, d := range []string{"faena-api", "faena-worker"} { // nats-server does not speak to systemd
		t.Run(d+"/hangs", func(t *testing.T) { testHangs(t, h, d) })
	}
}

// testHangs has a daemon watched more closely than usual, sees that it tells systemd that it lives, and stops it from doing so.
func testHangs(t *testing.T, h *host, unit string) {
	h.Put(t, "/run/systemd/system/"+unit+".service.d/watchdog.conf", "0644", "[Service]\nWatchdogSec=3\n")
	h.Run(t, "systemctl daemon-reload; systemctl restart "+unit)
	before := h.died(t, unit)
	fed := map[string]bool{}
	faenatest.Eventually(t, time.Minute, unit+" says that it lives, again and again", func() bool {
		fed[h.property(t, unit, "WatchdogTimestampMonotonic")] = true
		return len(fed) > 5
	})
	if now := h.died(t, unit); now != before {
		t.Fatalf("it was %v, and is %v, although nothing was wrong", before, now)
	}
	h.Run(t, "systemctl kill --kill-who=main --signal STOP "+unit)
	h.back(t, unit, before, 3*time.Second+backWithin)
	if out := h.Run(t, "journalctl --no-pager -o cat -u "+unit); !strings.Contains(out, "Watchdog timeout") {
		t.Error("the journal has nothing of the watchdog")
	}
	h.Run(t, fmt.Sprintf("rm -r /run/systemd/system/%[1]s.service.d; systemctl daemon-reload; systemctl restart %[1]s", unit))
	h.works(t)
}

// life is which process a unit has, and how often systemd has started it again by itself.
type life struct{ pid, restarts string }

func (h *host) died(t testing.TB, unit string) life {
	t.Helper()
	return life{h.property(t, unit, "MainPID"), h.property(t, unit, "NRestarts")}
}

// back waits until a unit runs as another process, which systemd has started.
func (h *host) back(t testing.TB, unit string, before life, within time.Duration) {
	t.Helper()
	began := time.Now()
	faenatest.EventuallyNil(t, within, unit+" runs again", func() error {
		now, state := h.died(t, unit), h.property(t, unit, "SubState")
		if now.pid == before.pid || now.restarts == before.restarts || state != "running" {
			return fmt.Errorf("it was %v and is %v, %s", before, now, state)
		}
		return nil
	})
	t.Logf("%s ran again after %v", unit, time.Since(began).Round(100*time.Millisecond))
}

// works waits until the function of docs/install.md gives its result.
func (h *host) works(t testing.TB) {
	t.Helper()
	faenatest.EventuallyNil(t, time.Minute, "an activation", func() error {
		out, err := h.Try(t.Context(), "faena invoke hello 'good evening'")
		if err == nil && out != "good evening\n" {
			t.Fatalf("the result is %q", out)
		}
		return err
	})
}

// admin is the first admin, with the password that docs/install.md has put into a file.
func (h *host) admin(t testing.TB) load.User {
	t.Helper()
	return load.User{Name: "admin", Password: strings.TrimSpace(h.Run(t, "cat /root/admin.password"))}
}

// testStarts ends the whole host under load, orderly and at once, and starts it again. What was accepted is there, ends, and is run once; of an
// orderly end nothing is lost either.
func testStarts(t *testing.T, h *host) {
	if pid := h.property(t, "faena-nats", "MainPID"); !strings.Contains(h.Run(t, "tr '\\0' '\\n' </proc/"+pid+"/environ"), "FAENA_NATS_SYNC=always\n") {
		t.Error("what is acknowledged may not be on disk")
	}
	x := h.traffic(t, h.admin(t), 1)
	for _, end := range []struct {
		name  string
		of    func(*hosts.Host, testing.TB)
		gives bool // time to end what runs
	}{{"reboot", (*hosts.Host).Reboot, true}, {"power cut", (*hosts.Host).PowerCut, false}} {
		t.Run(end.name, func(t *testing.T) {
			x.flows(t, time.Now(), 20)
			lost, at := x.history.Numbers().WorkerLost, time.Now()
			end.of(h.Host, t)
			up := time.Now()
			x.flows(t, up, 20)
			t.Logf("the host was up after %v, and served %v later", up.Sub(at).Round(time.Second), time.Since(up).Round(time.Second))
			faenatest.EventuallyNil(t, 90*time.Second, "what was accepted before has ended", func() error {
				if open := x.history.Unsettled(at); len(open) > 0 {
					return fmt.Errorf("these have not: %v", open)
				}
				return nil
			})
			if n := x.history.Numbers().WorkerLost - lost; end.gives && n > 0 {
				t.Errorf("%d activations were lost", n)
			}
		})
	}
	x.settle(t)
	// Where units are ordered in a circle systemd leaves one of them out, another one each time.
	if out := h.Run(t, "journalctl --no-pager --output cat | grep -i 'ordering cycle' || true"); out != "" {
		t.Errorf("the order of the units is none:\n%s", out)
	}
}
