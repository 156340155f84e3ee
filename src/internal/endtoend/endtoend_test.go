package endtoend_test

import (
	"testing"
	"time"

	"faena.dev/faena/internal/endtoend/installation"
)

// life is an installation of two APIs, two workers, three NATS servers and a document store, with their tests.
type life struct{ *installation.Installation }

// TestInstallation goes through the life of one installation. The cases use users of their own, and stand in an order: what ends
// parts comes after what only uses them.
func TestInstallation(t *testing.T) {
	began := time.Now()
	i := life{installation.Install(t, installation.Options{Race: true})}
	t.Logf("installed after %v", time.Since(began).Round(100*time.Millisecond))

	run := func(name string, test func(t *testing.T)) { t.Run(name, test) }
	run("CommandLine", i.testCommandLine)
	run("ServersStopped", i.testServersStopped)
	run("Drain", i.testDrain)
	run("Calls", i.testCalls)
	run("Held", i.testHeld)
	run("Limit", i.testLimit)
	killed := i.killWorker(t)
	run("Group", i.testGroup)
	run("FunctionChanges", i.testFunctionChanges)
	run("UserChanges", i.testUserChanges)
	run("LeaderKilled", i.testLeaderKilled)
	run("WorkerKilled", func(t *testing.T) { i.testWorkerKilled(t, killed) })
	run("DocumentsStopped", i.testDocumentsStopped)
	run("Count", func(t *testing.T) { i.Count(t) })
}
