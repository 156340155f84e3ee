package dockerengine

import (
	"crypto/rand"
	"strings"
	"sync"
	"syscall"
	"testing"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// networkName is the name of a network that is removed when the test ends.
func networkName(t testing.TB) string {
	t.Helper()
	name := "faenatest-" + strings.ToLower(rand.Text()[:12])
	d := faenatest.Engine(t)
	t.Cleanup(func() { d.Delete(t, "/networks/"+name) })
	return name
}

func bridgeFor(t testing.TB, e *Engine) string {
	t.Helper()
	name := networkName(t)
	if _, err := e.EnsureNetwork(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestEngine_EnsureNetwork(t *testing.T) {
	e := open(t)
	t.Run("is made once", func(t *testing.T) {
		name := networkName(t)
		var wg sync.WaitGroup
		var ids [4]string
		for n := range ids {
			wg.Go(func() {
				var err error
				if ids[n], err = e.EnsureNetwork(t.Context(), name); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var found []struct{ Id, Name, Driver string } //nolint:revive // the engine's spelling
		faenatest.Engine(t).Get(t, `/networks?filters={"name":["`+name+`"]}`, &found)
		if len(found) != 1 || found[0].Driver != "bridge" {
			t.Fatalf("got %+v, want one bridge", found)
		}
		for _, id := range ids {
			if id != found[0].Id {
				t.Errorf("one was told %q, want %s", id, found[0].Id)
			}
		}
	})
	t.Run("keeps containers apart", func(t *testing.T) {
		image, bridge := plain(t), bridgeFor(t, e)
		first, second := spec(t, image), spec(t, image)
		first.Network, second.Network = bridge, bridge
		server, client := launch(t, e, first), launch(t, e, second)
		server.expect("0", "serve 9000")
		server.expect("0", "dial 127.0.0.1 9000")
		var got struct {
			NetworkSettings struct {
				Networks map[string]struct{ IPAddress string }
			}
		}
		faenatest.Engine(t).Get(t, "/containers/"+server.id+"/json", &got)
		ip := got.NetworkSettings.Networks[bridge].IPAddress
		if answer := client.tell("dial %s 9000", ip); answer == "0" {
			t.Errorf("a container reached another at %s", ip)
		}
	})
	t.Run("none", func(t *testing.T) {
		a := launch(t, e, spec(t, plain(t)))
		a.expect(itoa(syscall.ENETUNREACH), "dial 192.0.2.1 80")
	})
	t.Run("somebody else's", func(t *testing.T) {
		for what, options := range map[string]map[string]string{"no options": nil, "another bridge": {optionICC: "false"},
			"traffic between containers": {optionBridge: "x"}} {
			name := networkName(t)
			if options[optionBridge] != "" {
				options[optionBridge] = BridgeName(name)
			}
			faenatest.Engine(t).Post(t, "/networks/create", map[string]any{"Name": name, "Driver": "bridge", "Options": options}, nil)
			if _, err := e.EnsureNetwork(t.Context(), name); !faena.IsKind(err, faena.KindConflict) {
				t.Errorf("%s: got %v, want a conflict", what, err)
			}
		}
	})
	t.Run("somebody else's beside Faena's", func(t *testing.T) {
		name := networkName(t)
		id, err := e.EnsureNetwork(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		d := faenatest.Engine(t)
		t.Cleanup(func() { d.Delete(t, "/networks/"+id) })
		var other struct{ Id string } //nolint:revive // the engine's spelling
		d.Post(t, "/networks/create", map[string]any{"Name": name, "Driver": "bridge", "CheckDuplicate": false}, &other)
		if _, err := e.EnsureNetwork(t.Context(), name); !faena.IsKind(err, faena.KindConflict) || !strings.Contains(err.Error(), "network rm "+other.Id[:12]) {
			t.Errorf("got %v, want a conflict that names the other", err)
		}
		d.Delete(t, "/networks/"+other.Id)
		if again, err := e.EnsureNetwork(t.Context(), name); err != nil || again != id {
			t.Errorf("got %q, %v, want %s", again, err, id)
		}
	})
}
