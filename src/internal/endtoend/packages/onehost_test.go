//go:build packages

package packages_test

import (
	"testing"
)

// testOneHostUnit asks the unit that makes a host an installation again: it leaves what is there as it is, and where a key is no key it says so,
// and the daemons go on.
func testOneHostUnit(t *testing.T, h *host) {
	const files = "find /etc/faena /etc/credstore -type f -printf '%p %T@ %m\\n' | sort; sha256sum /etc/faena/*.* /etc/faena/tls/* /etc/credstore/*"
	before, lives := h.Run(t, files), h.lives(t)
	h.Run(t, "systemctl restart faena-one-host")
	if after := h.Run(t, files); after != before {
		t.Errorf("what was there is not as it was:\n%s\nand then:\n%s", before, after)
	}
	h.Run(t, "cp -a /etc/credstore/faena-worker.seal_key /root/; echo none >/etc/credstore/faena-worker.seal_key")
	_, err := h.Try(t.Context(), "timeout 20 systemctl restart faena-one-host")
	if err == nil {
		t.Error("a key that is none was taken")
	}
	h.says(t, "faena-one-host.service", "/etc/credstore/faena-worker.seal_key", "mend")
	h.Run(t, "cp -a /root/faena-worker.seal_key /etc/credstore/; systemctl restart faena-one-host")
	if now := h.lives(t); now != lives {
		t.Errorf("the daemons were %v and are %v", lives, now)
	}
	// An authorization that is empty would keep NATS from starting.
	h.Run(t, "cp -a /etc/faena/nats-authorization.conf /root/; : >/etc/faena/nats-authorization.conf; systemctl restart faena-one-host; "+
		"cmp /root/nats-authorization.conf /etc/faena/nats-authorization.conf")
	h.works(t)
}

// lives are those of the daemons.
func (h *host) lives(t *testing.T) (all [3]life) {
	t.Helper()
	for n, unit := range []string{"faena-nats", "faena-api", "faena-worker"} {
		all[n] = h.died(t, unit)
	}
	return all
}
