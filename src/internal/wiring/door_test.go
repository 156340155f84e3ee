package wiring_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/wiring"
)

// childAPI is the argument that makes the test's program a faena-api: sockets are passed to a process.
const childAPI = "be-faena-api"

func beAPI() int {
	if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil { // as systemd does after its fork
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return wiring.APIMain(ctx, nil, os.Stdin, os.Stdout, os.Stderr, os.Environ())
}

// activated is a faena-api whose socket systemd has opened: it is there before the daemon, and after it.
type activated struct {
	url, ops string
	client   *http.Client // which gives up a connection whose handshake takes longer than gateways allow
	environ  []string
	socket   *os.File
}

func newActivated(t *testing.T, natsURL string) *activated {
	t.Helper()
	ca := faenatest.NewCA(t)
	cert := ca.Issue("api")
	a := &activated{}
	var address string
	a.environ, address, a.ops = apiSettings(t, shortDir(t), "FAENA_NATS_URLS="+natsURL, "FAENA_TLS_CERT_FILE="+cert.CertFile, "FAENA_TLS_KEY_FILE="+cert.KeyFile)
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if a.socket, err = l.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.socket.Close() })
	_ = l.Close() // the file is another descriptor of it
	a.url = "https://" + address
	a.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: ca.Client(), TLSHandshakeTimeout: 4 * time.Second, DisableKeepAlives: true}}
	return a
}

// start starts the daemon, which is told to stop, and must end well, when the test ends or stop is called.
func (a *activated) start(t *testing.T) (stop func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), self, childAPI)
	cmd.Env = append(a.environ, "LISTEN_FDS=1", "LISTEN_FDNAMES=api")
	cmd.ExtraFiles = []*os.File{a.socket}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		killed := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer killed.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("it ends with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// answer is what a call was told.
type answer struct {
	err    error
	status int
	again  string // Retry-After
	took   time.Duration
	problem
}

type problem struct {
	Reason    string   `json:"reason"`
	Detail    string   `json:"detail"`
	Retryable bool     `json:"retryable"`
	Missing   []string `json:"missing"`
}

func (a *activated) call(ctx context.Context, t *testing.T, method, path string) (got answer) {
	t.Helper()
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, strings.NewReader("a parameter"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := a.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = res.Body.Close() }()
	got = answer{status: res.StatusCode, again: res.Header.Get("Retry-After"), took: time.Since(began)}
	text, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(text, &got.problem)
	}
	got.err = err
	return got
}

// activate makes a call for an activation without credentials, and returns what it is told.
func (a *activated) activate(ctx context.Context, t *testing.T) <-chan answer {
	t.Helper()
	told := make(chan answer, 1)
	go func() { told <- a.call(ctx, t, http.MethodPost, "/v1/functions/any/activations") }()
	return told
}

// The only NATS server takes connections and says nothing, as one does that hangs.
func TestRunAPI_PassedSocket(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t, natstest.Options{})
	nats.Stop(0)
	silent, err := net.Listen("tcp", strings.TrimPrefix(nats.URLs()[0], "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	a := newActivated(t, nats.URLs()[0])
	isTold := func(got answer) {
		t.Helper()
		if got.err != nil || got.status != http.StatusServiceUnavailable || got.Reason != "starting" || !got.Retryable || got.again != "2" {
			t.Errorf("it is told %+v", got)
		}
	}
	early := a.activate(t.Context(), t)
	stop := a.start(t)
	isTold(<-early) // after what a start usually takes
	again := a.call(t.Context(), t, http.MethodPost, "/v1/functions/any/activations")
	isTold(again)
	if again.took > 4*time.Second {
		t.Errorf("who asks again waits %v", again.took)
	}
	if got := a.call(t.Context(), t, http.MethodGet, "/healthz"); got.err != nil || got.status != http.StatusOK {
		t.Errorf("its health is %+v", got)
	}
	if got := a.call(t.Context(), t, http.MethodGet, "/readyz"); got.err != nil || got.status != http.StatusServiceUnavailable || got.Reason != "not_ready" || len(got.Missing) == 0 {
		t.Errorf("its readiness is %+v", got)
	}
	(*daemons)(nil).says(t, a.ops, http.StatusServiceUnavailable, "queue: ")
	stop()
	a.start(t)
	if err := silent.Close(); err != nil {
		t.Fatal(err)
	}
	nats.Start(t, 0)
	(*daemons)(nil).says(t, a.ops, http.StatusOK, `"ready":true`)
	if got := a.call(t.Context(), t, http.MethodPost, "/v1/functions/any/activations"); got.err != nil || got.status != http.StatusUnauthorized {
		t.Errorf("when it has started a call is told %+v", got)
	}
}

// Whoever calls while an API is restarted is answered by it, and not told that it was away.
func TestRunAPI_PassedSocketAndAllThere(t *testing.T) {
	t.Parallel()
	a := newActivated(t, natstest.Start(t, natstest.Options{}).URLs()[0])
	for range 2 {
		early := a.activate(t.Context(), t)
		stop := a.start(t)
		if got := <-early; got.err != nil || got.status != http.StatusUnauthorized {
			t.Errorf("who called before the start is told %+v", got)
		}
		stop()
	}
}

// Who waits when an API is stopped before it was there is answered.
func TestRunAPI_PassedSocketAndStopped(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	a := newActivated(t, "nats://"+silent.Addr().String())
	stop := a.start(t)
	sent := make(chan struct{})
	waits := a.activate(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { close(sent) }}), t)
	<-sent
	stop()
	if got := <-waits; got.err != nil || got.Reason != "starting" {
		t.Errorf("it is told %+v: %v", got, got.err)
	}
}
