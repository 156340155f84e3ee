package wiring_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
)

// TestMain lets more tests run at once than there are cores: they wait, mostly for containers to start. With the argument childAPI the
// program is a faena-api.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == childAPI {
		os.Exit(beAPI())
	}
	os.Exit(faenatest.Run(m, 4))
}

// installation is an appliance of a test with its first admin logged in, and a registry that it may reach.
type installation struct {
	appliance *wiring.Appliance
	dir       string // of its data
	worker    string // its worker's id
	admin     *client.Client
	password  string   // the first admin's
	registry  string   // host:port, which asks for puller's password
	fixture   string   // the image of faenatest's fixture program, there
	log       *logBook // all that the appliance says
}

const pullPassword = "correct-horse-battery"

var puller = client.Credentials{Username: "puller", Password: pullPassword}

// install starts an appliance, with changed settings, that is stopped, and must leave no container, when the test ends.
func install(t *testing.T, changes ...func(*config.Up)) *installation {
	t.Helper()
	dir, err := os.MkdirTemp("", "faena") // short: sockets of containers are below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	i := &installation{dir: filepath.Join(dir, "d"), worker: "test-" + filepath.Base(dir), log: &logBook{},
		registry: faenatest.Registry(t, faenatest.RegistryOptions{Username: puller.Username, Password: puller.Password})}
	i.fixture = i.push(t, "fixture", faenatest.ImageSpec{Entrypoint: []string{faenatest.FixturePath}})
	faenatest.NoContainersLeft(t, i.worker)
	log := slog.New(slog.NewMultiHandler(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}),
		slog.NewJSONHandler(i.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	settings := i.settings(t)
	for _, change := range changes {
		change(&settings)
	}
	if i.appliance, err = wiring.NewAppliance(t.Context(), settings, log); err != nil {
		t.Fatal(err)
	}
	if i.password, err = i.appliance.CreateFirstAdmin(t.Context(), func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	i.run(t)
	i.admin = i.login(t, wiring.FirstAdmin, i.password)
	faenatest.EventuallyNil(t, 30*time.Second, "everything is there", func() error {
		r, err := client.Read[client.Readiness](i.admin.GetReadiness(t.Context()))
		if err == nil && len(r.Missing) > 0 {
			err = fmt.Errorf("missing: %v", r.Missing)
		}
		return err
	})
	return i
}

func (i *installation) settings(t *testing.T) config.Up {
	t.Helper()
	c := config.DefaultUp()
	c.DataDir, c.RegistryListen, c.Serve.Listen, c.Serve.OperationsListen = i.dir, "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.AdminSocket = filepath.Join(i.dir, "admin.sock")
	c.Serve.Instance, c.Serve.Arch, c.Worker.ID = "test", runtime.GOARCH, i.worker
	c.Engine.InitPath, c.Engine.DockerHost = faenatest.InitBinary(t), faenatest.Engine(t).Host
	c.Registries.PrivateHosts = config.Hosts{i.registry}
	c.Server.MaxStore, c.Worker.DiskMinFree, c.Limits.DrainAfter, c.Worker.DrainWithin = 1<<30, 1<<20, time.Second, 10*time.Second
	return c
}

// run runs the appliance until the test ends, and returns when it takes activations.
func (i *installation) run(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() { ended <- i.appliance.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, i.appliance.Close()); err != nil {
			t.Errorf("stop the appliance: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("the appliance does not start: %v", err)
	}
}

func (i *installation) login(t *testing.T, user, password string) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URL: i.appliance.URL(), Username: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// user makes a user with a limit and logs him in.
func (i *installation) user(t *testing.T, name string, limit int) *client.Client {
	t.Helper()
	i.limit(t, name, limit, "a-password-of-"+name)
	return i.login(t, name, "a-password-of-"+name)
}

// limit changes a user's limit, and his password where one is given.
func (i *installation) limit(t *testing.T, name string, limit int, password string) {
	t.Helper()
	body := client.UserProfile{Groups: map[string]int{"default": limit}, Password: password}
	if _, err := client.Read[client.User](i.admin.PutUser(t.Context(), name, body)); err != nil {
		t.Fatal(err)
	}
}

func (i *installation) push(t *testing.T, name string, s faenatest.ImageSpec) string {
	t.Helper()
	return faenatest.Push(t, i.registry, name, faenatest.Image(t, s), &faena.Credentials{Username: puller.Username, Password: puller.Password})
}

// unpush removes an image from the registry.
func (i *installation) unpush(t *testing.T, ref string) {
	t.Helper()
	path, digest, _ := strings.Cut(strings.TrimPrefix(ref, i.registry), "@")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://"+i.registry+"/v2"+path+"/manifests/"+digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(puller.Username, puller.Password)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusAccepted {
		t.Fatalf("remove %s: %s, %v", ref, res.Status, err)
	}
}

// deploy deploys a mode of the fixture program as a function. Without one the parameter is the mode.
func (i *installation) deploy(t *testing.T, c *client.Client, name string, change func(*client.Spec), mode ...string) {
	t.Helper()
	spec := client.Spec{Image: i.fixture, Args: mode, MemoryBytes: 32 << 20, Registry: &puller}
	if change != nil {
		change(&spec)
	}
	if _, err := client.Read[client.Function](c.PutFunction(t.Context(), name, &client.PutFunctionParams{}, spec)); err != nil {
		t.Fatal(err)
	}
}

// activate runs a function and returns its result, or the problem.
func activate(ctx context.Context, c *client.Client, name string, parameter []byte) ([]byte, error) {
	out, _, err := call(ctx, c, name, parameter, nil)
	return out, err
}

// call is activate with headers, given and answered.
func call(ctx context.Context, c *client.Client, name string, parameter []byte, with http.Header) ([]byte, http.Header, error) {
	res, err := client.Stream(c.ActivateWithBody(ctx, name, &client.ActivateParams{}, "application/octet-stream", bytes.NewReader(parameter),
		func(_ context.Context, r *http.Request) error {
			for key, values := range with {
				r.Header[key] = values
			}
			return nil
		}))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, res.Header, fmt.Errorf("status %s", res.Status)
	}
	out, err := io.ReadAll(res.Body)
	return out, res.Header, err
}

// must is activate where that succeeds.
func must(t *testing.T, c *client.Client, name, parameter string) string {
	t.Helper()
	out, err := activate(t.Context(), c, name, []byte(parameter))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// async accepts an activation and returns its id.
func async(t *testing.T, c *client.Client, name, parameter string) string {
	t.Helper()
	a, err := client.Read[client.Accepted](c.ActivateWithBody(t.Context(), name, &client.ActivateParams{Prefer: "respond-async"},
		"application/octet-stream", strings.NewReader(parameter)))
	if err != nil {
		t.Fatal(err)
	}
	return a.ActivationID
}

// state waits until an activation is in one of some states.
func state(t *testing.T, c *client.Client, id string, want func(client.State) bool) client.Activation {
	t.Helper()
	var a client.Activation
	faenatest.EventuallyNil(t, 30*time.Second, "activation "+id+" goes on", func() (err error) {
		a, err = client.Read[client.Activation](c.GetActivation(t.Context(), id))
		if err == nil && !want(a.State) {
			err = errors.New(string(a.State))
		}
		return err
	})
	return a
}

func running(t *testing.T, c *client.Client, id string) client.Activation {
	t.Helper()
	return state(t, c, id, func(s client.State) bool { return s == client.StateRunning })
}

func ended(t *testing.T, c *client.Client, id string) client.Activation {
	t.Helper()
	return state(t, c, id, func(s client.State) bool { return s != client.StateQueued && s != client.StateRunning })
}

func failure(t *testing.T, err error) *client.Failure {
	t.Helper()
	f, ok := errors.AsType[*client.Failure](err)
	if !ok {
		t.Fatalf("got %v, want a problem document", err)
	}
	return f
}

// logBook keeps the lines of a log.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// lines are those with a word in them.
func (l *logBook) lines(word string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return found
}
