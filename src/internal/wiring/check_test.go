package wiring

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faenatest"
)

// engineOf is an engine that says what it speaks and no more: one so old cannot be had.
func engineOf(t *testing.T, api string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", api)
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/_ping") {
			return
		}
		_, _ = fmt.Fprintf(w, `{"Version":"19.03.15","ApiVersion":%q}`, api)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return "unix://" + path
}

func TestNewWorker_OldEngine(t *testing.T) {
	host := engineOf(t, "1.40")
	_, err := NewWorker(t.Context(), WorkerOptions{Engine: config.Engine{DockerHost: host, InitPath: faenatest.InitBinary(t)}})
	want := "the Docker Engine at " + host + ", which FAENA_DOCKER_HOST or DOCKER_HOST names, is too old: it is version 19.03.15, with API 1.40, and 20.10, with API 1.41, is the oldest that will do. Upgrade it"
	if _, wrong := errors.AsType[settingError](err); !wrong || oneLine(err) != want {
		t.Errorf("it is %v", err)
	}
}

func TestEngineThere(t *testing.T) {
	if err := engineThere(engineOf(t, "1.41")); err != nil {
		t.Error(err)
	}
	if err := engineThere("tcp://192.0.2.1:2375"); err != nil {
		t.Error(err)
	}
	err := engineThere("unix://" + filepath.Join(t.TempDir(), "none"))
	if _, wrong := errors.AsType[settingError](err); !wrong {
		t.Errorf("one that is not there is %v", err)
	}
}

func TestListenError(t *testing.T) {
	denied := listenError(&os.SyscallError{Syscall: "bind", Err: fs.ErrPermission}, "FAENA_LISTEN", ":443")
	if _, wrong := errors.AsType[settingError](denied); !wrong || !strings.Contains(denied.Error(), "(FAENA_LISTEN is :443): ports below 1024 are root's") {
		t.Errorf("it is %v", denied)
	}
}

func TestProblems(t *testing.T) {
	err := errors.Join(errors.New("one\n  more"), nil, errors.Join(config.Problems{{Setting: "FAENA_A", Text: "is wrong"}, {Setting: "FAENA_B", Text: "too"}}))
	if got := oneLine(err); got != "one more; FAENA_A is wrong; FAENA_B too" {
		t.Errorf("it is %q", got)
	}
}

// An address that somebody has set is not to be passed over in silence.
func TestElsewhere(t *testing.T) {
	for _, c := range []struct {
		set    config.Address
		socket string
		want   bool
	}{
		{config.DefaultAPI().Serve.Listen, "[::]:443", false}, // nobody has set it
		{":443", "[::]:443", false},
		{":9443", "[::]:8443", true},
		{"127.0.0.1:9443", "127.0.0.1:8443", true},
	} {
		if got := elsewhere(c.set, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.socket))); got != c.want {
			t.Errorf("%s and a socket at %s: %v", c.set, c.socket, got)
		}
	}
}
