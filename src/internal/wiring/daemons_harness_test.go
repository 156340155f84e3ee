package wiring_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/wiring"
)

// daemons are faena-api and faena-worker beside each other, with a NATS server and a Docker Engine that a test can take
// away and give back.
type daemons struct {
	nats                  *natstest.Servers
	engine                *relay
	url, apiOps, workerOp string
	worker                string
	fixture               string
	admin                 *client.Client
	stopWorker            func() // returns when it has drained
}

// startDaemons starts both from their settings, as their programs do. They are stopped, and must leave no container,
// when the test ends.
func startDaemons(t *testing.T) *daemons {
	t.Helper()
	dir := shortDir(t)
	images := faenatest.Registry(t, faenatest.RegistryOptions{Username: puller.Username, Password: puller.Password})
	i := &installation{registry: images}
	d := &daemons{nats: natstest.Start(t, natstest.Options{}), engine: relayEngine(t, filepath.Join(dir, "engine")), worker: "test-" + filepath.Base(dir),
		workerOp: freeAddress(t), fixture: i.push(t, "fixture", faenatest.ImageSpec{Entrypoint: []string{faenatest.FixturePath}})}
	shared := []string{"FAENA_NATS_URLS=" + d.nats.URLs()[0], "FAENA_REGISTRY_PRIVATE_HOSTS=" + images}
	settings, url, ops := apiSettings(t, filepath.Join(dir, "api"), shared...)
	d.url, d.apiOps = url, ops
	api, err := config.LoadAPI(settings)
	if err != nil {
		t.Fatal(err)
	}
	worker, err := config.LoadWorker(append([]string{"FAENA_DATA_DIR=" + filepath.Join(dir, "w"), "FAENA_WORKER_ID=" + d.worker, "FAENA_WORKER_DRAIN_WITHIN=10s",
		"FAENA_OPERATIONS_LISTEN=" + d.workerOp, "FAENA_DOCKER_HOST=unix://" + d.engine.path, "FAENA_INIT_PATH=" + faenatest.InitBinary(t), "FAENA_DISK_MIN_FREE=1MiB"}, shared...))
	if err != nil {
		t.Fatal(err)
	}
	faenatest.NoContainersLeft(t, d.worker)
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	start(t, "faena-api", func(ctx context.Context) error { return wiring.RunAPI(ctx, api, log) })
	d.ready(t, d.apiOps)
	d.stopWorker = start(t, "faena-worker", func(ctx context.Context) error { return wiring.RunWorker(ctx, worker, log) })
	d.ready(t, d.workerOp)
	if r := command(t, wiring.APIMain, settings, "a-password-of-"+wiring.FirstAdmin, "admin", "create", wiring.FirstAdmin, "--password-stdin"); r.code != 0 {
		t.Fatalf("no admin can be made: %s", r.errs)
	}
	d.admin = d.login(t, wiring.FirstAdmin)
	d.makeGroup(t, filepath.Join(dir, "w", "seal.key"))
	return d
}

// makeGroup gives the default group the key that its worker has made for itself, and waits until a worker of it was seen.
func (d *daemons) makeGroup(t *testing.T, key string) {
	t.Helper()
	identity, err := seal.LoadOrCreate(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read[client.Group](d.admin.PutGroup(t.Context(), faena.DefaultGroup, client.GroupKeys{Recipient: identity.Recipient()})); err != nil {
		t.Fatal(err)
	}
	faenatest.EventuallyNil(t, 10*time.Second, "the group is not pending", func() error {
		g, err := client.Read[client.Group](d.admin.GetGroup(t.Context(), faena.DefaultGroup))
		if err == nil && g.State == client.GroupStatePending {
			err = errors.New("it is pending")
		}
		return err
	})
}

// start runs a daemon until stop is called or the test ends; it must not fail.
func start(t *testing.T, name string, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with: %v", name, err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (d *daemons) login(t *testing.T, user string) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URL: "http://" + d.url, Username: user, Password: "a-password-of-" + user})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// missing asks a daemon's operations listener what it lacks.
func missing(t *testing.T, address string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error() // it does not listen yet
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// ready waits until a daemon lacks nothing.
func (d *daemons) ready(t *testing.T, address string) {
	d.says(t, address, http.StatusOK, `"missing":[]`)
}

// says waits until a daemon answers to a health check with a status and words.
func (d *daemons) says(t *testing.T, address string, status int, words string) {
	t.Helper()
	last := ""
	defer func() {
		if t.Failed() {
			t.Logf("at last it said: %s", last)
		}
	}()
	faenatest.Eventually(t, 20*time.Second, address+" says "+words, func() bool {
		var got int
		got, last = missing(t, address)
		return got == status && strings.Contains(last, words)
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
