package config

import (
	"cmp"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// checks collects what is wrong with settings that could be read.
type checks struct{ problems Problems }

func (c *checks) fail(setting, format string, args ...any) {
	c.problems = append(c.problems, Problem{prefix + setting, fmt.Sprintf(format, args...)})
}

// between checks a range, both ends included.
func between[T cmp.Ordered](c *checks, setting string, v, least, most T) {
	if !(least <= v && v <= most) { // not the other way round: NaN is in no range
		c.fail(setting, "is %v, must be from %v to %v", write(v), write(least), write(most))
	}
}

// together checks that of two settings both are given or none.
func (c *checks) together(a string, hasA bool, b string, hasB bool) {
	if hasA && !hasB {
		c.fail(b, "is missing: %s%s is of no use without; give both, or none", prefix, a)
	}
	if hasB && !hasA {
		c.fail(a, "is missing: %s%s is of no use without; give both, or none", prefix, b)
	}
}

// maxDir leaves room, in the 107 bytes of a Unix socket's path, for what a worker adds to its directory.
const maxDir = 64

func (c *checks) dir(setting, path string) {
	switch {
	case !filepath.IsAbs(path):
		c.fail(setting, "is %s, must be an absolute path", quote(path))
	case len(path) > maxDir:
		c.fail(setting, "is %d bytes long, must be at most %d: the paths of sockets in it would not fit", len(path), maxDir)
	}
}

// maxSocket is how long the path of a Unix socket can be.
const maxSocket = 107

func (c *checks) socket(setting, path string) {
	switch {
	case !filepath.IsAbs(path):
		c.fail(setting, "is %s, must be an absolute path", quote(path))
	case len(path) > maxSocket:
		c.fail(setting, "is %d bytes long, a socket's path has at most %d", len(path), maxSocket)
	}
}

const maxID = 63

func idRune(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_'
}

func (c *checks) id(setting, id string) {
	other := strings.ContainsFunc(id, func(r rune) bool { return r > 127 || !idRune(byte(r)) })
	if id == "" || len(id) > maxID || other {
		c.fail(setting, "is %s, must be 1 to %d letters, digits, - and _", quote(id), maxID)
	}
}

// What a NATS server may keep, and a group of it: a sixteenth of a group's share must hold some messages of a MiB.
const (
	minStore      Size = 256 << 20
	maxStore      Size = 1 << 50
	minGroupStore Size = 64 << 20
)

func (u *Up) check(c *checks) {
	c.dir("DATA_DIR", u.DataDir)
	if !u.RegistryListen.Loopback() {
		c.fail("REGISTRY_LISTEN", "is %s, must be a loopback address such as 127.0.0.1:8082: it is served without TLS", u.RegistryListen)
	}
	if !u.Serve.OperationsListen.Loopback() && !u.Serve.TLS() {
		c.fail("OPERATIONS_LISTEN", "is %s, must be a loopback address such as 127.0.0.1:8081 while the API has no certificate",
			u.Serve.OperationsListen)
	}
	if u.AdminSocket != filepath.Join(u.DataDir, adminSocket) { // what is wrong with the directory is said already
		c.socket("ADMIN_SOCKET", u.AdminSocket)
	}
	u.Serve.check(c)
	u.Limits.check(c)
	u.Retention.check(c, u.Limits)
	between(c, "NATS_MAX_STORE", u.Server.MaxStore, minStore, maxStore)
	u.Worker.check(c)
	u.Engine.check(c)
}

func (a *API) check(c *checks) {
	if a.MongoDB.URI != "" && a.SealKeyFile.Path == "" {
		c.fail("SEAL_KEY_FILE", "is missing: with FAENA_MONGODB_URI there may be several APIs, which must share one; faena-api keygen makes it")
	}
	c.dir("DATA_DIR", a.DataDir)
	c.socket("ADMIN_SOCKET", a.AdminSocket)
	a.Serve.check(c)
	a.Limits.check(c)
	a.Retention.check(c, a.Limits)
	a.MongoDB.check(c)
	a.NATS.check(c)
	between(c, "NATS_MAX_STORE", a.Storage.MaxStore, minStore, maxStore)
	between(c, "GROUP_MAX_STORE", a.Storage.GroupStore, minGroupStore, maxStore)
	if a.Storage.GroupStore > a.Storage.MaxStore {
		c.fail("GROUP_MAX_STORE", "is %v, must not be above FAENA_NATS_MAX_STORE, which is %v", a.Storage.GroupStore, a.Storage.MaxStore)
	}
}

func (w *Worker) check(c *checks) {
	c.dir("DATA_DIR", w.DataDir)
	w.NATS.check(c)
	w.Pool.check(c)
	w.Engine.check(c)
}

func (s *Serve) check(c *checks) {
	c.together("TLS_CERT_FILE", s.TLSCertFile != "", "TLS_KEY_FILE", s.TLSKeyFile.Path != "")
	if !s.Listen.Loopback() && s.TLSCertFile == "" && s.TLSKeyFile.Path == "" {
		c.fail("LISTEN", "is %s, which other hosts can reach: give FAENA_TLS_CERT_FILE and FAENA_TLS_KEY_FILE, or a loopback address such as 127.0.0.1:8080",
			s.Listen)
	}
	c.id("INSTANCE", s.Instance)
	if !slices.Contains([]string{"amd64", "arm64"}, s.Arch) {
		c.fail("ARCH", "is %s, must be amd64 or arm64", quote(s.Arch))
	}
	s.checkAuth(c)
}

func (s *Serve) checkAuth(c *checks) {
	if s.Auth == AuthLocal {
		if s.GatewayCAFile != "" {
			c.fail("AUTH_GATEWAY_CA_FILE", "is given, but FAENA_AUTH is local: set FAENA_AUTH=gateway or leave it out")
		}
		if s.GatewaySAN != "" {
			c.fail("AUTH_GATEWAY_SAN", "is given, but FAENA_AUTH is local: set FAENA_AUTH=gateway or leave it out")
		}
		return
	}
	const because = "FAENA_AUTH=gateway believes a header from the gateway alone, which it must be able to recognise"
	if s.GatewayCAFile == "" {
		c.fail("AUTH_GATEWAY_CA_FILE", "is missing: %s", because)
	}
	if s.GatewaySAN == "" {
		c.fail("AUTH_GATEWAY_SAN", "is missing: %s", because)
	}
	if s.TLSCertFile == "" {
		c.fail("TLS_CERT_FILE", "is missing: %s by its client certificate", because)
	}
}

func (l *Limits) check(c *checks) {
	between(c, "MAX_PARAMETER", l.MaxParameter, 1, 64<<20)
	between(c, "ASYNC_START_WITHIN", l.AsyncStartWithin, time.Second, 7*24*time.Hour)
	between(c, "BACKLOG_LIMIT", l.BacklogLimit, 0, 1_000_000)
	between(c, "DRAIN_AFTER", l.DrainAfter, 0, 10*time.Minute)
}

// maxRetention keeps what a mistyped unit would make of it out.
const maxRetention = 400 * 24 * time.Hour

func (r *Retention) check(c *checks, l Limits) {
	// What has not even begun when its time has come would be forgotten under way.
	if least := l.AsyncStartWithin + time.Hour; r.Age <= least || r.Age > maxRetention {
		c.fail("RETENTION", "is %s, must be more than %s (FAENA_ASYNC_START_WITHIN and an hour) and at most %s", write(r.Age), write(least), write(maxRetention))
	}
	if r.Bytes != 0 {
		between(c, "RETENTION_BYTES", r.Bytes, 64<<20, maxStore)
	}
}

func (m *MongoDB) check(c *checks) {
	if m.URI == "" {
		for setting, given := range map[string]bool{"MONGODB_USERNAME": m.Username != "", "MONGODB_PASSWORD_FILE": m.PasswordFile.Path != "",
			"MONGODB_CA_FILE": m.CAFile != ""} {
			if given {
				c.fail(setting, "is of no use without FAENA_MONGODB_URI")
			}
		}
		return
	}
	// The text is never repeated: a password may stand anywhere in it.
	scheme, rest, _ := strings.Cut(m.URI, "://")
	servers, _, _ := strings.Cut(rest, "/")
	switch {
	case servers == "" || !slices.Contains([]string{"mongodb", "mongodb+srv"}, scheme):
		c.fail("MONGODB_URI", "is no address of servers, such as mongodb://10.0.0.5:27017,10.0.0.6:27017/?replicaSet=rs0")
	case strings.Contains(rest, "@"):
		c.fail("MONGODB_URI", "has a user or password: secrets are files, use FAENA_MONGODB_USERNAME and FAENA_MONGODB_PASSWORD_FILE")
	}
	c.id("MONGODB_DATABASE", m.Database)
	c.together("MONGODB_USERNAME", m.Username != "", "MONGODB_PASSWORD_FILE", m.PasswordFile.Path != "")
}

func (n *NATS) check(c *checks) {
	if len(n.URLs) == 0 {
		c.fail("NATS_URLS", "is empty, must name a server such as nats://127.0.0.1:4222")
	}
	for _, text := range n.URLs {
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls"}, u.Scheme):
			// Nothing of the text is repeated: a password may stand anywhere in it, with an @ and a # even where the host is looked for.
			c.fail("NATS_URLS", "has what is no address of a server, such as nats://10.0.0.5:4222")
		case u.User != nil:
			c.fail("NATS_URLS", "has a user or password: secrets are files, use FAENA_NATS_NKEY_FILE")
		}
	}
	c.together("NATS_CERT_FILE", n.CertFile != "", "NATS_KEY_FILE", n.KeyFile.Path != "")
	if n.Replicas != 1 && n.Replicas != 3 {
		c.fail("NATS_REPLICAS", "is %d, must be 1 or 3", n.Replicas)
	}
}

var (
	groupPattern      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	capabilityPattern = regexp.MustCompile(`^[A-Z][A-Z_]*$`)
)

func (p *Pool) check(c *checks) {
	c.id("WORKER_ID", p.ID)
	if !groupPattern.MatchString(p.Group) {
		c.fail("WORKER_GROUP", "is %s, must match %v", quote(p.Group), groupPattern)
	}
	between(c, "WORKER_PLACES", p.Places, 0, 1000)
	between(c, "WORKER_CPUS", p.CPUs, 0, 1024)
	between(c, "WORKER_CONTAINERS", p.Containers, 1, 1000) // one bridge takes 1,023
	between(c, "WORKER_IDLE_TTL", p.IdleTTL, time.Second, 7*24*time.Hour)
	between(c, "WORKER_STARTS", p.Starts, 1, 64)
	between(c, "WORKER_DRAIN_WITHIN", p.DrainWithin, 0, time.Hour)
	if p.Memory != 0 {
		between(c, "WORKER_MEMORY", p.Memory, 16<<20, 1<<50)
	}
	for _, name := range p.Capabilities {
		if !capabilityPattern.MatchString(name) || strings.HasPrefix(name, "CAP_") {
			c.fail("WORKER_CAPABILITIES", "has %s, must be names such as CHOWN,SETUID,SETGID", quote(name))
		}
	}
	if p.DiskPath != "" && !filepath.IsAbs(p.DiskPath) {
		c.fail("DISK_PATH", "is %s, must be an absolute path", quote(p.DiskPath))
	}
	between(c, "DISK_HIGH", p.DiskHigh, 0.1, 1)
	between(c, "DISK_LOW", p.DiskLow, 0.1, 1)
	if p.DiskLow > p.DiskHigh {
		c.fail("DISK_LOW", "is %g, must not be above FAENA_DISK_HIGH, which is %g", p.DiskLow, p.DiskHigh)
	}
}

func (e *Engine) check(c *checks) {
	u, err := url.Parse(e.DockerHost)
	if err != nil || !slices.Contains([]string{"unix", "tcp"}, u.Scheme) {
		c.fail("DOCKER_HOST", "is %s, must be such as unix:///var/run/docker.sock", quote(e.DockerHost))
	}
	if e.Network == "" || len(e.Network) > maxID {
		c.fail("DOCKER_NETWORK", "is %s, must be 1 to %d bytes", quote(e.Network), maxID)
	}
	if !filepath.IsAbs(e.InitPath) {
		c.fail("INIT_PATH", "is %s, must be an absolute path", quote(e.InitPath))
	}
}
