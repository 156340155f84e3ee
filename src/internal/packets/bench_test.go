package packets

import (
	"fmt"
	"testing"

	"faena.dev/faena/internal/faenatest"
)

// The cost of the rules: at a worker's start, with each look at its health, and with each start of a container, here with 50 on the
// bridge. It is run in a network namespace, as root: unshare -n go test -bench . -run '^$' ./internal/packets
func BenchmarkRules(b *testing.B) {
	faenatest.IP(b, "link add "+bridge+" type bridge")
	b.Cleanup(func() { faenatest.IP(b, "link delete "+bridge) })
	for n := range 50 {
		faenatest.IP(b, fmt.Sprintf("link add b%d type veth peer name c%d", n, n))
		faenatest.IP(b, fmt.Sprintf("link set b%d master %s", n, bridge))
		b.Cleanup(func() { faenatest.IP(b, fmt.Sprintf("link delete b%d", n)) })
	}
	open := func(b *testing.B) *Rules {
		r, err := Open(Options{Name: "w", Bridge: bridge})
		if err != nil {
			b.Fatal(err)
		}
		return r
	}
	b.Run("open and close", func(b *testing.B) {
		for b.Loop() {
			if err := open(b).Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	r := open(b)
	for name, f := range map[string]func() error{"check": r.Check, "isolate": r.Isolate} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	if err := r.Close(); err != nil {
		b.Error(err)
	}
}
