//go:build packages

package packages_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/tools/chaos/load"
)

const (
	// aWhile is how many calls are answered with one pair of versions before the next step.
	aWhile = 40
	// stepWithin is how long one step of an upgrade may take: functions of 5 s end, both daemons start.
	stepWithin = 2 * time.Minute
)

// repository is what upgrades are installed from: the bundle, and the release before.
const repository = "/etc/apt/sources.list.d/faena.list"

// TestUpgrade brings one host from the release before to this one and back, under load, and then takes all away.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	h := s.host(t, "two")
	h.Copy(t, filepath.Join(*dist, "previous"), "/opt")
	h.Run(t, `rm -f /etc/apt/sources.list
		tar -C /opt -xf /root/faena-bundle-*.tar; mv /opt/faena-bundle-* /opt/bundle
		printf 'deb [trusted=yes] file:/opt/bundle ./\ndeb [trusted=yes] file:/opt/previous ./\n' >`+repository+`
		apt-get -q update`)
	versions := strings.Fields(h.Run(t, "apt-cache madison faena | awk '{ print $3 }'"))
	if len(versions) != 2 {
		t.Fatalf("there are versions %v of package faena, and should be two", versions)
	}
	u := &upgrade{host: h, now: versions[0], before: versions[1]}
	h.Run(t, bare)
	u.bare = h.Run(t, everything)
	ok := t.Run("install", u.testInstall) && t.Run("under load", u.testUnderLoad)
	if ok && t.Run("remove", u.testRemove) {
		t.Run("purge", u.testPurge)
	}
}

// upgrade is a host with packages of two versions.
type upgrade struct {
	*host
	now, before string
	admin       load.User
	bare        string // what the host had before
}

// install has apt install a version of all packages, as an administrator does who keeps what he has edited.
func (u *upgrade) install(t *testing.T, version string) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), stepWithin)
	defer cancel()
	var names []string
	for _, name := range []string{"faena", "faena-api", "faena-worker", "faena-nats", "faena-cli"} {
		names = append(names, name+"="+version)
	}
	out, err := u.Try(ctx, "DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --allow-downgrades -o Dpkg::Options::=--force-confold "+strings.Join(names, " ")+" 2>&1")
	if err != nil {
		t.Fatalf("apt-get: %v", err)
	}
	t.Logf("all is %s after %v\n%s", version, time.Since(began).Round(100*time.Millisecond), out)
	u.runs(t, version, "faena-api", "faena-worker", "faena-nats")
}

// change installs another version, whose messaging server is another one too: it is restarted under load, with all that stands on it.
func (u *upgrade) change(t *testing.T, version string) {
	t.Helper()
	const server = "/usr/lib/faena/nats-server --version"
	before := u.Run(t, server)
	u.install(t, version)
	if now := u.Run(t, server); now == before {
		t.Errorf("the messaging server of both releases is %s: nothing was shown of its restart (testing/packages.sh)", now)
	}
	t.Logf("the messaging server:\n%s", u.Run(t, "journalctl --no-pager --boot --output short-precise --unit faena-nats | "+
		"grep -E 'Stopping|Version|Server is ready' | tail -n 3"))
}

// replace has dpkg install one package, whatever the others ask for: this host stands for two, on which an upgrade does not happen at once.
func (u *upgrade) replace(t *testing.T, name, version string) {
	t.Helper()
	u.Run(t, fmt.Sprintf("DEBIAN_FRONTEND=noninteractive dpkg --force-depends --force-confold --install /opt/*/%s_%s_*.deb", name, version))
	u.runs(t, version, name)
}

// runs waits until daemons of a version are ready.
func (u *upgrade) runs(t *testing.T, version string, names ...string) {
	t.Helper()
	for _, name := range names {
		faenatest.EventuallyNil(t, stepWithin, fmt.Sprintf("%s is ready as %s", name, version), func() error {
			state := u.property(t, name, "ActiveState") + " " + u.property(t, name, "SubState")
			out, err := u.Try(t.Context(), fmt.Sprintf("cmp %[2]s /proc/$(systemctl show --property MainPID --value %[1]s)/exe; dpkg-query -W -f '${Version}' %[1]s", name, program(name)))
			if err != nil || state != "active running" || out != version {
				return fmt.Errorf("it is %s, %s: %w", state, out, err)
			}
			return nil
		})
	}
}

// program is what a daemon runs.
func program(name string) string {
	if name == "faena-nats" {
		return "/usr/lib/faena/nats-server"
	}
	return "/usr/bin/" + name
}

func (u *upgrade) testInstall(t *testing.T) {
	u.install(t, u.before)
	u.admin = load.User{Name: "admin", Password: strings.TrimSpace(u.Run(t, "faena-api admin create admin"))}
	// The release before has no command for it: testing/packages.sh.
	u.Run(t, "umask 077; echo "+u.admin.Password+` >/root/admin.password
		faena login https://localhost:8443 --user admin --cacert /etc/faena/tls/ca.pem --password-stdin </root/admin.password
		faena groups put default --keys /etc/faena/one-host-worker-keys.json`)
	u.deploy(t)
	// What an administrator does to the files of settings.
	u.Run(t, `sed -i 's/^#FAENA_LOG_LEVEL=.*/FAENA_LOG_LEVEL=debug/' /etc/faena/api.env; grep -q '^FAENA_LOG_LEVEL=debug' /etc/faena/api.env; cp /etc/faena/api.env /root/`)
}

func (u *upgrade) testUnderLoad(t *testing.T) {
	x := u.traffic(t, u.admin, 2)
	x.flows(t, time.Now(), aWhile)
	for _, step := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"API new, worker before", func(t *testing.T) { u.replace(t, "faena-api", u.now) }},
		{"API before, worker new", func(t *testing.T) { u.replace(t, "faena-api", u.before); u.replace(t, "faena-worker", u.now) }},
		{"all before", func(t *testing.T) { u.replace(t, "faena-worker", u.before) }},
		{"upgrade", func(t *testing.T) { u.change(t, u.now) }},
		{"downgrade", func(t *testing.T) { u.change(t, u.before) }},
		{"upgrade again", func(t *testing.T) { u.change(t, u.now) }},
	} {
		began := time.Now()
		if !t.Run(step.name, func(t *testing.T) { step.do(t); x.flows(t, time.Now(), aWhile) }) {
			break
		}
		t.Logf("%s: %v, the longest time without a good answer was %v", step.name, time.Since(began).Round(time.Second), x.gap(began))
	}
	x.unnoticed(t, x.settle(t))
	t.Run("files of settings", func(t *testing.T) {
		u.Run(t, "cmp /etc/faena/api.env /root/api.env")
		if out := u.Run(t, "grep -c 'release before' /etc/faena/worker.env || true"); out != "0\n" {
			t.Error("/etc/faena/worker.env, which nobody has edited, is still that of the release before")
		}
	})
}

// testRemove removes the packages and installs them again: all is there.
func (u *upgrade) testRemove(t *testing.T) {
	before := u.Run(t, "faena activations -o json")
	u.Run(t, "DEBIAN_FRONTEND=noninteractive apt-get -q remove --yes 'faena*'")
	if out := u.Run(t, "pgrep -a faena || pgrep -a nats-server || true"); out != "" {
		t.Errorf("there still runs %s", out)
	}
	if out := u.Run(t, "docker ps --all --format '{{.Names}}'"); out != "" {
		t.Errorf("there still are containers: %s", out)
	}
	u.Run(t, `cmp /etc/faena/api.env /root/api.env
		for d in faena-api faena-worker faena-nats; do test -d /var/lib/$d; getent passwd $d >/dev/null; done
		for f in faena-api.nats_nkey faena-api.seal_key faena-api.tls_key faena-worker.nats_nkey faena-worker.seal_key; do test -s /etc/credstore/$f; done
		test -s /etc/faena/tls/ca.pem`)
	u.install(t, u.now)
	u.works(t)
	if after := u.Run(t, "faena activations -o json --limit 1000"); !strings.Contains(after, ids(before)[0]) {
		t.Error("the history is another one")
	}
}

// ids are the ids of activations in JSON.
func ids(text string) (list []string) {
	for _, part := range strings.Split(text, `"activation_id": "`)[1:] {
		id, _, _ := strings.Cut(part, `"`)
		list = append(list, id)
	}
	return append(list, "?")
}

// testPurge purges the packages: nothing is left, of a worker that was killed, and of a directory that is a volume of its own, neither.
// Installed again, it is a new installation.
func (u *upgrade) testPurge(t *testing.T) {
	u.Run(t, `systemctl stop faena-nats; mount --bind /var/lib/faena-nats /var/lib/faena-nats; systemctl start faena.target
		systemctl kill --kill-who=main --signal KILL faena-worker; systemctl stop faena-worker`)
	u.Run(t, "DEBIAN_FRONTEND=noninteractive apt-get -q purge --yes 'faena*'")
	u.Run(t, "umount /var/lib/faena-nats; rmdir --ignore-fail-on-non-empty /var/lib/faena-nats")
	// Not ours are what this test has put there, what apt and systemd know of all packages there are, and the journal.
	left := u.Run(t, `find / -xdev \( -path /proc -o -path /sys -o -path /opt -o -path /root -o -path /var/lib/apt -o -path /var/cache/apt -o -path /var/log \
			-o -path /etc/systemd/system/faena-api.service.d -o -path /etc/systemd/system/faena-worker.service.d -o -path /etc/apt \) -prune \
			-o -iname '*faena*' -print -o -path '/etc/credstore*' -print
		dpkg -l 'faena*' 2>/dev/null | grep ^.c || true`)
	if left != "" {
		t.Errorf("there is left:\n%s", left)
	}
	if list := differences(u.bare, u.Run(t, everything)); len(list) > 0 {
		t.Errorf("it is another host than before it had Faena:\n%s", strings.Join(list, "\n"))
	}
	if t.Failed() {
		return
	}
	u.install(t, u.now)
	u.Run(t, `faena-api admin create admin >/root/admin.password
		faena login https://localhost:8443 --user admin --cacert /etc/faena/tls/ca.pem --password-stdin </root/admin.password`)
	u.deploy(t)
}

// deploy makes the function of docs/install.md, once the group has its worker, and calls it.
func (u *upgrade) deploy(t *testing.T) {
	t.Helper()
	image := u.site.push(t, filepath.Join("testdata", "echo.c"))
	faenatest.EventuallyNil(t, time.Minute, "the function is deployed", func() error {
		_, err := u.Try(t.Context(), "faena deploy hello --command echo --image "+image)
		return err
	})
	u.works(t)
}
