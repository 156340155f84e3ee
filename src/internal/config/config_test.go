package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// file makes a file with a mode of its own, whatever the umask is.
func file(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadUp(t *testing.T) {
	cert, key := file(t, "cert.pem", "certificate", 0o644), file(t, "key.pem", "key", 0o600)

	t.Run("without any setting", func(t *testing.T) {
		u, err := LoadUp([]string{"HOME=/home/ada", "PATH=/usr/bin", "STATE_DIRECTORY=/var/lib/private/faena:/other"})
		if err != nil {
			t.Fatal(err)
		}
		if u.DataDir != "/var/lib/private/faena" || u.AdminSocket != "/var/lib/private/faena/admin.sock" {
			t.Errorf("the data directory is %s, the admin socket %s", u.DataDir, u.AdminSocket)
		}
		if u.Retention != (Retention{Age: 168 * time.Hour, Bytes: 10 << 30}) {
			t.Errorf("the retention is %+v", u.Retention)
		}
		if u.Serve.Auth != AuthLocal || !u.Serve.Listen.Loopback() || u.Serve.TLS() {
			t.Errorf("it does not serve on loopback with local authentication: %+v", u.Serve)
		}
		if u.Serve.Arch != runtime.GOARCH || u.Serve.Instance == "" || u.Worker.ID == "" || u.Engine.DockerHost == "" {
			t.Errorf("what depends on the host is not filled in: %+v", u)
		}
	})
	t.Run("every kind of value", func(t *testing.T) {
		u, err := LoadUp([]string{
			"FAENA_DATA_DIR=/srv/faena", "FAENA_LISTEN=:8443", "FAENA_OPERATIONS_LISTEN=10.0.0.1:0",
			"FAENA_TLS_CERT_FILE=" + cert, "FAENA_TLS_KEY_FILE=" + key, "FAENA_LOG_LEVEL=debug", "FAENA_LOG_FORMAT=json",
			"FAENA_MAX_PARAMETER=12MiB", "FAENA_ASYNC_START_WITHIN=1h30m", "FAENA_BACKLOG_LIMIT=0", "FAENA_RETENTION=2h31m", "FAENA_RETENTION_BYTES=0", "FAENA_NATS_SYNC=always",
			"FAENA_REGISTRIES=registry.example.org, 10.0.0.5:5000,[::1]:5000,", "FAENA_REGISTRY_PRIVATE_NETWORKS=10.20.3.4/16,::1",
			"FAENA_WORKER_PLACES=7", "FAENA_WORKER_CPUS=3.5", "FAENA_WORKER_CAPABILITIES=CHOWN,SETUID", "FAENA_WORKER_ID=",
		})
		if err != nil {
			t.Fatal(err)
		}
		if u.Serve.Listen != ":8443" || u.DataDir != "/srv/faena" || u.Log.Level != slog.LevelDebug || u.Log.Format != LogJSON ||
			u.Limits.MaxParameter != 12<<20 || u.Limits.AsyncStartWithin != 90*time.Minute || u.Limits.BacklogLimit != 0 ||
			u.Retention != (Retention{Age: 151 * time.Minute}) || u.Server.Sync != SyncAlways ||
			u.Worker.Places != 7 || u.Worker.CPUs != 3.5 || u.Worker.ID == "" {
			t.Errorf("a value was not taken: %+v", u)
		}
		if string(u.Serve.TLSKeyFile.Secret.Reveal()) != "key" || !u.Serve.TLS() {
			t.Error("the key was not read")
		}
		if got := u.Registries.Allowed; !slices.Equal(got, Hosts{"registry.example.org", "10.0.0.5:5000", "[::1]:5000"}) {
			t.Errorf("the registries are %v", got)
		}
		want := Prefixes{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("::1/128")}
		if got := u.Registries.PrivateNetworks; !slices.Equal(got, want) {
			t.Errorf("the prefixes are %v", got)
		}
	})
	t.Run("variables of the command line are left alone", func(t *testing.T) {
		if _, err := LoadUp([]string{"FAENA_DATA_DIR=/srv/faena", "FAENA_PROFILE=work"}, "FAENA_PROFILE"); err != nil {
			t.Error(err)
		}
	})
	t.Run("the process's own environment is not looked at", func(t *testing.T) {
		t.Setenv("FAENA_WORKER_PLACES", "9")
		if u, err := LoadUp([]string{"FAENA_DATA_DIR=/srv/faena"}); err != nil || u.Worker.Places != 0 {
			t.Errorf("places are %d, %v", u.Worker.Places, err)
		}
	})
}

func TestLog_Format(t *testing.T) {
	var stderr syscall.Stat_t
	if err := syscall.Fstat(2, &stderr); err != nil {
		t.Fatal(err)
	}
	ours := fmt.Sprintf("JOURNAL_STREAM=%d:%d", stderr.Dev, stderr.Ino)
	for _, c := range []struct {
		name    string
		environ []string
		worker  LogFormat
		up      LogFormat
	}{
		{"without systemd", nil, LogJSON, LogText},
		{"standard error goes to the journal", []string{ours}, LogJournal, LogJournal},
		{"the journal is of who has started this process", []string{"JOURNAL_STREAM=1:2"}, LogJSON, LogText},
		{"what is no stream", []string{"JOURNAL_STREAM=yes"}, LogJSON, LogText},
		{"a setting", []string{ours, "FAENA_LOG_FORMAT=text"}, LogText, LogText},
		{"the journal in any case", []string{"FAENA_LOG_FORMAT=journal"}, LogJournal, LogJournal},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := LoadWorker(c.environ)
			if err != nil || w.Log.Format != c.worker {
				t.Errorf("a worker writes %s, %v", w.Log.Format, err)
			}
			u, err := LoadUp(append(c.environ, "FAENA_DATA_DIR=/srv/faena"))
			if err != nil || u.Log.Format != c.up {
				t.Errorf("the appliance writes %s, %v", u.Log.Format, err)
			}
		})
	}
}

func TestExceptions(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.5:5432, 10.20.1.0/16 ,fd00::1": "10.0.0.5/32:5432,10.20.0.0/16,fd00::1/128",
		"[fd00::5]:443,[fd00::/8]:80,[fd09::]": "[fd00::5/128]:443,[fd00::/8]:80,fd09::/128",
		"10.0.0.5/32:5432":                     "10.0.0.5/32:5432",
		"10.0.0.5:":                            "",
		"10.0.0.5:0":                           "",
		"[fd00::5":                             "",
		"[fd00::5]443":                         "",
		"[]:443":                               "",
		":443":                                 "",
		"fe80::1%eth0":                         "",
	} {
		var e, again Exceptions
		err := e.Decode(text)
		if want == "" {
			if err == nil {
				t.Errorf("%q is taken as %v", text, e)
			}
			continue
		}
		if err != nil || e.String() != want {
			t.Errorf("%q is %v, %v; want %s", text, e, err, want)
		}
		if err := again.Decode(e.String()); err != nil || !slices.Equal(again, e) {
			t.Errorf("%q read again is %v, %v", e, again, err)
		}
	}
	for n, taken := range map[int]bool{maxExceptions: true, maxExceptions + 1: false} {
		var e Exceptions
		if err := e.Decode(strings.Repeat("10.0.0.5:5432,", n)); (err == nil) != taken {
			t.Errorf("%d exceptions: %v", n, err)
		}
	}
}

func TestLoadUp_Bad(t *testing.T) {
	key := file(t, "key.pem", "key", 0o600)
	open := file(t, "open.pem", "key", 0o644)
	empty := file(t, "empty.pem", "", 0o600)
	dir := t.TempDir()
	for _, c := range []struct {
		name, env, want string // env is separated by blanks
	}{
		{"unknown", "FAENA_COLOUR=red", "FAENA_COLOUR is no setting of this daemon: remove it; all settings are in docs/settings.md (/usr/share/doc/faena-cli)"},
		{"misspelt", "FAENA_TSL_KEY_FILE=/x", "FAENA_TSL_KEY_FILE is no setting of this daemon; FAENA_TLS_KEY_FILE is: correct the name, or remove it"},
		{"too short for a guess", "FAENA_ABC=1", "FAENA_ABC is no setting of this daemon: remove it; all settings are in docs/settings.md (/usr/share/doc/faena-cli)"},
		{"another daemon's", "FAENA_NATS_URLS=nats://10.0.0.1:4222", "FAENA_NATS_URLS is no setting of this daemon, it is one of faena-api: remove it here"},
		{"duration without a unit", "FAENA_WORKER_IDLE_TTL=90", `FAENA_WORKER_IDLE_TTL is "90": it cannot be read; right would be a duration such as 500ms, 90s, 10m or 24h`},
		{"duration out of range", "FAENA_DRAIN_AFTER=11m", "FAENA_DRAIN_AFTER is 11m, must be from 0s to 10m"},
		{"a backlog of less than nothing", "FAENA_BACKLOG_LIMIT=-1", "FAENA_BACKLOG_LIMIT is -1, must be from 0 to 1000000"},
		{"size of an unknown unit", "FAENA_MAX_PARAMETER=6MB", `FAENA_MAX_PARAMETER is "6MB": it is no size; right would be a size such as 1048576, 512KiB, 64MiB or 2GiB`},
		{"negative size", "FAENA_MAX_PARAMETER=-1", `FAENA_MAX_PARAMETER is "-1": it is no size; right would be a size such as 1048576, 512KiB, 64MiB or 2GiB`},
		{"size that overflows", "FAENA_DISK_MIN_FREE=9999999999TiB", `FAENA_DISK_MIN_FREE is "9999999999TiB": it is too large; right would be a size such as 1048576, 512KiB, 64MiB or 2GiB`},
		{"size out of range", "FAENA_MAX_PARAMETER=65MiB", "FAENA_MAX_PARAMETER is 65MiB, must be from 1 to 64MiB"},
		{"number", "FAENA_WORKER_PLACES=many", `FAENA_WORKER_PLACES is "many": it cannot be read; right would be a whole number`},
		{"fraction that is no number", "FAENA_DISK_HIGH=NaN", "FAENA_DISK_HIGH is NaN, must be from 0.1 to 1"},
		{"watermarks the wrong way round", "FAENA_DISK_LOW=0.9", "FAENA_DISK_LOW is 0.9, must not be above FAENA_DISK_HIGH, which is 0.85"},
		{"kept for less than a start may take", "FAENA_RETENTION=25h", "FAENA_RETENTION is 25h, must be more than 25h (FAENA_ASYNC_START_WITHIN and an hour) and at most 9600h"},
		{"kept for ever", "FAENA_RETENTION=9601h", "FAENA_RETENTION is 9601h, must be more than 25h (FAENA_ASYNC_START_WITHIN and an hour) and at most 9600h"},
		{"history that holds nothing", "FAENA_RETENTION_BYTES=10", "FAENA_RETENTION_BYTES is 10, must be from 64MiB to 1024TiB"},
		{"relative socket", "FAENA_ADMIN_SOCKET=admin.sock", `FAENA_ADMIN_SOCKET is "admin.sock", must be an absolute path`},
		{"socket with too long a path", "FAENA_ADMIN_SOCKET=/" + strings.Repeat("s", 107), "FAENA_ADMIN_SOCKET is 108 bytes long, a socket's path has at most 107"},
		{"unknown authentication", "FAENA_AUTH=none", `FAENA_AUTH is "none": it is no such word; right would be local or gateway`},
		{"gateway setting without the gateway", "FAENA_AUTH_GATEWAY_SAN=gw", "FAENA_AUTH_GATEWAY_SAN is given, but FAENA_AUTH is local: set FAENA_AUTH=gateway or leave it out"},
		{"log level", "FAENA_LOG_LEVEL=loud", `FAENA_LOG_LEVEL is "loud": it cannot be read; right would be debug, info, warn or error`},
		{"log format", "FAENA_LOG_FORMAT=xml", `FAENA_LOG_FORMAT is "xml": it is no such word; right would be json, text or journal`},
		{"sync", "FAENA_NATS_SYNC=true", `FAENA_NATS_SYNC is "true": it is no such word; right would be interval or always`},
		{"no port", "FAENA_LISTEN=127.0.0.1", `FAENA_LISTEN is "127.0.0.1": it is no address; right would be host:port, such as 127.0.0.1:8080, [::1]:8080 or :8443`},
		{"port out of range", "FAENA_LISTEN=127.0.0.1:70000", `FAENA_LISTEN is "127.0.0.1:70000": it has no port from 0 to 65535; right would be host:port, such as 127.0.0.1:8080, [::1]:8080 or :8443`},
		{"beyond loopback without a certificate", "FAENA_LISTEN=0.0.0.0:8080", "FAENA_LISTEN is 0.0.0.0:8080, which other hosts can reach: give FAENA_TLS_CERT_FILE and FAENA_TLS_KEY_FILE, or a loopback address such as 127.0.0.1:8080"},
		{"metrics beyond loopback", "FAENA_OPERATIONS_LISTEN=:8081", "FAENA_OPERATIONS_LISTEN is :8081, must be a loopback address such as 127.0.0.1:8081 while the API has no certificate"},
		{"registry beyond loopback", "FAENA_REGISTRY_LISTEN=:5000", "FAENA_REGISTRY_LISTEN is :5000, must be a loopback address such as 127.0.0.1:8082: it is served without TLS"},
		{"key without a certificate", "FAENA_TLS_KEY_FILE=" + key, "FAENA_TLS_CERT_FILE is missing: FAENA_TLS_KEY_FILE is of no use without; give both, or none"},
		{"file that is absent", "FAENA_TLS_KEY_FILE=" + key + " FAENA_TLS_CERT_FILE=/nonexistent/cert.pem", `FAENA_TLS_CERT_FILE is "/nonexistent/cert.pem": it cannot be read: no such file or directory; right would be the path of a file that this daemon may read`},
		{"file that is a directory", "FAENA_TLS_KEY_FILE=" + key + " FAENA_TLS_CERT_FILE=" + dir, fmt.Sprintf("FAENA_TLS_CERT_FILE is %q: it is no regular file; right would be the path of a file that this daemon may read", dir)},
		{"empty secret", "FAENA_TLS_CERT_FILE=" + key + " FAENA_TLS_KEY_FILE=" + empty, fmt.Sprintf("FAENA_TLS_KEY_FILE is %q: it is an empty file; right would be the path of a file that this daemon and no stranger may read (chmod 0600)", empty)},
		{"secret that everybody can read", "FAENA_TLS_CERT_FILE=" + key + " FAENA_TLS_KEY_FILE=" + open, fmt.Sprintf("FAENA_TLS_KEY_FILE is %q: it may be used by everybody on this host (mode 0644); right would be the path of a file that this daemon and no stranger may read (chmod 0600)", open)},
		{"secret in place of its path", "FAENA_TLS_CERT_FILE=" + key + " FAENA_TLS_KEY_FILE=hunter2", `FAENA_TLS_KEY_FILE is "**redacted**": it cannot be read: no such file or directory; right would be the path of a file that this daemon and no stranger may read (chmod 0600)`},
		{"relative directory", "FAENA_DATA_DIR=data", `FAENA_DATA_DIR is "data", must be an absolute path`},
		{"directory too deep for sockets", "FAENA_DATA_DIR=/" + strings.Repeat("d", 64), "FAENA_DATA_DIR is 65 bytes long, must be at most 64: the paths of sockets in it would not fit"},
		{"instance", "FAENA_INSTANCE=a.b", `FAENA_INSTANCE is "a.b", must be 1 to 63 letters, digits, - and _`},
		{"architecture", "FAENA_ARCH=x86_64", `FAENA_ARCH is "x86_64", must be amd64 or arm64`},
		{"registry with a scheme", "FAENA_REGISTRIES=https://registry.example.org", `FAENA_REGISTRIES is "https://registry.example.org": it has "https://registry.example.org", which is no host or host:port; right would be hosts without a scheme, such as registry.example.org,10.0.0.5:5000`},
		{"exception that is a name", "FAENA_WORKER_ALLOW=db:5432", `FAENA_WORKER_ALLOW is "db:5432": it has "db:5432", which is no network; right would be networks or addresses, each with or without a port, such as 10.0.0.5:5432,10.20.0.0/16,[fd00::5]:443`},
		{"exception with a wrong port", "FAENA_WORKER_ALLOW=10.0.0.5:70000", `FAENA_WORKER_ALLOW is "10.0.0.5:70000": it has "10.0.0.5:70000", which has no port from 1 to 65535; right would be networks or addresses, each with or without a port, such as 10.0.0.5:5432,10.20.0.0/16,[fd00::5]:443`},
		{"prefix", "FAENA_REGISTRY_PRIVATE_NETWORKS=10.0.0.0/33", `FAENA_REGISTRY_PRIVATE_NETWORKS is "10.0.0.0/33": it has "10.0.0.0/33", which is no prefix; right would be prefixes such as 10.20.0.0/16,fd00::/8`},
		{"capability", "FAENA_WORKER_CAPABILITIES=CAP_CHOWN", `FAENA_WORKER_CAPABILITIES has "CAP_CHOWN", must be names such as CHOWN,SETUID,SETGID`},
		{"group", "FAENA_WORKER_GROUP=Big", `FAENA_WORKER_GROUP is "Big", must match ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`},
		{"engine", "FAENA_DOCKER_HOST=/var/run/docker.sock", `FAENA_DOCKER_HOST is "/var/run/docker.sock", must be such as unix:///var/run/docker.sock`},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := []string{"STATE_DIRECTORY=/var/lib/faena"}
			_, err := LoadUp(append(env, strings.Fields(c.env)...))
			if err == nil {
				t.Fatal("it was accepted")
			}
			if got := err.Error(); got != "a setting is wrong: "+c.want {
				t.Errorf("the error is\n  %s\nwant\n  %s", got, c.want)
			}
		})
	}
	t.Run("all problems at once, in order", func(t *testing.T) {
		_, err := LoadUp([]string{"FAENA_DATA_DIR=/srv", "FAENA_WORKER_PLACES=x", "FAENA_AUTH=x", "FAENA_X=x", "FAENA_LISTEN=:1"})
		problems, ok := err.(Problems) //nolint:errorlint // the type is the contract
		var names []string
		for _, p := range problems {
			names = append(names, p.Setting)
		}
		if want := []string{"FAENA_AUTH", "FAENA_LISTEN", "FAENA_WORKER_PLACES", "FAENA_X"}; !ok || !slices.Equal(names, want) {
			t.Errorf("the problems are of %v, want %v", names, want)
		}
		if !strings.HasPrefix(err.Error(), "4 settings are wrong:\n  FAENA_AUTH is") {
			t.Errorf("the error is %s", err)
		}
	})
}

func TestLoadAPI(t *testing.T) {
	t.Run("does not start unconfigured", func(t *testing.T) {
		_, err := LoadAPI(nil)
		for _, setting := range []string{"FAENA_LISTEN", "FAENA_AUTH_GATEWAY_CA_FILE", "FAENA_AUTH_GATEWAY_SAN", "FAENA_TLS_CERT_FILE"} {
			if err == nil || !strings.Contains(err.Error(), setting) {
				t.Errorf("%s is not named: %v", setting, err)
			}
		}
	})
	t.Run("behind a gateway, with secrets from systemd", func(t *testing.T) {
		credentials := t.TempDir()
		for name, content := range map[string]string{"faena.tls_key": "key", "faena.nats_nkey": "seed"} {
			if err := os.WriteFile(filepath.Join(credentials, name), []byte(content), 0o400); err != nil {
				t.Fatal(err)
			}
		}
		cert := file(t, "cert.pem", "certificate", 0o644)
		a, err := LoadAPI([]string{"CREDENTIALS_DIRECTORY=" + credentials, "FAENA_TLS_CERT_FILE=" + cert,
			"FAENA_AUTH_GATEWAY_CA_FILE=" + cert, "FAENA_AUTH_GATEWAY_SAN=gateway.faena.internal", "FAENA_NATS_REPLICAS=3"})
		if err != nil {
			t.Fatal(err)
		}
		if string(a.Serve.TLSKeyFile.Secret.Reveal()) != "key" || string(a.NATS.NkeyFile.Secret.Reveal()) != "seed" {
			t.Error("a credential was not read")
		}
		if a.NATS.Replicas != 3 || a.SealKeyFile.Path != "" || a.AdminSocket != "/run/faena-api/admin.sock" {
			t.Errorf("the settings are %+v", a)
		}
	})
	t.Run("an unknown setting", func(t *testing.T) {
		_, err := LoadAPI(append([]string{"FAENA_COLOUR=red"}, local...))
		if want := "a setting is wrong: FAENA_COLOUR is no setting of this daemon: remove it; all settings are in docs/settings.md (/usr/share/doc/faena-cli), and in /etc/faena/api.env of the package"; err == nil ||
			err.Error() != want {
			t.Errorf("the error is %v\nwant %s", err, want)
		}
	})
	t.Run("local authentication beyond loopback needs a certificate", func(t *testing.T) {
		_, err := LoadAPI([]string{"FAENA_AUTH=local"})
		if err == nil || !strings.Contains(err.Error(), "FAENA_LISTEN is :8443, which other hosts can reach") {
			t.Errorf("the error is %v", err)
		}
	})
}

// local are settings with which faena-api starts on loopback.
var local = []string{"FAENA_AUTH=local", "FAENA_LISTEN=127.0.0.1:0"}

func TestLoadAPI_Stores(t *testing.T) {
	ca, password := file(t, "ca.pem", "certificate", 0o644), file(t, "password", "hunter2", 0o600)
	_, err := LoadAPI(append([]string{"FAENA_MONGODB_URI=mongodb://h"}, local...))
	if err == nil || !strings.Contains(err.Error(), "FAENA_SEAL_KEY_FILE is missing: with FAENA_MONGODB_URI there may be several APIs") {
		t.Errorf("without a key for all APIs the error is %v", err)
	}
	local := append([]string{"FAENA_SEAL_KEY_FILE=" + password}, local...)
	t.Run("MongoDB and limits of storage", func(t *testing.T) {
		a, err := LoadAPI(append([]string{"FAENA_MONGODB_URI=mongodb://10.0.0.5:27017,10.0.0.6:27017/?replicaSet=rs0", "FAENA_MONGODB_USERNAME=api",
			"FAENA_MONGODB_PASSWORD_FILE=" + password, "FAENA_MONGODB_CA_FILE=" + ca, "FAENA_GROUP_MAX_STORE=4GiB", "RUNTIME_DIRECTORY=/run/a:/run/b"}, local...))
		if err != nil {
			t.Fatal(err)
		}
		if a.MongoDB.Database != "faena" || string(a.MongoDB.PasswordFile.Secret.Reveal()) != "hunter2" || a.MongoDB.CAFile == "" ||
			a.Storage != (Storage{MaxStore: 8 << 30, GroupStore: 4 << 30}) || a.AdminSocket != "/run/a/admin.sock" {
			t.Errorf("the settings are %+v", a)
		}
	})
	t.Run("a name that is looked up", func(t *testing.T) {
		if _, err := LoadAPI(append([]string{"FAENA_MONGODB_URI=mongodb+srv://db.example.org"}, local...)); err != nil {
			t.Error(err)
		}
	})
	const uri = "FAENA_MONGODB_URI=mongodb://h "
	for name, c := range map[string]struct{ env, want string }{
		"password in the address":   {"FAENA_MONGODB_URI=mongodb://ann:hunter2@h/db", "FAENA_MONGODB_URI has a user or password: secrets are files, use FAENA_MONGODB_USERNAME and FAENA_MONGODB_PASSWORD_FILE"},
		"password with a slash":     {"FAENA_MONGODB_URI=mongodb://ann:hun/ter2@h/db", "FAENA_MONGODB_URI has a user or password: secrets are files, use FAENA_MONGODB_USERNAME and FAENA_MONGODB_PASSWORD_FILE"},
		"another scheme":            {"FAENA_MONGODB_URI=http://ann:hunter2@h", "FAENA_MONGODB_URI is no address of servers, such as mongodb://10.0.0.5:27017,10.0.0.6:27017/?replicaSet=rs0"},
		"no server":                 {"FAENA_MONGODB_URI=mongodb:///db", "FAENA_MONGODB_URI is no address of servers, such as mongodb://10.0.0.5:27017,10.0.0.6:27017/?replicaSet=rs0"},
		"database":                  {uri + "FAENA_MONGODB_DATABASE=a.b", `FAENA_MONGODB_DATABASE is "a.b", must be 1 to 63 letters, digits, - and _`},
		"user without a password":   {uri + "FAENA_MONGODB_USERNAME=api", "FAENA_MONGODB_PASSWORD_FILE is missing: FAENA_MONGODB_USERNAME is of no use without; give both, or none"},
		"password without a user":   {uri + "FAENA_MONGODB_PASSWORD_FILE=" + password, "FAENA_MONGODB_USERNAME is missing: FAENA_MONGODB_PASSWORD_FILE is of no use without; give both, or none"},
		"CA of nothing":             {"FAENA_MONGODB_CA_FILE=" + ca, "FAENA_MONGODB_CA_FILE is of no use without FAENA_MONGODB_URI"},
		"user of nothing":           {"FAENA_MONGODB_USERNAME=api", "FAENA_MONGODB_USERNAME is of no use without FAENA_MONGODB_URI"},
		"password of nothing":       {"FAENA_MONGODB_PASSWORD_FILE=" + password, "FAENA_MONGODB_PASSWORD_FILE is of no use without FAENA_MONGODB_URI"},
		"a server out of range":     {"FAENA_NATS_MAX_STORE=2048TiB", "FAENA_NATS_MAX_STORE is 2048TiB, must be from 256MiB to 1024TiB"},
		"a group that is small":     {"FAENA_GROUP_MAX_STORE=1MiB", "FAENA_GROUP_MAX_STORE is 1MiB, must be from 64MiB to 1024TiB"},
		"a group over its server":   {"FAENA_NATS_MAX_STORE=1GiB", "FAENA_GROUP_MAX_STORE is 2GiB, must not be above FAENA_NATS_MAX_STORE, which is 1GiB"},
		"kept for too short a time": {"FAENA_ASYNC_START_WITHIN=167h", "FAENA_RETENTION is 168h, must be more than 168h (FAENA_ASYNC_START_WITHIN and an hour) and at most 9600h"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadAPI(append(strings.Fields(c.env), local...))
			if err == nil || err.Error() != "a setting is wrong: "+c.want {
				t.Errorf("the error is %v\nwant %s", err, c.want)
			}
		})
	}
}

// What a command needs of the settings does not hang on those that only the daemon needs.
func TestAPIPaths(t *testing.T) {
	for name, c := range map[string]struct {
		environ      []string
		data, socket string
	}{
		"nothing set":     {nil, "/var/lib/faena-api", "/run/faena-api/admin.sock"},
		"by systemd":      {[]string{"STATE_DIRECTORY=/s", "RUNTIME_DIRECTORY=/r"}, "/s", "/r/admin.sock"},
		"by the operator": {[]string{"STATE_DIRECTORY=/s", "FAENA_DATA_DIR=/d", "FAENA_ADMIN_SOCKET=/a.sock", "FAENA_COLOUR=red"}, "/d", "/a.sock"},
	} {
		if data, socket := APIPaths(c.environ); data != c.data || socket != c.socket {
			t.Errorf("%s: they are %s and %s", name, data, socket)
		}
	}
	if dir := WorkerDataDir([]string{"STATE_DIRECTORY=/s"}); dir != "/s" {
		t.Errorf("the worker's is %s", dir)
	}
}

func TestLoadWorker(t *testing.T) {
	t.Run("the defaults are right", func(t *testing.T) {
		w, err := LoadWorker(nil)
		if err != nil || w.DataDir != "/var/lib/faena-worker" || w.Pool.Group != "default" {
			t.Errorf("the settings are %+v, %v", w, err)
		}
	})
	for name, c := range map[string]struct{ env, want string }{
		"password in the address": {"FAENA_NATS_URLS=nats://bob:hunter2@10.0.0.5:4222", "FAENA_NATS_URLS has a user or password: secrets are files, use FAENA_NATS_NKEY_FILE"},
		"no server's address":     {"FAENA_NATS_URLS=http://bob:hunter2@h", "FAENA_NATS_URLS has what is no address of a server, such as nats://10.0.0.5:4222"},
		"no server":               {"FAENA_NATS_URLS=,", "FAENA_NATS_URLS is empty, must name a server such as nats://127.0.0.1:4222"},
		"replicas":                {"FAENA_NATS_REPLICAS=2", "FAENA_NATS_REPLICAS is 2, must be 1 or 3"},
		"unreadable seed":         {"FAENA_NATS_NKEY_FILE=/nonexistent", `FAENA_NATS_NKEY_FILE is "/nonexistent": it cannot be read: no such file or directory; right would be the path of a file that this daemon and no stranger may read (chmod 0600)`},
		"no setting":              {"FAENA_COLOUR=red", "FAENA_COLOUR is no setting of this daemon: remove it; all settings are in docs/settings.md (/usr/share/doc/faena-cli), and in /etc/faena/worker.env of the package"},
		"the API's setting":       {"FAENA_AUTH=local", "FAENA_AUTH is no setting of this daemon, it is one of faena-api: remove it here"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadWorker([]string{c.env})
			if err == nil || err.Error() != "a setting is wrong: "+c.want {
				t.Errorf("the error is %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestSecret_IsNeverPrinted(t *testing.T) {
	key := file(t, "key.pem", "hunter2", 0o600)
	u, err := LoadUp([]string{"FAENA_DATA_DIR=/srv", "FAENA_TLS_CERT_FILE=" + key, "FAENA_TLS_KEY_FILE=" + key})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("settings", "up", u, "secret", u.Serve.TLSKeyFile.Secret)
	slog.New(slog.NewTextHandler(&log, nil)).Info("settings", "up", u, "secret", u.Serve.TLSKeyFile.Secret)
	asJSON, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	number := fmt.Sprint([]byte("hunter2"))
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %x", u, u, u, u.Serve.TLSKeyFile, u.Serve.TLSKeyFile.Secret), log.String(), string(asJSON)} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, number[1:len(number)-1]) || strings.Contains(text, "68756e746572") {
			t.Errorf("the secret shows in %s", text)
		}
	}
}

// A setting with no name, or two with one, would be found by nobody.
func TestSettings(t *testing.T) {
	for _, daemon := range []any{&Up{}, &API{}, &Worker{}} {
		names := map[string]bool{}
		for _, s := range Settings(daemon) {
			if names[s.Name] || s.Name == prefix || s.Name != strings.ToUpper(s.Name) {
				t.Errorf("%T has the setting %q twice, or it is no name", daemon, s.Name)
			}
			names[s.Name] = true
			secret := s.value.Type() == reflect.TypeFor[SecretFile]() || s.value.Type() == reflect.TypeFor[File]()
			if strings.HasSuffix(s.Name, "_FILE") != secret {
				t.Errorf("%s: a setting is called _FILE where it names a file, and only then", s.Name)
			}
		}
	}
}
