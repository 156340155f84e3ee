package wiring

import (
	"os/exec"
	"strings"
	"testing"

	"faena.dev/faena/internal/dockerengine"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/packets"
)

// A container is apart from the others as soon as its counters are open, which a worker waits for, whatever the engine's answer to its
// start waits for.
func TestEngine_Cgroup(t *testing.T) {
	t.Parallel()
	if !faenatest.OwnNetwork(t) {
		return
	}
	const bridge = "faena-test"
	faenatest.IP(t, "link add "+bridge+" type bridge")
	rules, err := packets.Open(packets.Options{Name: "w", Bridge: bridge})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rules.Close() })
	docker, err := dockerengine.Open(t.Context(), dockerengine.Options{Host: faenatest.Engine(t).Host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = docker.Close() })
	faenatest.IP(t, "link add port type veth peer name inside")
	faenatest.IP(t, "link set port master "+bridge)
	_, _ = engine{docker, &guard{docker: docker, rules: rules}}.Cgroup("none", 1) // there is no such container, and nothing to close
	out, err := exec.Command("ip", "-d", "link", "show", "port").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "isolated on") {
		t.Errorf("the port is not isolated: %v: %s", err, out)
	}
}
