//go:build packages

package packages_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// wrongCase is something that an administrator has set wrong.
type wrongCase struct {
	name, unit string
	set        string   // commands that make it wrong
	says       []string // a line of systemctl status has all of these: the setting, and what is wrong or to be done
}

var wrongCases = []wrongCase{
	{"value of the API", "faena-api.service", "echo FAENA_DRAIN_AFTER=soon >>/etc/faena/api.env", []string{"FAENA_DRAIN_AFTER", "soon", "right would be"}},
	{"unknown setting of the API", "faena-api.service", "echo FAENA_COLOUR=red >>/etc/faena/api.env", []string{"FAENA_COLOUR", "remove it", "/etc/faena/api.env"}},
	{"misspelt setting of the API", "faena-api.service", "echo FAENA_LOG_LEVLE=info >>/etc/faena/api.env", []string{"FAENA_LOG_LEVLE", "FAENA_LOG_LEVEL is: correct"}},
	{"key of the certificate", "faena-api.service", "echo none >/etc/credstore/faena-api.tls_key", []string{"FAENA_TLS_KEY_FILE", "must be PEM"}},
	{"no key of the certificate", "faena-api.service", "rm /etc/credstore/faena-api.tls_key", []string{"FAENA_TLS_KEY_FILE", "give both"}},
	{"nkey of the API", "faena-api.service", "echo none >/etc/credstore/faena-api.nats_nkey", []string{"FAENA_NATS_NKEY_FILE", "keygen"}},
	{"port in use by another", "faena-api.service", "echo FAENA_OPERATIONS_LISTEN=127.0.0.1:4222 >>/etc/faena/api.env",
		[]string{"FAENA_OPERATIONS_LISTEN", "127.0.0.1:4222", "another process listens there"}},
	{"admin socket in use", "faena-api.service", adminSocket + "echo FAENA_ADMIN_SOCKET=/var/lib/faena-api/admin.sock >>/etc/faena/api.env",
		[]string{"FAENA_ADMIN_SOCKET", "/var/lib/faena-api/admin.sock", "another process listens", "end it"}},
	{"value of the worker", "faena-worker.service", "echo FAENA_LOG_LEVEL=loud >>/etc/faena/worker.env", []string{"FAENA_LOG_LEVEL", "loud", "right would be"}},
	{"unknown setting of the worker", "faena-worker.service", "echo FAENA_COLOUR=red >>/etc/faena/worker.env", []string{"FAENA_COLOUR", "remove it", "/etc/faena/worker.env"}},
	{"seal key of the worker", "faena-worker.service", "echo none >/etc/credstore/faena-worker.seal_key", []string{"FAENA_SEAL_KEY_FILE", "keygen"}},
	{"port of the worker in use", "faena-worker.service", "echo FAENA_OPERATIONS_LISTEN=127.0.0.1:4222 >>/etc/faena/worker.env",
		[]string{"FAENA_OPERATIONS_LISTEN", "another process listens there"}},
	{"no engine", "faena-worker.service", "echo FAENA_DOCKER_HOST=unix:///run/no-engine.sock >>/etc/faena/worker.env",
		[]string{"FAENA_DOCKER_HOST", "install docker.io"}},
	{"engine that is too old", "faena-worker.service", oldEngine + "echo FAENA_DOCKER_HOST=unix:///run/old.sock >>/etc/faena/worker.env",
		[]string{"FAENA_DOCKER_HOST", "too old", "Upgrade it"}},
	{"value of NATS", "faena-nats.service", "echo FAENA_NATS_MAX_STORE=much >>/etc/faena/nats.env", []string{"FAENA_NATS_MAX_STORE", "/etc/faena/nats.env"}},
	{"port of NATS in use", "faena-nats.service", "echo FAENA_NATS_LISTEN=127.0.0.1:8083 >>/etc/faena/nats.env", []string{"FAENA_NATS_LISTEN", "/etc/faena/nats.env"}},
}

// adminSocket has another process listen where an API is to.
const adminSocket = `cat >/run/admin.py <<'END'
import socket, signal
s = socket.socket(socket.AF_UNIX)
s.bind("/var/lib/faena-api/admin.sock")
s.listen()
signal.pause()
END
systemd-run --unit old-admin --uid faena-api --property ExecStopPost='rm -f /var/lib/faena-api/admin.sock' --collect --quiet python3 /run/admin.py
for n in $(seq 100); do [ -S /var/lib/faena-api/admin.sock ] && break; read -rt 0.1 <> <(:) || true; done
`

// oldEngine starts what answers as a Docker Engine of long ago.
const oldEngine = `cat >/run/old.py <<'END'
import http.server, socketserver
class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def address_string(self): return "unix"
    def do_GET(self):
        body = b'{"Version": "18.09.1", "ApiVersion": "1.39", "MinAPIVersion": "1.12", "ServerVersion": "18.09.1", "Os": "linux", "Arch": "amd64"}'
        self.send_response(200)
        self.send_header("Api-Version", "1.39")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET": self.wfile.write(body)
    do_HEAD = do_GET
server = socketserver.ThreadingUnixStreamServer("/run/old.sock", Engine)
import os; os.chmod("/run/old.sock", 0o666)
server.serve_forever()
END
systemd-run --unit old-engine --collect --quiet python3 /run/old.py
for n in $(seq 100); do [ -S /run/old.sock ] && break; read -rt 0.1 <> <(:) || true; done
`

// testWrong sets one thing wrong after the other: the unit fails at once, and says why, and what to do.
func testWrong(t *testing.T, h *host) {
	h.Run(t, "cp -a /etc/faena /etc/credstore /root/")
	for _, c := range wrongCases {
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				h.Run(t, "for d in faena credstore; do rm -rf /etc/$d; cp -a /root/$d /etc/; done; systemctl stop old-engine old-admin 2>/dev/null || true; systemctl reset-failed")
				h.Run(t, "systemctl restart "+c.unit)
			}()
			h.Run(t, c.set)
			_, _ = h.Try(t.Context(), "timeout 30 systemctl restart "+c.unit) // it fails
			faenatest.EventuallyNil(t, 10*time.Second, c.unit+" has failed", func() error {
				if state := h.property(t, c.unit, "ActiveState") + " " + h.property(t, c.unit, "SubState"); state != "failed failed" {
					return fmt.Errorf("it is %s", state)
				}
				return nil
			})
			if n := h.property(t, c.unit, "NRestarts"); n != "0" {
				t.Errorf("it was started %s times again", n)
			}
			h.says(t, c.unit, c.says...)
		})
	}
	t.Run("port of the API in use", func(t *testing.T) { testPort(t, h) })
	t.Run("address that does not count", func(t *testing.T) {
		h.Run(t, "echo FAENA_LISTEN=:9443 >>/etc/faena/api.env; systemctl restart faena-api")
		h.says(t, "faena-api", "FAENA_LISTEN does not count", "systemctl edit faena-api.socket", "listen=:9443")
		h.Run(t, "cp -a /root/faena/api.env /etc/faena/; systemctl restart faena-api")
	})
	t.Run("while somebody waits", func(t *testing.T) { testWaits(t, h) })
	t.Run("deaths in a row", func(t *testing.T) { testPauses(t, h) })
	t.Run("units", func(t *testing.T) {
		// What systemd does not know of a unit it says at each daemon-reload.
		if out := h.Run(t, "cd /usr/lib/systemd/system; systemd-analyze --man=no verify faena*.service faena*.socket faena.slice faena.target 2>&1"); out != "" {
			t.Errorf("systemd says of the units:\n%s", out)
		}
	})
	t.Run("engine that is away", func(t *testing.T) { testAway(t, h) })
	h.works(t)
}

// testPort gives the socket of the API a port that another process has: both units say whose it is, and what to do.
func testPort(t *testing.T, h *host) {
	h.Put(t, "/run/systemd/system/faena-api.socket.d/port.conf", "0644", "[Socket]\nListenStream=\nListenStream=127.0.0.1:8083\n")
	defer h.Run(t, "rm -r /run/systemd/system/faena-api.socket.d; systemctl daemon-reload; systemctl reset-failed; systemctl restart faena-api.socket faena-api.service")
	if _, err := h.Try(t.Context(), "systemctl daemon-reload; systemctl restart faena-api.socket"); err == nil {
		t.Error("there is a socket")
	}
	for _, unit := range []string{"faena-api.socket", "faena-api.service"} {
		h.says(t, unit, "ListenStream= of faena-api.socket is 127.0.0.1:8083", "faena-worker (process "+h.property(t, "faena-worker", "MainPID")+")",
			"end it", "systemctl edit faena-api.socket")
	}
}

// testWaits has a client wait for an API whose settings are wrong: it starts it a few times, and not for ever.
func testWaits(t *testing.T, h *host) {
	began := strings.TrimSpace(h.Run(t, "echo FAENA_COLOUR=red >>/etc/faena/api.env; date +@%s; systemctl stop faena-api; "+
		"systemd-run --unit waits --collect --quiet bash -c 'exec 3<>/dev/tcp/127.0.0.1/8443; read -rt 60 <&3'"))
	faenatest.EventuallyNil(t, 20*time.Second, "the socket has given up", func() error {
		if state := h.property(t, "faena-api.socket", "ActiveState"); state != "failed" {
			return fmt.Errorf("it is %s", state)
		}
		return nil
	})
	starts := h.Run(t, "journalctl --sync; journalctl --no-pager --output cat --unit faena-api.service --since "+began+" | grep -c '^Starting faena-api'")
	if n, err := strconv.Atoi(strings.TrimSpace(starts)); err != nil || n < 1 || n > 6 {
		t.Errorf("it was started %q times", starts)
	}
	h.Run(t, "cp -a /root/faena/api.env /etc/faena/; systemctl stop waits 2>/dev/null || true; systemctl restart faena-api; systemctl is-active faena-api.socket")
}

// testPauses has a daemon die again and again: the pause before its next start doubles, and nobody who starts or stops it by hand waits for that.
func testPauses(t *testing.T, h *host) {
	const unit = "faena-worker"
	h.Run(t, "systemctl restart "+unit)
	for deaths, least := range []time.Duration{2 * time.Second, 4 * time.Second} {
		before, at := h.died(t, unit), time.Now()
		h.Run(t, "systemctl kill --kill-who=main --signal KILL "+unit)
		h.back(t, unit, before, backWithin)
		if took := time.Since(at); took < least {
			t.Errorf("after death %d it ran again after %v, not %v", deaths+1, took, least)
		}
	}
	h.Run(t, "systemctl kill --kill-who=main --signal KILL "+unit)
	faenatest.Eventually(t, backWithin, "it pauses", func() bool {
		return h.property(t, unit, "SubState") == "start-pre" && strings.Contains(h.Run(t, "journalctl --sync; systemctl status --no-pager --full "+unit+" || true"),
			"It has died 3 times: it is started again in 6 s, at once by systemctl restart "+unit)
	})
	h.Run(t, "systemctl restart "+unit)
	if n := h.property(t, unit, "NRestarts"); n != "0" {
		t.Errorf("after a start by hand it has died %s times", n)
	}
}

// says fails the test where no line of systemctl status has all the words.
func (h *host) says(t *testing.T, unit string, words ...string) {
	t.Helper()
	out, _ := h.Try(t.Context(), "journalctl --sync; systemctl status --no-pager --full "+unit) // the unit has failed
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "Process:") && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			t.Log(strings.TrimSpace(line))
			return
		}
	}
	t.Errorf("no line of the status has %q:\n%s", words, out)
}

// testAway stops the engine: the worker waits for it, says so, and goes on.
func testAway(t *testing.T, h *host) {
	before := h.died(t, "faena-worker")
	h.Run(t, "systemctl stop docker.socket docker.service")
	defer h.Run(t, "systemctl start docker.socket docker.service")
	faenatest.EventuallyNil(t, time.Minute, "the worker says that the engine is away", func() error {
		if text := h.property(t, "faena-worker", "StatusText"); !strings.Contains(text, "engine") {
			return fmt.Errorf("it says %q", text)
		}
		return nil
	})
	h.Run(t, "systemctl start docker.socket docker.service")
	h.works(t)
	if now := h.died(t, "faena-worker"); now != before {
		t.Errorf("the worker was %v and is %v: it has not waited", before, now)
	}
}
