//go:build packages

package packages_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// testFull fills the disk of the NATS server: all that is asked says so, and calls go on by themselves once there is room.
func testFull(t *testing.T, h *host) {
	const store = "/var/lib/faena-nats"
	move := func(commands string) {
		h.Run(t, "systemctl stop faena.target; cp -a "+store+" /root/store; "+commands+"; cp -a /root/store/. "+store+"/; rm -r /root/store; systemctl start faena.target")
		h.works(t)
	}
	move("mount -t tmpfs -o size=64M,mode=0700 tmpfs " + store)
	defer move("umount " + store + "; find " + store + " -mindepth 1 -delete")
	h.Run(t, "cat /dev/zero >"+store+"/filler || true")
	_, err := h.Try(t.Context(), "faena invoke hello 'good evening'")
	if err == nil {
		t.Error("a call was accepted that could not be stored")
	}
	faenatest.EventuallyNil(t, time.Minute, "the doctor, the API and its status say that the queue takes no writes", func() error {
		doctor, _ := h.Try(t.Context(), "faena doctor")
		ready, _ := h.Try(t.Context(), "curl --silent --cacert /etc/faena/tls/ca.pem https://localhost:8443/readyz")
		for _, said := range []string{doctor, ready, h.property(t, "faena-api", "StatusText")} {
			if !strings.Contains(said, "it takes no writes") || !strings.Contains(said, "the disk of a NATS server is full") {
				return fmt.Errorf("this is said: %s", said)
			}
		}
		return nil
	})
	h.says(t, "faena-nats-watch", store+", whose disk is full: make room")
	h.Run(t, "rm "+store+"/filler")
	h.works(t)
}
