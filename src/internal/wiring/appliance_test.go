package wiring_test

import (
	"bytes"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
)

// part is what is shown of one aspect of an appliance, with users of its own.
type part struct {
	name string
	test func(*testing.T, *installation)
}

// TestAppliance is all that is shown of one appliance, from the client to the container and back, over HTTP. It starts
// once: most parts run beside each other, then come those that want it for themselves, since they count or fill it.
func TestAppliance(t *testing.T) {
	t.Parallel() // with the daemons, who wait more than they work
	i := install(t)
	t.Run("Together", func(t *testing.T) {
		for _, p := range []part{
			{"Bytes", testBytes},
			{"Misbehaviour", testMisbehaviour},
			{"Refusals", testRefusals},
			{"Activations", testActivations},
			{"Logs", testLogs},
			{"Trace", testTrace},
			{"Isolation", testIsolation},
			{"Network", testNetwork},
		} {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				p.test(t, i)
			})
		}
	})
	for _, p := range []part{
		{"Limit", testLimit},
		{"Metrics", testMetrics},
		{"Health", testHealth},
		{"Admin", testAdmin},
		{"Endless", testEndless},
		{"Secrets", testSecrets}, // last: all that was said and written before counts
	} {
		t.Run(p.name, func(t *testing.T) { p.test(t, i) })
	}
}

// A lost admin's password is replaced by root, on the same socket as an API's.
func testAdmin(t *testing.T, i *installation) {
	r := command(t, wiring.APIMain, nil, "a-new-password\n", "admin", "create", wiring.FirstAdmin, "--password-stdin", "--socket", filepath.Join(i.dir, "admin.sock"))
	if r.code != 0 {
		t.Fatalf("it ends with %d: %s", r.code, r.errs)
	}
	for password, want := range map[string]int{i.password: http.StatusUnauthorized, "a-new-password": 0} {
		got := 0
		if _, err := client.Read[client.WorkerList](i.login(t, wiring.FirstAdmin, password).ListWorkers(t.Context())); err != nil {
			got = failure(t, err).Status
		}
		if got != want {
			t.Errorf("with %q it is %d, want %d", password, got, want)
		}
	}
	i.password = "a-new-password"
	i.admin = i.login(t, wiring.FirstAdmin, i.password)
}

func testRefusals(t *testing.T, i *installation) {
	i.deploy(t, i.admin, "arg", nil, "arg")
	creds := &client.Credentials{Username: "puller", Password: pullPassword}
	put := func(name string, s client.Spec) error {
		_, err := client.Read[client.Function](i.admin.PutFunction(t.Context(), name, &client.PutFunctionParams{}, s))
		return err
	}
	call := func(name string, p []byte) error { _, err := activate(t.Context(), i.admin, name, p); return err }
	good := i.push(t, "good", faenatest.ImageSpec{Entrypoint: []string{"/fixture", "arg"}})
	for name, c := range map[string]struct {
		err    error
		status int
		reason string
	}{
		"unknown function":              {call("nobody", nil), 404, "function_not_found"},
		"name against the pattern":      {put("Bad_Name", client.Spec{Image: good, Registry: creds}), 422, "invalid"},
		"image that does not exist":     {put("f", client.Spec{Image: i.registry + "/none:1", Registry: creds}), 422, "image_not_found"},
		"image that is denied":          {put("f", client.Spec{Image: good}), 422, "image_denied"},
		"image of another architecture": {put("f", client.Spec{Image: i.push(t, "other", faenatest.ImageSpec{Arch: "s390x", Entrypoint: []string{"/x"}}), Registry: creds}), 422, "image_platform"},
		"image without a command":       {put("f", client.Spec{Image: i.push(t, "none", faenatest.ImageSpec{}), Registry: creds}), 422, "no_command"},
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
	t.Run("an image that has gone from its registry since", func(t *testing.T) {
		ref := i.push(t, "gone", faenatest.ImageSpec{Entrypoint: []string{faenatest.FixturePath}})
		i.deploy(t, i.admin, "gone", func(s *client.Spec) { s.Image = ref })
		i.unpush(t, ref)
		if f := failure(t, call("gone", nil)); f.Status != http.StatusBadGateway || f.Reason != "image_not_found" || f.ActivationID == "" {
			t.Errorf("got %d %s: %s", f.Status, f.Reason, f.Detail)
		}
	})
	t.Run("another user's function and activation are not there", func(t *testing.T) {
		bob := i.user(t, "bob", 5)
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

func testActivations(t *testing.T, i *installation) {
	ada := i.user(t, "ada", 20)
	i.deploy(t, ada, "stubborn", nil, "stubborn")
	i.deploy(t, ada, "arg", nil, "arg")
	t.Run("a running one is cancelled", func(t *testing.T) {
		id := async(t, ada, "stubborn", "")
		running(t, ada, id)
		faenatest.Eventually(t, 10*time.Second, "there is its process", func() bool { return len(processes(t, id)) == 1 })
		if _, err := client.Read[client.Activation](ada.CancelActivation(t.Context(), id)); err != nil {
			t.Fatal(err)
		}
		if a := ended(t, ada, id); a.State != client.StateCancelled || a.Reason != "cancelled" {
			t.Errorf("it is %s (%s)", a.State, a.Reason)
		}
		faenatest.Eventually(t, 10*time.Second, "its process is gone", func() bool { return len(processes(t, id)) == 0 })
	})
	t.Run("they are listed newest first, and in pages", func(t *testing.T) {
		must(t, ada, "arg", "x")
		must(t, ada, "arg", "y")
		size, cursor, last, n := 1, "", "~", 0
		for {
			p, err := client.Read[client.ActivationPage](ada.ListActivations(t.Context(), &client.ListActivationsParams{Limit: &size, Cursor: cursor}))
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
		if n != 3 {
			t.Errorf("%d are listed, want 3", n)
		}
	})
	t.Run("revisions: the changed one serves, and the one before after a rollback", func(t *testing.T) {
		i.deploy(t, ada, "v", nil, "arg")
		i.deploy(t, ada, "v", func(s *client.Spec) { s.Args = []string{"uid"} })
		if out, err := activate(t.Context(), ada, "v", []byte("one")); err != nil || string(out) != "0:0" {
			t.Errorf("revision 2: %q, %v", out, err)
		}
		if _, err := client.Read[client.Function](ada.RollbackFunction(t.Context(), "v", &client.RollbackFunctionParams{}, client.Rollback{})); err != nil {
			t.Fatal(err)
		}
		if out, err := activate(t.Context(), ada, "v", []byte("one")); err != nil || string(out) != "one" {
			t.Errorf("revision 1 again: %q, %v", out, err)
		}
	})
}
