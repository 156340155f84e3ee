package wiring_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/dockerengine"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
)

// installation is an appliance of a test with its first admin logged in, and a registry that it may reach.
type installation struct {
	t         *testing.T
	appliance *wiring.Appliance
	admin     *client.Client
	password  string
	registry  string // host:port, which asks for puller's password
}

const pullPassword = "correct-horse-battery"

// install starts an appliance that is stopped, and must leave no container, when the test ends.
func install(t *testing.T) *installation {
	t.Helper()
	dir, err := os.MkdirTemp("", "faena") // short: sockets of containers are below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	i := &installation{t: t, registry: faenatest.Registry(t, faenatest.RegistryOptions{Username: "puller", Password: pullPassword})}
	c := config.DefaultUp()
	c.DataDir, c.RegistryListen, c.Serve.Listen, c.Serve.OperationsListen = filepath.Join(dir, "d"), "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.Serve.Instance, c.Serve.Arch, c.Worker.ID = "test", runtime.GOARCH, "test-"+filepath.Base(dir)
	c.Engine.InitPath, c.Engine.DockerHost = faenatest.InitBinary(t), faenatest.Engine(t).Host
	c.Registries.PrivateHosts = config.Hosts{i.registry}
	c.Server.MaxStore, c.Worker.DiskMinFree, c.Limits.DrainAfter, c.Worker.DrainWithin = 1<<30, 1<<20, time.Second, 10*time.Second
	faenatest.NoContainersLeft(t, c.Worker.ID)
	if i.appliance, err = wiring.NewAppliance(t.Context(), c, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))); err != nil {
		t.Fatal(err)
	}
	if i.password, err = i.appliance.CreateFirstAdmin(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	ready := make(chan struct{})
	go func() { ended <- i.appliance.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, i.appliance.Close()); err != nil {
			t.Errorf("stop the appliance: %v", err)
		}
	})
	<-ready
	i.admin = i.login(wiring.FirstAdmin, i.password)
	faenatest.EventuallyNil(t, 30*time.Second, "everything is there", func() error {
		r, err := client.Read[client.Readiness](i.admin.GetReadiness(t.Context()))
		if err == nil && len(r.Missing) > 0 {
			err = fmt.Errorf("missing: %v", r.Missing)
		}
		return err
	})
	return i
}

func (i *installation) login(user, password string) *client.Client {
	i.t.Helper()
	c, err := client.New(client.Options{URL: i.appliance.URL(), Username: user, Password: password})
	if err != nil {
		i.t.Fatal(err)
	}
	return c
}

// user makes a user with a limit and logs him in.
func (i *installation) user(name string, limit int) *client.Client {
	i.t.Helper()
	i.limit(name, limit, "a-password-of-"+name)
	return i.login(name, "a-password-of-"+name)
}

func (i *installation) limit(name string, limit int, password string) {
	i.t.Helper()
	body := client.UserProfile{Groups: map[string]int{"default": limit}, Password: password}
	if _, err := client.Read[client.User](i.admin.PutUser(i.t.Context(), name, body)); err != nil {
		i.t.Fatal(err)
	}
}

func (i *installation) push(name string, s faenatest.ImageSpec) string {
	i.t.Helper()
	return i.pushImage(name, faenatest.Image(i.t, s))
}

func (i *installation) pushImage(name string, img v1.Image) string {
	i.t.Helper()
	return faenatest.Push(i.t, i.registry, name, img, &faena.Credentials{Username: "puller", Password: pullPassword})
}

// deploy deploys a mode of the fixture program as a function.
func (i *installation) deploy(c *client.Client, name string, change func(*client.Spec), mode ...string) {
	i.t.Helper()
	spec := client.Spec{Image: i.push(name, faenatest.ImageSpec{Entrypoint: append([]string{faenatest.FixturePath}, mode...)}),
		MemoryBytes: 32 << 20, Registry: &client.Credentials{Username: "puller", Password: pullPassword}}
	if change != nil {
		change(&spec)
	}
	if _, err := client.Read[client.Function](c.PutFunction(i.t.Context(), name, &client.PutFunctionParams{}, spec)); err != nil {
		i.t.Fatal(err)
	}
}

// activate runs a function and returns its result, or the problem.
func activate(ctx context.Context, c *client.Client, name string, parameter []byte) ([]byte, error) {
	res, err := client.Stream(c.ActivateWithBody(ctx, name, &client.ActivateParams{}, "application/octet-stream", bytes.NewReader(parameter)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", res.Status)
	}
	return io.ReadAll(res.Body)
}

func async(t *testing.T, c *client.Client, name, parameter string) string {
	t.Helper()
	a, err := client.Read[client.Accepted](c.ActivateWithBody(t.Context(), name, &client.ActivateParams{Prefer: "respond-async"},
		"application/octet-stream", strings.NewReader(parameter)))
	if err != nil {
		t.Fatal(err)
	}
	return a.ActivationID
}

func ended(t *testing.T, c *client.Client, id string) client.Activation {
	t.Helper()
	var a client.Activation
	faenatest.EventuallyNil(t, 30*time.Second, "activation "+id+" has ended", func() (err error) {
		a, err = client.Read[client.Activation](c.GetActivation(t.Context(), id))
		if err == nil && (a.State == client.StateQueued || a.State == client.StateRunning) {
			err = errors.New(string(a.State))
		}
		return err
	})
	return a
}

func failure(t *testing.T, err error) *client.Failure {
	t.Helper()
	f, ok := errors.AsType[*client.Failure](err)
	if !ok {
		t.Fatalf("got %v, want a problem document", err)
	}
	return f
}

func TestAppliance_Bytes(t *testing.T) {
	i := install(t)
	i.deploy(i.admin, "cat", func(s *client.Spec) { s.Input = client.InputStdin; s.ResultLimitBytes = 16 << 20 }, "cat")
	pattern := func(n int) []byte {
		p := make([]byte, n)
		for k := range p {
			p[k] = byte(k*7 + k/251)
		}
		return p
	}
	for name, in := range map[string][]byte{"empty": {}, "one byte": {0}, "no UTF-8": {0xff, 0xfe, 0, '\r', 'x'}, "a lone CR": []byte("10 %\r20 %\r"),
		"1 MiB less 1": pattern(1<<20 - 1), "1 MiB": pattern(1 << 20), "1 MiB and 1": pattern(1<<20 + 1), "6 MiB": pattern(6 << 20)} {
		t.Run(name, func(t *testing.T) {
			out, err := activate(t.Context(), i.admin, "cat", in)
			if err != nil || sha256.Sum256(out) != sha256.Sum256(in) {
				t.Errorf("%d bytes came out of %d, %v", len(out), len(in), err)
			}
		})
	}
	t.Run("16 MiB of result", func(t *testing.T) {
		i.deploy(i.admin, "size", func(s *client.Spec) { s.MemoryBytes = 64 << 20 }, "size", "16777216")
		out, err := activate(t.Context(), i.admin, "size", nil)
		if err != nil || sha256.Sum256(out) != sha256.Sum256(pattern(16<<20)) {
			t.Errorf("%d bytes came out, %v", len(out), err)
		}
	})
}

func TestAppliance_Failures(t *testing.T) {
	i := install(t)
	quick := func(s *client.Spec) { s.TimeoutMs = 500 }
	for _, c := range []struct {
		name, reason string
		change       func(*client.Spec)
		mode         []string
	}{
		{"exit", "exit_nonzero", nil, []string{"exit", "3"}},
		{"raise", "killed_by_signal", nil, []string{"raise", "11"}},
		{"oom", "oom_killed", nil, []string{"oom"}},
		{"stubborn", "timeout", quick, []string{"stubborn"}},
		{"yes", "result_too_large", nil, []string{"yes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			i.deploy(i.admin, c.name, c.change, c.mode...)
			for range 2 { // the container of the first is gone, or as good as new
				_, err := activate(t.Context(), i.admin, c.name, []byte("x"))
				f := failure(t, err)
				if f.Status != http.StatusBadGateway || f.Reason != c.reason || f.ActivationID == "" {
					t.Fatalf("got %d %s (%s), want 502 %s", f.Status, f.Reason, f.Detail, c.reason)
				}
				if c.name == "exit" && (f.LogTail != "err" || f.ExitCode == nil || *f.ExitCode != 3) {
					t.Errorf("log tail %q, exit code %v", f.LogTail, f.ExitCode)
				}
			}
		})
	}
	t.Run("a fork bomb meets its limit, and the next activation does not notice", func(t *testing.T) {
		i.deploy(i.admin, "bomb", func(s *client.Spec) { s.Pids = 20 }, "bomb")
		for range 2 {
			out, err := activate(t.Context(), i.admin, "bomb", nil)
			made, atoiErr := strconv.Atoi(string(out))
			if err = errors.Join(err, atoiErr); err != nil || made < 19 || made > 19+dockerengine.InitPIDs {
				t.Errorf("it made %q processes, %v", out, err)
			}
		}
	})
	t.Run("a daemonised child does not hold the result back", func(t *testing.T) {
		i.deploy(i.admin, "daemon", nil, "daemon")
		began := time.Now()
		out, err := activate(t.Context(), i.admin, "daemon", nil)
		if err != nil || string(out) != "main has ended" || time.Since(began) > 20*time.Second {
			t.Errorf("got %q after %v, %v", out, time.Since(began), err)
		}
	})
	t.Run("fresh leaves no file behind", func(t *testing.T) {
		i.deploy(i.admin, "litter", func(s *client.Spec) { s.Isolation = client.IsolationFresh }, "litter")
		for range 2 {
			if out, err := activate(t.Context(), i.admin, "litter", nil); err != nil || string(out) != "littered" {
				t.Errorf("got %q, %v: something was there already", out, err)
			}
		}
	})
}

func TestAppliance_Refusals(t *testing.T) {
	i := install(t)
	i.deploy(i.admin, "arg", nil, "arg")
	creds := &client.Credentials{Username: "puller", Password: pullPassword}
	put := func(name string, s client.Spec) error {
		_, err := client.Read[client.Function](i.admin.PutFunction(t.Context(), name, &client.PutFunctionParams{}, s))
		return err
	}
	call := func(name string, p []byte) error { _, err := activate(t.Context(), i.admin, name, p); return err }
	good := i.push("good", faenatest.ImageSpec{Entrypoint: []string{"/fixture", "arg"}})
	for name, c := range map[string]struct {
		err    error
		status int
		reason string
	}{
		"unknown function":              {call("nobody", nil), 404, "function_not_found"},
		"name against the pattern":      {put("Bad_Name", client.Spec{Image: good, Registry: creds}), 422, "invalid"},
		"image that does not exist":     {put("f", client.Spec{Image: i.registry + "/none:1", Registry: creds}), 422, "image_not_found"},
		"image that is denied":          {put("f", client.Spec{Image: good}), 422, "image_denied"},
		"image of another architecture": {put("f", client.Spec{Image: i.push("other", faenatest.ImageSpec{Arch: "s390x", Entrypoint: []string{"/x"}}), Registry: creds}), 422, "image_platform"},
		"image without a command":       {put("f", client.Spec{Image: i.push("none", faenatest.ImageSpec{}), Registry: creds}), 422, "no_command"},
		"registry at a private address": {put("f", client.Spec{Image: "127.0.0.1:1/x:1"}), 422, "image_refused"},
		"memory out of range":           {put("f", client.Spec{Image: good, MemoryBytes: 1, Registry: creds}), 422, "invalid"},
		"argument over the limit":       {call("arg", make([]byte, 131_072)), 413, "parameter_too_large"},
		"body over the limit":           {call("arg", make([]byte, 7<<20)), 413, "parameter_too_large"},
		"NUL byte in an argument":       {call("arg", []byte("a\x00b")), 422, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			if f := failure(t, c.err); f.Status != c.status || f.Reason != c.reason || strings.Contains(f.Error(), pullPassword) {
				t.Errorf("got %d %s: %s; want %d %s", f.Status, f.Reason, f.Detail, c.status, c.reason)
			}
		})
	}
	t.Run("the revision before goes on serving", func(t *testing.T) {
		if err := put("arg", client.Spec{Image: i.registry + "/none:1", Registry: creds}); err == nil {
			t.Error("a missing image was deployed")
		}
		if out, err := activate(t.Context(), i.admin, "arg", bytes.Repeat([]byte("x"), faena.MaxArgBytes)); err != nil || len(out) != faena.MaxArgBytes {
			t.Errorf("%d bytes, %v", len(out), err)
		}
	})
	t.Run("another user's function and activation are not there", func(t *testing.T) {
		bob := i.user("bob", 5)
		id := async(t, i.admin, "arg", "mine")
		if _, err := activate(t.Context(), bob, "arg", nil); failure(t, err).Status != 404 {
			t.Errorf("the function: %v", err)
		}
		if _, err := client.Read[client.Activation](bob.GetActivation(t.Context(), id)); failure(t, err).Status != 404 {
			t.Errorf("the activation: %v", err)
		}
		if ended(t, i.admin, id).State != client.StateSucceeded {
			t.Error("it did not succeed")
		}
	})
}

func TestAppliance_Limit(t *testing.T) {
	i := install(t)
	const limit = 4
	jorge := i.user("jorgeSD", limit)
	i.deploy(jorge, "sleep", nil, "sleep", "700")
	i.deploy(jorge, "arg", nil, "arg")

	t.Run("exactly N of 500 parallel calls are admitted", func(t *testing.T) {
		var admitted, refused atomic.Int64
		var wg sync.WaitGroup
		gate := make(chan struct{})
		for range 500 {
			wg.Go(func() {
				<-gate
				_, err := activate(t.Context(), jorge, "sleep", nil)
				switch {
				case err == nil:
					admitted.Add(1)
				case failure(t, err).Status == http.StatusTooManyRequests && failure(t, err).Retryable:
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		close(gate)
		wg.Wait()
		// All calls are made before the first activation can end (700 ms and a container's start).
		if admitted.Load() != limit || refused.Load() != 500-limit {
			t.Errorf("%d admitted, %d refused, want %d admitted", admitted.Load(), refused.Load(), limit)
		}
	})
	t.Run("usage and counters are right within a second or two", func(t *testing.T) {
		id := async(t, jorge, "sleep", "")
		usage := func() client.Usage {
			u, err := client.Read[client.Usage](jorge.GetUsage(t.Context(), "jorgeSD"))
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
		if u := usage(); u.Active != 1 || u.Limit != limit {
			t.Errorf("usage %+v, want 1 active of %d", u, limit)
		}
		ended(t, jorge, id)
		faenatest.Eventually(t, 10*time.Second, "nothing is active, all are counted", func() bool {
			u := usage()
			return u.Active == 0 && u.Completed == limit+1
		})
	})
	t.Run("one client at limit 1, one call after the other, is never refused", func(t *testing.T) {
		i.limit("jorgeSD", 1, "")
		for n := range 60 {
			if _, err := activate(t.Context(), jorge, "arg", []byte("x")); err != nil {
				t.Fatalf("call %d: %v", n, err)
			}
		}
	})
	t.Run("a limit that changes while work is queued loses nothing", func(t *testing.T) {
		i.limit("jorgeSD", 10, "")
		var ids []string
		for range 8 { // asynchronous calls leave a fifth of the limit
			ids = append(ids, async(t, jorge, "sleep", ""))
		}
		i.limit("jorgeSD", 2, "")
		if _, err := activate(t.Context(), jorge, "arg", nil); failure(t, err).Status != http.StatusTooManyRequests {
			t.Errorf("above the lowered limit: %v", err)
		}
		for _, id := range ids {
			if a := ended(t, jorge, id); a.State != client.StateSucceeded {
				t.Errorf("%s %s: %s", id, a.State, a.Message)
			}
		}
	})
}

func TestAppliance_Activations(t *testing.T) {
	i := install(t)
	i.deploy(i.admin, "tick", nil, "tick", "20", "50")
	i.deploy(i.admin, "stubborn", nil, "stubborn")
	t.Run("a log can be followed while it grows", func(t *testing.T) {
		id := async(t, i.admin, "tick", "")
		var log bytes.Buffer
		end, err := i.admin.FollowLogs(t.Context(), id, 0, func(p []byte) error { log.Write(p); return nil })
		if err != nil || end.State != client.StateSucceeded || strings.Count(log.String(), "tick") != 20 || !strings.HasPrefix(log.String(), "tick 0\n") {
			t.Errorf("%+v, %v, log %q", end, err, log.String())
		}
	})
	t.Run("a running one is cancelled", func(t *testing.T) {
		id := async(t, i.admin, "stubborn", "")
		faenatest.Eventually(t, 30*time.Second, "it runs", func() bool {
			a, err := client.Read[client.Activation](i.admin.GetActivation(t.Context(), id))
			return err == nil && a.State == client.StateRunning
		})
		if _, err := client.Read[client.Activation](i.admin.CancelActivation(t.Context(), id)); err != nil {
			t.Fatal(err)
		}
		if a := ended(t, i.admin, id); a.State != client.StateCancelled || a.Reason != "cancelled" {
			t.Errorf("it is %s (%s)", a.State, a.Reason)
		}
	})
	t.Run("they are listed newest first, and in pages", func(t *testing.T) {
		size, cursor, last, n := 1, "", "~", 0
		for {
			p, err := client.Read[client.ActivationPage](i.admin.ListActivations(t.Context(), &client.ListActivationsParams{Limit: &size, Cursor: cursor}))
			if err != nil || len(p.Items) != 1 {
				t.Fatalf("%+v, %v", p, err)
			}
			if p.Items[0].ActivationID >= last {
				t.Errorf("%s after %s", p.Items[0].ActivationID, last)
			}
			last, cursor, n = p.Items[0].ActivationID, p.Next, n+1
			if cursor == "" {
				break
			}
		}
		if n != 2 {
			t.Errorf("%d are listed, want 2", n)
		}
	})
	t.Run("revisions: the changed one serves, and the one before after a rollback", func(t *testing.T) {
		i.deploy(i.admin, "v", nil, "arg")
		i.deploy(i.admin, "v", func(s *client.Spec) { s.Args = []string{"uid"} })
		if out, err := activate(t.Context(), i.admin, "v", []byte("one")); err != nil || string(out) != "0:0" {
			t.Errorf("revision 2: %q, %v", out, err)
		}
		if _, err := client.Read[client.Function](i.admin.RollbackFunction(t.Context(), "v", &client.RollbackFunctionParams{}, client.Rollback{})); err != nil {
			t.Fatal(err)
		}
		if out, err := activate(t.Context(), i.admin, "v", []byte("one")); err != nil || string(out) != "one" {
			t.Errorf("revision 1 again: %q, %v", out, err)
		}
	})
	t.Run("the trace of the request reaches the function", func(t *testing.T) {
		i.deploy(i.admin, "env", nil, "env")
		trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		res, err := client.Stream(i.admin.ActivateWithBody(t.Context(), "env", &client.ActivateParams{}, "text/plain", strings.NewReader(""),
			func(_ context.Context, r *http.Request) error { r.Header.Set("Traceparent", trace); return nil }))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		out, err := io.ReadAll(res.Body)
		if err != nil || !strings.Contains(string(out), "TRACEPARENT="+trace+"\n") || strings.Contains(string(out), pullPassword) {
			t.Errorf("the environment is %q, %v", out, err)
		}
	})
}
