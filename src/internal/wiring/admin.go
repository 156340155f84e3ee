package wiring

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/telemetry"
)

// Paths on the admin socket.
const (
	adminsPath     = "/admins"
	natsConfigPath = "/nats-config"
)

const (
	// maxAdminBody bounds what is read of a request.
	maxAdminBody = 16 << 10
	// adminFor bounds one request: a hash takes its turn.
	adminFor = 30 * time.Second
)

// admins makes admins and groups; control.Control does.
type admins interface {
	CreateAdmin(ctx context.Context, name, password string) (created bool, err error)
	PutGroup(ctx context.Context, g faena.Group) (created bool, err error)
}

// admin is what an API does for root on its own host, over a Unix socket: it makes an admin, and gives a lost one a new
// password, where nobody could ask for that over REST.
type admin struct {
	groups   func(context.Context) ([]faena.Group, error)
	nkey     string // the APIs' public one; "" where they have none
	generate bool   // passwords are checked here: one is made where none is given
	missing  telemetry.Ready
	log      *slog.Logger

	mu      sync.Mutex
	admins  admins   // nil until the API is put together
	backups *backups // likewise
}

// newAdmin is the body of POST /admins, and adminMade the answer. Password is in the answer where it was generated.
type newAdmin struct {
	Name     string `json:"name"`
	Password string `json:"password,omitempty"`
}

type adminMade struct {
	Created  bool   `json:"created"`
	Password string `json:"password,omitempty"`
}

// refusal is the body of every answer that is none of success.
type refusal struct {
	Error string `json:"error"`
}

// takes lets admins be made from now on.
func (a *admin) takes(use admins) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.admins = use
}

// backsUp lets backups be made from now on.
func (a *admin) backsUp(b *backups) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.backups = b
}

// serve serves on the socket until stop is called, which removes it.
func (a *admin) serve(ctx context.Context, path string) (stop func() error, err error) {
	listener, err := listenUnix(ctx, path)
	if err != nil {
		return nil, adminSocketError(path, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+adminsPath, a.create)
	mux.HandleFunc("GET "+natsConfigPath, a.natsConfig)
	mux.HandleFunc("PUT "+groupsPath+"{name}", a.putGroup)
	all := http.NewServeMux()
	all.HandleFunc("POST "+backupPath, a.backup) // it has deadlines of its own
	all.Handle("/", http.TimeoutHandler(mux, adminFor, `{"error":"it took too long"}`))
	server := &http.Server{Handler: knownPeers(all),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: adminFor + 10*time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: maxAdminBody, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		ConnContext: withPeer}
	done := make(chan error, 1)
	go func() { done <- closed(server.Serve(listener)) }()
	return func() error {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if server.Shutdown(end) != nil {
			_ = server.Close() // whoever is cut off asks again
		}
		return <-done
	}, nil
}

// adminSocketError says of the admin socket what is wrong. What no other try mends is a settingError.
func adminSocketError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EROFS):
		return wrong("open the admin socket %s, which FAENA_ADMIN_SOCKET names: %w. Name a path that this daemon may write to", path, err)
	}
	return fmt.Errorf("open the admin socket, which FAENA_ADMIN_SOCKET names: %w", err)
}

func (a *admin) create(w http.ResponseWriter, r *http.Request) {
	var body newAdmin
	use, ok := a.read(w, r, &body)
	if !ok {
		return
	}
	made := adminMade{}
	if body.Password == "" && a.generate {
		body.Password = strings.ToLower(rand.Text())
		made.Password = body.Password
	}
	created, err := use.CreateAdmin(r.Context(), body.Name, body.Password)
	if err != nil {
		refuseFor(w, err)
		return
	}
	made.Created = created
	a.log.Info("a user was made an admin over the admin socket", "user", body.Name, "created", created)
	answer(w, http.StatusOK, made)
}

// read reads the body of a request to the API itself, which must be there. Where something is wrong the caller is told so.
func (a *admin) read(w http.ResponseWriter, r *http.Request, body any) (use admins, ok bool) {
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody))
	in.DisallowUnknownFields()
	if err := in.Decode(body); err != nil {
		refuse(w, http.StatusBadRequest, "the request cannot be read: it is not of this version of faena-api")
		return nil, false
	}
	a.mu.Lock()
	use = a.admins
	a.mu.Unlock()
	if use == nil {
		missing, _ := a.missing(r.Context())
		refuse(w, http.StatusServiceUnavailable, "faena-api is not ready: "+strings.Join(missing, "; "))
		return nil, false
	}
	return use, true
}

// refuseFor says why something could not be done.
func refuseFor(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if faena.IsKind(err, faena.KindInvalid) || faena.IsKind(err, faena.KindConflict) {
		status = http.StatusUnprocessableEntity
	}
	refuse(w, status, err.Error())
}

func (a *admin) natsConfig(w http.ResponseWriter, r *http.Request) {
	if a.nkey == "" {
		refuse(w, http.StatusUnprocessableEntity, "this API has no nkey that NATS could know it by: set FAENA_NATS_NKEY_FILE, which faena-api keygen writes, and start it again")
		return
	}
	list, err := a.groups(r.Context())
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "the groups cannot be read: "+err.Error())
		return
	}
	keys := make(map[string]string, len(list))
	for _, g := range list {
		if g.Nkey != "" {
			keys[g.Name] = g.Nkey
		}
	}
	block, err := natsbus.Authorization(a.nkey, keys)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(block) // a caller that has gone needs no answer
}

func refuse(w http.ResponseWriter, status int, text string) { answer(w, status, refusal{text}) }

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a caller that has gone needs no answer
}

// peerKey is where a connection's context has the peer.
type peerKey struct{}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peerOf(c))
}

// peerOf asks the kernel who has connected; nil where it does not say.
func peerOf(c net.Conn) *unix.Ucred {
	var peer *unix.Ucred
	conn, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	if err := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil
	}
	return peer
}

// knownPeers refuses everybody but root and the user that the daemon runs as. The mode of the socket does so already; this holds
// where it was changed.
func knownPeers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := r.Context().Value(peerKey{}).(*unix.Ucred)
		if peer == nil || peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
			refuse(w, http.StatusForbidden, "only root, and the user that this daemon runs as, may do that")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// listenUnix listens on a socket that only its owner may connect to, in a directory that it makes for him alone where there is
// none. What a process that has died left there is replaced.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != os.ModeSocket:
		return nil, wrong("%s is there, and is no socket: move it away, or name another path", path)
	default:
		if err := removeStale(ctx, path); err != nil {
			return nil, err
		}
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// removeStale removes a socket that nobody listens on.
func removeStale(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close() // it has said what was asked
		return wrong("another process listens at %s, probably another faena-api of this host, which ss -lxp shows: end it, or name another path", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return err
}
