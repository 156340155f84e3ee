package wiring_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/wiring"
)

// TestAdminSocket is what an operator does on the host of an API, from the first start on. Its parts come in this order.
func TestAdminSocket(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	own, gpu := keys(t, dir), keys(t, filepath.Join(dir, "gpu"))
	nats := natstest.Start(t, natstest.Options{Authorization: authorization(t, own.Nkey)})
	nats.Stop(0)
	environ, url, ops := apiSettings(t, dir, "FAENA_NATS_URLS="+nats.URLs()[0], "FAENA_NATS_NKEY_FILE="+filepath.Join(dir, "nats.nk"))
	socket := filepath.Join(dir, "run", "admin.sock")
	w := startAPIWith(t, environ, ops)
	admin := func(t *testing.T, in string, args ...string) ran {
		t.Helper()
		return command(t, wiring.APIMain, []string{"FAENA_ADMIN_SOCKET=" + socket}, in, args...)
	}
	login := func(t *testing.T, user, password string) *client.Client {
		t.Helper()
		c, err := client.New(client.Options{URL: "http://" + url, Username: user, Password: password})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	// denied is the status of what only an admin may ask for; 0 is none.
	denied := func(t *testing.T, user, password string) int {
		t.Helper()
		_, err := client.Read[client.GroupList](login(t, user, password).ListGroups(t.Context()))
		if err == nil {
			return 0
		}
		return failure(t, err).Status
	}

	t.Run("while NATS is not there", func(t *testing.T) {
		w.says(t, http.StatusServiceUnavailable, "queue: ")
		if r := admin(t, "", "admin", "create", "ann"); r.code != 1 || !strings.Contains(r.errs, "faena-api is not ready: queue: "+nats.URLs()[0]) {
			t.Errorf("an admin is made: it ends with %d: %s", r.code, r.errs)
		}
		if r := admin(t, "", "nats-config"); r.code != 0 || !strings.Contains(r.out, own.Nkey) {
			t.Errorf("the configuration of the server that is missing: it ends with %d: %s%s", r.code, r.out, r.errs)
		}
	})
	nats.Start(t, 0)
	w.becomesReady(t)
	password := ""
	t.Run("the first admin", func(t *testing.T) {
		r := admin(t, "", "admin", "create", "ann")
		password = strings.TrimSpace(r.out)
		if r.code != 0 || len(password) < 20 || !strings.Contains(r.errs, "User ann is new, and an admin.") {
			t.Fatalf("it ends with %d: %s%s", r.code, r.out, r.errs)
		}
		if status := denied(t, "ann", password); status != 0 {
			t.Errorf("she is no admin: %d", status)
		}
		if lines := w.log.lines("over the admin socket"); len(lines) != 1 || !strings.Contains(lines[0], `"user":"ann"`) {
			t.Errorf("the log says %v", lines)
		}
		if len(w.log.lines(password)) > 0 {
			t.Error("the log has the password")
		}
	})
	t.Run("a lost one", func(t *testing.T) {
		r := admin(t, "a-new-password\n", "admin", "create", "--password-stdin", "ann")
		if r.code != 0 || r.out != "" || !strings.Contains(r.errs, "User ann is an admin.") {
			t.Fatalf("it ends with %d: %s%s", r.code, r.out, r.errs)
		}
		if status := denied(t, "ann", "a-new-password"); status != 0 {
			t.Errorf("the new password: %d", status)
		}
		if status := denied(t, "ann", password); status != http.StatusUnauthorized {
			t.Errorf("the old password: %d", status)
		}
	})
	t.Run("of a user", func(t *testing.T) {
		body := client.UserProfile{Groups: map[string]int{"default": 7}, Password: "a-password-of-bob"}
		if _, err := client.Read[client.User](login(t, "ann", "a-new-password").PutUser(t.Context(), "bob", body)); err != nil {
			t.Fatal(err)
		}
		if status := denied(t, "bob", "a-password-of-bob"); status != http.StatusForbidden {
			t.Errorf("he may ask before: %d", status)
		}
		if r := admin(t, "a-password-of-bob", "admin", "create", "bob", "--password-stdin"); r.code != 0 {
			t.Fatalf("it ends with %d: %s", r.code, r.errs)
		}
		u, err := client.Read[client.User](login(t, "bob", "a-password-of-bob").GetUser(t.Context(), "bob"))
		if err != nil || u.Role != client.RoleAdmin || u.Groups["default"] != 7 {
			t.Errorf("he is %+v, %v", u, err)
		}
	})
	t.Run("a group", func(t *testing.T) {
		text := fmt.Sprintf(`{"nkey":%q,"recipient":%q}`, gpu.Nkey, gpu.Recipient)
		for _, says := range []string{"Group gpu is new.", "Group gpu has these keys."} {
			if r := admin(t, text, "groups", "put", "gpu", "--keys", "-"); r.code != 0 || !strings.Contains(r.errs, says) {
				t.Fatalf("it ends with %d: %s, want %q", r.code, r.errs, says)
			}
		}
		if r := admin(t, "", "nats-config"); r.code != 0 || !strings.Contains(r.out, gpu.Nkey) {
			t.Errorf("NATS is not told its key: it ends with %d: %s", r.code, r.errs)
		}
		for in, want := range map[string]string{"{}": "keygen", `{"nkey":"U","recipient":"age1"}`: "nkey", `{"nkey":"U"}`: "missing", `{"seed":"S"}`: "unknown field"} {
			if r := admin(t, in, "groups", "put", "gpu", "--keys", "-"); r.code != 1 || !strings.Contains(r.errs, want) {
				t.Errorf("%s: it ends with %d: %s", in, r.code, r.errs)
			}
		}
		if r := admin(t, text, "groups", "put", "g/u", "--keys", "-"); r.code != 1 {
			t.Errorf("a name: it ends with %d: %s", r.code, r.errs)
		}
	})
	t.Run("what may not be", func(t *testing.T) {
		if r := admin(t, "", "admin", "create", "a.b"); r.code != 1 || !strings.Contains(r.errs, "name: ") {
			t.Errorf("a name: it ends with %d: %s", r.code, r.errs)
		}
		if r := admin(t, "short", "admin", "create", "ann", "--password-stdin"); r.code != 1 || !strings.Contains(r.errs, "password: must be") {
			t.Errorf("a password: it ends with %d: %s", r.code, r.errs)
		}
	})
	t.Run("the keys of the groups", func(t *testing.T) {
		keys := client.GroupKeys{Nkey: gpu.Nkey, Recipient: gpu.Recipient}
		if _, err := client.Read[client.Group](login(t, "ann", "a-new-password").PutGroup(t.Context(), "gpu", keys)); err != nil {
			t.Fatal(err)
		}
		r := admin(t, "", "nats-config")
		if want := string(authorization(t, own.Nkey, "gpu="+gpu.Nkey)); r.code != 0 || r.out != want {
			t.Errorf("it ends with %d: %s\n%s\nwant\n%s", r.code, r.errs, r.out, want)
		}
	})
	t.Run("strangers", func(t *testing.T) { testStrangers(t, socket) })
	t.Run("it is gone when the API has stopped", func(t *testing.T) {
		w.stop()
		if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is not: %v", err)
		}
	})
}

// testStrangers tries the socket as another user: as it is, and where its mode was changed.
func testStrangers(t *testing.T, socket string) {
	for path, want := range map[string]os.FileMode{socket: os.ModeSocket | 0o600, filepath.Dir(socket): os.ModeDir | 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s is %v, %v", path, info, err)
		}
	}
	if conn, err := connectAsNobody(socket); !errors.Is(err, syscall.EACCES) {
		_ = conn.Close()
		t.Errorf("another user connects: %v", err)
	}
	for path, mode := range map[string]os.FileMode{filepath.Dir(socket): 0o755, socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := connectAsNobody(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET /nats-config HTTP/1.1\r\nHost: faena-api\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "only root") {
		t.Errorf("he is answered %s: %s, %v", res.Status, body, err)
	}
}

// connectAsNobody connects to a Unix socket as a user without any rights. The thread that does so has them from then on, and
// ends with its goroutine.
func connectAsNobody(path string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		const nobody = 65534
		var fd int
		if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); e != 0 {
			err = e
			return
		}
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			err = errors.Join(err, unix.Close(fd))
			return
		}
		f := os.NewFile(uintptr(fd), path)
		conn, err = net.FileConn(f)
		err = errors.Join(err, f.Close())
	}()
	<-done
	return conn, err
}

// What stands at the path of the socket when an API starts.
func TestAdminSocket_Path(t *testing.T) {
	t.Parallel()
	listen := func(t *testing.T, path string) *net.UnixListener {
		t.Helper()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for name, c := range map[string]struct {
		prepare func(*testing.T, string)
		want    string // of the error; "" where it starts
	}{
		"a socket of a process that has died": {func(t *testing.T, path string) {
			l := listen(t, path)
			l.SetUnlinkOnClose(false)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}, ""},
		"a socket in use": {func(t *testing.T, path string) {
			l := listen(t, path)
			t.Cleanup(func() { _ = l.Close() })
		}, "another process listens at PATH, probably another faena-api of this host, which ss -lxp shows: end it, or name another path"},
		"a file": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "PATH is there, and is no socket: move it away, or name another path"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := shortDir(t)
			path := filepath.Join(dir, "run", "admin.sock")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			c.prepare(t, path)
			environ, _, ops := apiSettings(t, dir, "FAENA_NATS_URLS=nats://"+freeAddress(t))
			if c.want == "" {
				startAPIWith(t, environ, ops).says(t, http.StatusServiceUnavailable, "queue: ")
				if r := command(t, wiring.APIMain, environ, "", "nats-config"); !strings.Contains(r.errs, "this API has no nkey") {
					t.Errorf("it does not answer there: %s", r.errs)
				}
				return
			}
			want := "faena-api: open the admin socket, which FAENA_ADMIN_SOCKET names: " + strings.ReplaceAll(c.want, "PATH", path) + "\n"
			if r := commandWithin(t, wiring.APIMain, append(environ, "FAENA_LOG_FORMAT=journal")); r.code != 3 || r.errs != "<3>"+want {
				t.Errorf("it ends with %d and %s, want %s", r.code, r.errs, want)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("what was there is gone: %v", err)
			}
		})
	}
}
