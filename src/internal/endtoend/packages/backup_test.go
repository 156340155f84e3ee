//go:build packages

package packages_test

import (
	"encoding/base64"
	"path/filepath"
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
	from.Run(t, "systemctl stop faena.target")

	to.Run(t, "cd /root\n"+steps[0])
	to.Put(t, "/root/backup.age", "0600", string(text))
	to.Put(t, "/root/words", "0600", "correct horse\n")
	if _, err := to.Try(t.Context(), "faena restore /root/backup.age --passphrase-file /root/words"); err == nil || !strings.Contains(err.Error(), "systemctl stop faena.target") {
		t.Errorf("while the daemons run it gives %v", err)
	}
	to.Run(t, "systemctl stop faena.target; faena restore /root/backup.age --passphrase-file /root/words; systemctl start faena.target")
	to.Put(t, "/root/admin.password", "0600", from.Run(t, "cat /root/admin.password"))
	faenatest.EventuallyNil(t, 2*time.Minute, "the first admin logs in", func() error {
		_, err := to.Try(t.Context(), "faena login https://localhost:8443 --user admin --cacert /etc/faena/tls/ca.pem --password-stdin </root/admin.password")
		return err
	})
	to.works(t)
	if out := to.Run(t, "faena result "+ended); out != "good evening\n" {
		t.Errorf("the result of what had ended is %q", out)
	}
	if a, b := from.Run(t, "cat /etc/faena/tls/ca.pem"), to.Run(t, "cat /etc/faena/tls/ca.pem"); a != b {
		t.Error("clients are to trust another CA")
	}
	if out, err := to.Try(t.Context(), "faena restore /root/backup.age --passphrase-file /root/words"); err == nil {
		t.Errorf("a host in use was restored: %s", out)
	}
}
