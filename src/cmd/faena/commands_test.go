package main

import (
	"strconv"
	"strings"
	"testing"

	"faena.dev/faena/internal/faenatest"
)

// The commands are tried on one running appliance, as its first admin, whom `faena up` has logged in. Each part makes
// what it needs under names of its own.
func TestCommands(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	private := faenatest.Registry(t, faenatest.RegistryOptions{Username: "puller", Password: pullPassword})
	u := a.up("FAENA_WORKER_PLACES="+strconv.Itoa(places), "FAENA_REGISTRY_PRIVATE_HOSTS="+private)
	s := &site{appliance: u, private: private, image: faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{Entrypoint: []string{faenatest.FixturePath, "arg"}}))}
	for _, part := range []struct {
		name string
		test func(*account, *site)
	}{
		{"listens", testListens},
		{"login", testLogin},
		{"invoke", testInvoke},
		{"activations", testActivations},
		{"functions", testFunctions},
		{"delivery", testDelivery},
		{"deploy", testDeploy},
		{"a private image", testPrivateImage},
		{"users", testUsers},
		{"workers", testWorkers},
		{"drain", testDrain},
		{"groups", testFixedGroups},
		{"doctor", testDoctor},
		{"completion", testCompletion},
		{"exit codes", testCodes},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(a.of(t), s) })
	}
}

// places is how many activations run at once.
const places = 3

// site is what the parts of TestCommands share.
type site struct {
	*appliance
	image   string // of the fixture program in the engine; it writes its argument
	private string // a registry that asks for puller's password
}

// Scripts find in the help what an exit code means.
func TestHelp_ExitCodes(t *testing.T) {
	help := newAccount(t).faena("--help")
	for _, want := range []string{"    0  ok ", "    1  failed ", "    2  usage ", "    3  function failed ", "    4  not found ", "    5  unauthenticated ",
		"    6  limit ", "    7  unavailable ", "    8  invalid ", "    9  unknown ", "  130  interrupted "} {
		if !strings.Contains(help, "\n"+want) {
			t.Errorf("it has no %q:\n%s", want, help)
		}
	}
}

// A command whose help offers JSON has some to write.
func TestOutputFlag(t *testing.T) {
	root := (&app{terminal: &terminal{}}).root()
	for commands, want := range map[string]bool{"deploy invoke activations get cancel functions rollback users groups workers doctor": true,
		"up login result logs delete completion": false} {
		for _, name := range strings.Fields(commands) {
			if cmd, _, err := root.Find([]string{name}); err != nil || strings.Contains(cmd.UsageString(), "--output") != want {
				t.Errorf("the help of %s offers it: %v, %v", name, !want, err)
			}
		}
	}
}
