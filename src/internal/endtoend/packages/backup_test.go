//go:build packages

package packages_test

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// TestBackup backs a host up while it is called, and makes another one of it, by the commands of docs/operations.md.
func TestBackup(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	from, to := s.host(t, "from"), s.host(t, "to")
	steps := blocks(t, filepath.Join(faenatest.SourceDir(t), "..", "docs", "install.md"))
	from.Run(t, "cd /root\n"+steps[0])
	from.Run(t, `cd /root; umask 077; faena-api admin create admin >admin.password; echo 'correct horse' >words
		faena login https://localhost:8443 --user admin --cacert /etc/faena/tls/ca.pem --password-stdin <admin.password
		faena deploy hello --image `+s.push(t, filepath.Join("testdata", "echo.c"))+` --command echo`)
	from.works(t)
	ended := strings.Fields(from.Run(t, "faena activations -o json | grep -om1 '\"activation_id\": *\"[^\"]*\"' | cut -d '\"' -f 4"))[0]
	x := from.traffic(t, from.admin(t), 7)
	x.flows(t, x.began, 20)
	began := time.Now()
	from.Run(t, "faena backup --passphrase-file /root/words /root/backup.age")
	t.Logf("the backup took %v, and is of %s bytes", time.Since(began).Round(time.Millisecond), strings.TrimSpace(from.Run(t, "stat -c %s /root/backup.age")))
	x.flows(t, time.Now(), 20)
	x.unnoticed(t, x.settle(t))
	whole := from.Run(t, "base64 -w0 /root/backup.age")
	text, err := base64.StdEncoding.DecodeString(whole)
	if err != nil {
		t.Fatal(err)
	}
	live := from.live(t)
	from.Run(t, "systemctl stop faena.target")

	to.Run(t, "cd /root\n"+steps[0])
	to.Put(t, "/root/backup.age", "0600", string(text))
	to.Put(t, "/root/words", "0600", "correct horse\n")
	if _, err := to.Try(t.Context(), "faena restore /root/backup.age --passphrase-file /root/words"); err == nil || !strings.Contains(err.Error(), "systemctl stop faena.target") {
		t.Errorf("while the daemons run it gives %v", err)
	}
	// One that was cut short: nothing runs on what it has left.
	to.Run(t, "systemctl stop faena.target; touch /var/lib/faena-api/restore-unfinished")
	for _, unit := range []string{"faena-nats.service", "faena-api.service", "faena-worker.service"} {
		if _, err := to.Try(t.Context(), "systemctl start "+unit); err == nil {
			t.Errorf("%s runs on half a restore", unit)
		}
		to.says(t, unit, "/var/lib/faena-api/restore-unfinished")
	}
	to.Run(t, "rm /var/lib/faena-api/restore-unfinished")
	told := to.Run(t, "systemctl stop faena.target; faena restore /root/backup.age --passphrase-file /root/words 2>&1; systemctl start faena.target")
	for _, by := range []string{"/etc/systemd/system/faena-*.d", "/etc/docker/daemon.json", "The certificate names from", "systemctl restart faena-one-host"} {
		if !strings.Contains(told, by) {
			t.Errorf("what is to be done by hand is told without %s:\n%s", by, told)
		}
	}
	to.Put(t, "/root/admin.password", "0600", from.Run(t, "cat /root/admin.password"))
	to.login(t)
	to.works(t)
	to.lost(t, told)
	if out := to.Run(t, "faena result "+ended); out != "good evening\n" {
		t.Errorf("the result of what had ended is %q", out)
	}
	if a, b := from.Run(t, "cat /etc/faena/tls/ca.pem"), to.Run(t, "cat /etc/faena/tls/ca.pem"); a != b {
		t.Error("clients are to trust another CA")
	}
	if out, err := to.Try(t.Context(), "faena restore /root/backup.age --passphrase-file /root/words"); err == nil {
		t.Errorf("a host in use was restored: %s", out)
	}

	t.Run("resume", func(t *testing.T) {
		to.Run(t, "DEBIAN_FRONTEND=noninteractive apt-get -q purge --yes 'faena*'\ncd /root\n"+steps[0])
		live.goesOn(t, to)
	})
}

// login logs the first admin in, as soon as the API is ready.
func (h *host) login(t *testing.T) {
	t.Helper()
	faenatest.EventuallyNil(t, 2*time.Minute, "the first admin logs in", func() error {
		_, err := h.Try(t.Context(), "faena login https://localhost:8443 --user admin --cacert /etc/faena/tls/ca.pem --password-stdin </root/admin.password")
		return err
	})
}

var hadNotEnded = regexp.MustCompile(`(\d+) activations had not ended; they are lost, for the reason restored`)

// lost compares what a restore has told of activations that had not ended with their records.
func (h *host) lost(t *testing.T, told string) {
	t.Helper()
	n := 0
	for _, u := range callers {
		h.Run(t, fmt.Sprintf("echo %s | faena login https://localhost:8443 --profile %s --user %s --cacert /etc/faena/tls/ca.pem --password-stdin", u.Password, u.Name, u.Name))
		n += strings.Count(h.Run(t, "faena --profile "+u.Name+" activations --state lost --limit 1000 -o json"), `"reason": "restored"`)
	}
	h.Run(t, "faena login https://localhost:8443 --user admin --cacert /etc/faena/tls/ca.pem --password-stdin </root/admin.password")
	if m := hadNotEnded.FindStringSubmatch(told); m == nil || m[1] != strconv.Itoa(n) || n == 0 {
		t.Errorf("the history has %d activations that are lost by the restore, which told:\n%s", n, told)
	}
}

// live is three activations that had not ended when a backup was made: two ran, one of which may be run again, and one was queued.
type live struct {
	runs, again, queued string
	backup              string
}

// live makes them, backs the host up, and lets them go on.
func (h *host) live(t *testing.T) *live {
	t.Helper()
	image := h.site.push(t, filepath.Join("testdata", "pause.c"))
	invoke := func(call string) string {
		t.Helper()
		return strings.TrimSpace(h.Run(t, "faena invoke --async "+call))
	}
	h.Run(t, "faena deploy pause --command pause --image "+image+"; faena deploy again --command pause --retries 1 --retry-on worker_lost --image "+image)
	l := &live{runs: invoke("pause 15000"), again: invoke("again 15000")}
	faenatest.EventuallyNil(t, time.Minute, "two run", func() error {
		if ids := h.Run(t, "faena activations --state running -o json"); !strings.Contains(ids, l.runs) || !strings.Contains(ids, l.again) {
			return fmt.Errorf("there run %s", ids)
		}
		return nil
	})
	h.Run(t, "faena workers drain "+h.Name)
	l.queued = invoke("hello 'good night'")
	h.Run(t, "faena backup --passphrase-file /root/words /root/live.age; faena workers resume "+h.Name)
	l.backup = h.Run(t, "base64 -w0 /root/live.age")
	if out := h.Run(t, "faena result --wait "+l.queued); out != "good night\n" {
		t.Errorf("where the backup is from, the result of what was queued is %q", out)
	}
	return l
}

// goesOn restores that backup, on a host that was just installed, so that what had not ended goes on.
func (l *live) goesOn(t *testing.T, to *host) {
	text, err := base64.StdEncoding.DecodeString(l.backup)
	if err != nil {
		t.Fatal(err)
	}
	to.Put(t, "/root/live.age", "0600", string(text))
	named := to.Run(t, "systemctl stop faena.target; faena restore /root/live.age --resume --passphrase-file /root/words; systemctl start faena.target")
	lines := strings.Split(strings.TrimSpace(named), "\n")
	slices.Sort(lines)
	want := []string{l.runs + "\tadmin\tpause\trunning", l.again + "\tadmin\tagain\trunning", l.queued + "\tadmin\thello\tqueued"}
	slices.Sort(want)
	if !slices.Equal(lines, want) {
		t.Errorf("what may run twice is %q, want %q", lines, want)
	}
	to.login(t)
	for id, result := range map[string]string{l.queued: "good night\n", l.again: "15000\n"} {
		faenatest.EventuallyNil(t, 2*time.Minute, "activation "+id+" goes on", func() error {
			out, err := to.Try(t.Context(), "faena result --wait "+id)
			if err == nil && out != result {
				t.Fatalf("its result is %q, want %q", out, result)
			}
			return err
		})
	}
	for id, want := range map[string][]string{l.queued: {"succeeded", `"attempt": 1`}, l.again: {"succeeded", `"attempt": 2`}, l.runs: {"lost", "worker_lost"}} {
		faenatest.EventuallyNil(t, time.Minute, "activation "+id+" has ended", func() error {
			record := to.Run(t, "faena get -o json "+id)
			for _, each := range want {
				if !strings.Contains(record, each) {
					return fmt.Errorf("it should have %s: %s", each, record)
				}
			}
			return nil
		})
	}
}
