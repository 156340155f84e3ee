package config

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// DefaultUp returns the settings of `faena up` before any variable is read. What depends on the host is empty.
func DefaultUp() Up {
	return Up{
		RegistryListen: "127.0.0.1:8082",
		Serve:          Serve{Listen: "127.0.0.1:8080", OperationsListen: "127.0.0.1:8081", Auth: AuthLocal},
		Log:            Log{Level: slog.LevelInfo},
		Limits:         defaultLimits(),
		Retention:      defaultRetention(),
		Server:         Server{Sync: SyncInterval, MaxStore: 8 << 30},
		Worker:         defaultPool(),
		Engine:         defaultEngine(),
	}
}

// DefaultAPI returns the settings of faena-api before any variable is read. What depends on the host is empty.
func DefaultAPI() API {
	return API{
		Serve:     Serve{Listen: ":8443", OperationsListen: "127.0.0.1:8081", Auth: AuthGateway},
		Log:       Log{Level: slog.LevelInfo},
		Limits:    defaultLimits(),
		Retention: defaultRetention(),
		MongoDB:   MongoDB{Database: "faena"},
		NATS:      defaultNATS(),
		Storage:   Storage{MaxStore: 8 << 30, GroupStore: 2 << 30},
	}
}

// DefaultWorker returns the settings of faena-worker before any variable is read. What depends on the host is empty.
func DefaultWorker() Worker {
	return Worker{
		OperationsListen: "127.0.0.1:8083",
		Log:              Log{Level: slog.LevelInfo},
		NATS:             defaultNATS(),
		Pool:             defaultPool(),
		Engine:           defaultEngine(),
	}
}

func defaultLimits() Limits {
	return Limits{MaxParameter: 6 << 20, AsyncStartWithin: 24 * time.Hour, BacklogLimit: 10_000, DrainAfter: 20 * time.Second}
}

func defaultRetention() Retention { return Retention{Age: 7 * 24 * time.Hour, Bytes: 10 << 30} }

func defaultNATS() NATS { return NATS{URLs: List{"nats://127.0.0.1:4222"}, Replicas: 1} }

func defaultPool() Pool {
	return Pool{Group: "default", Containers: 256, IdleTTL: 10 * time.Minute, Starts: 2, DrainWithin: 630 * time.Second,
		DiskHigh: 0.85, DiskLow: 0.75, DiskMinFree: 1 << 30}
}

func defaultEngine() Engine { return Engine{Network: "faena"} }

// adminSocket is the name of the admin socket where no setting has its path.
const adminSocket = "admin.sock"

// complete fills in what depends on the host and on variables that are not ours.
func (u *Up) complete(env environment) {
	u.DataDir = cmp.Or(u.DataDir, first(env["STATE_DIRECTORY"]))
	if u.DataDir == "" && os.Geteuid() == 0 {
		u.DataDir = "/var/lib/faena"
	}
	if u.DataDir == "" {
		u.DataDir = filepath.Join(cmp.Or(env["XDG_DATA_HOME"], filepath.Join(env["HOME"], ".local", "share")), "faena")
	}
	u.AdminSocket = cmp.Or(u.AdminSocket, filepath.Join(u.DataDir, adminSocket))
	u.Log.complete(env, LogText)
	u.Serve.complete()
	u.Worker.complete()
	u.Engine.complete(env)
}

func (a *API) complete(env environment) {
	a.DataDir = cmp.Or(a.DataDir, first(env["STATE_DIRECTORY"]), "/var/lib/faena-api")
	a.AdminSocket = cmp.Or(a.AdminSocket, filepath.Join(cmp.Or(first(env["RUNTIME_DIRECTORY"]), "/run/faena-api"), adminSocket))
	a.Log.complete(env, LogJSON)
	a.Serve.complete()
}

func (w *Worker) complete(env environment) {
	w.DataDir = cmp.Or(w.DataDir, first(env["STATE_DIRECTORY"]), "/var/lib/faena-worker")
	w.Log.complete(env, LogJSON)
	w.Pool.complete()
	w.Engine.complete(env)
}

// first is the first of the directories that systemd made for the service.
func first(directories string) string {
	dir, _, _ := strings.Cut(directories, ":")
	return dir
}

func (l *Log) complete(env environment, otherwise LogFormat) {
	if l.Format == "" && toJournal(env) {
		otherwise = LogJournal
	}
	l.Format = cmp.Or(l.Format, otherwise)
}

// toJournal reports whether standard error is the stream to the journal that systemd has opened for this process, and not for one that it
// comes from.
func toJournal(env environment) bool {
	var device, inode uint64
	if _, err := fmt.Sscanf(env["JOURNAL_STREAM"], "%d:%d", &device, &inode); err != nil {
		return false
	}
	info, err := os.Stderr.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Dev == device && stat.Ino == inode
}

func (s *Serve) complete() {
	s.Instance = cmp.Or(s.Instance, hostID())
	s.Arch = cmp.Or(s.Arch, runtime.GOARCH)
}

func (p *Pool) complete() { p.ID = cmp.Or(p.ID, hostID()) }

func (e *Engine) complete(env environment) {
	e.DockerHost = cmp.Or(e.DockerHost, env["DOCKER_HOST"], "unix:///var/run/docker.sock")
	if e.InitPath != "" {
		return
	}
	e.InitPath = "/usr/lib/faena/faena-init"
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "faena-init")
		if _, err := os.Stat(beside); err == nil {
			e.InitPath = beside
		}
	}
}

// hostID is the host's name as an instance or a worker may be called.
func hostID() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "local" // only one such host can be in an installation; a second is refused for its lock or its subject
	}
	id := strings.Map(func(r rune) rune {
		if r < 128 && idRune(byte(r)) {
			return r
		}
		return '-'
	}, name)
	return id[:min(len(id), maxID)]
}
