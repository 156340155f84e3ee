//go:build packages

package packages_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// tlsRegistry is the site's registry over TLS, with what it was asked for by clients who trusted its certificate.
type tlsRegistry struct {
	port  string
	asked atomic.Int64
}

func (s *site) overTLS(t *testing.T, cert faenatest.Certificate, port string) *tlsRegistry {
	t.Helper()
	listener, err := net.Listen("tcp4", net.JoinHostPort(s.gateway, port))
	if err != nil {
		t.Fatal(err)
	}
	r := &tlsRegistry{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.asked.Add(1)
		s.images.ServeHTTP(w, req)
	}))
	_ = server.Listener.Close() // ours is used instead
	server.Listener, server.TLS = listener, &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, r.port, err = net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// advised is the file of settings of the engine in docs/operations.md.
var advised = regexp.MustCompile(`(?s)    \{\n(      "live-restore".*?)    \}\n`)

// testRegistries goes by docs/operations.md for a registry with a CA of its own at a private address, and for a mirror of Docker Hub. Before, what
// is missing is said.
func testRegistries(t *testing.T, h *host) {
	document := filepath.Join(faenatest.SourceDir(t), "..", "docs", "operations.md")
	ca := faenatest.NewCA(t)
	cert := ca.Issue("registries", "registry.example.org", "mirror.example.org", "index.docker.io")
	private, mirror := h.site.overTLS(t, cert, "0"), h.site.overTLS(t, cert, "0")
	h.site.overTLS(t, cert, "443") // Docker Hub, of which the API asks for digests; the engine asks another name, which is not there
	h.Run(t, "echo "+h.site.gateway+" registry.example.org mirror.example.org index.docker.io >>/etc/hosts")
	text, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	h.Put(t, "/root/ca.pem", "0644", string(text))
	_, digest, _ := strings.Cut(h.site.push(t, filepath.Join("testdata", "pause.c")), "@")
	own := "registry.example.org:" + private.port + "/pause@" + digest

	fails := func(image, says string) {
		t.Helper()
		faenatest.EventuallyNil(t, time.Minute, "the API is ready", func() error { _, err := h.Try(t.Context(), "faena activations"); return err })
		if _, err := h.Try(t.Context(), "faena deploy own --command pause --image "+image); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("deploy says %v, and should say %q", err, says)
		}
	}
	runs := func(image string) {
		t.Helper()
		faenatest.EventuallyNil(t, time.Minute, image+" is deployed", func() error {
			_, err := h.Try(t.Context(), "faena deploy own --command pause --image "+image)
			return err
		})
		faenatest.EventuallyNil(t, time.Minute, image+" runs", func() error { // an API that has just started may not know of workers yet
			out, err := h.Try(t.Context(), "faena invoke own 1")
			if err == nil && out != "1\n" {
				t.Fatalf("the result is %q", out)
			}
			return err
		})
	}
	// The site's own registry, by which the host was installed, stays; what stands for Docker Hub has a private address here, and is not found by the
	// name that engines ask.
	more := strings.NewReplacer("HOSTS=registry.example.org", "HOSTS=registry.example.org,index.docker.io,registry-1.docker.io,"+h.site.registry, ":5000", ":"+private.port)

	t.Run("private", func(t *testing.T) {
		fails(own, "FAENA_REGISTRY_PRIVATE_HOSTS")
		var commands []string
		for _, block := range blocks(t, document) {
			if strings.Contains(block, "registry.example.org") {
				commands = append(commands, more.Replace(block))
			}
		}
		if len(commands) != 2 {
			t.Fatalf("docs/operations.md has %d blocks about a private registry, and should have two", len(commands))
		}
		h.Run(t, "cd /root\n"+commands[0])
		h.Run(t, "cp /etc/faena/api.env /root/api.env.before; grep PRIVATE_HOSTS= /etc/faena/worker.env | tail -n 1 >>/etc/faena/api.env; systemctl restart faena-api")
		fails(own, "the host of each API must trust it")
		h.Run(t, "cp /root/api.env.before /etc/faena/api.env; cd /root\n"+commands[1])
		runs(own)
		if private.asked.Load() == 0 {
			t.Error("nothing has asked the registry")
		}
	})
	t.Run("mirror", func(t *testing.T) {
		doctor := func() string { t.Helper(); out, _ := h.Try(t.Context(), "faena doctor"); return out }
		missing := []string{"every worker pulls from Docker Hub itself", "live-restore"}
		for _, each := range missing {
			if out := doctor(); !strings.Contains(out, each) {
				t.Errorf("before, the doctor does not say %q:\n%s", each, out)
			}
		}
		page, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		json := advised.FindStringSubmatch(string(page))
		if json == nil {
			t.Fatal("docs/operations.md has no daemon.json")
		}
		h.Put(t, "/etc/docker/daemon.json", "0644", "{\"insecure-registries\": [\""+h.site.registry+"\"],\n"+
			strings.ReplaceAll(json[1], "mirror.example.org", "mirror.example.org:"+mirror.port)+"}\n")
		h.Run(t, "install -D -m 0644 /root/ca.pem /etc/docker/certs.d/mirror.example.org:"+mirror.port+"/ca.crt; systemctl reload docker")
		program, err := os.ReadFile(faenatest.CProgram(t, filepath.Join("testdata", "pause.c")))
		if err != nil {
			t.Fatal(err)
		}
		faenatest.Push(t, h.site.registry, "library/pause", faenatest.Image(t, faenatest.ImageSpec{Bare: true,
			Env: []string{"PATH=/bin", "FROM=hub"}, Files: []faenatest.File{{Path: "/bin/pause", Data: program}}}), nil)
		runs("docker.io/library/pause:latest")
		if mirror.asked.Load() == 0 {
			t.Error("the engine has not asked the mirror")
		}
		h.Run(t, "systemctl restart faena-worker") // which asks its engine each minute, and when it starts
		faenatest.EventuallyNil(t, time.Minute, "the doctor misses nothing of it", func() error {
			out := doctor()
			for _, each := range missing {
				if strings.Contains(out, each) || !strings.Contains(out, "of 1 worker, version") {
					return fmt.Errorf("it says %q, or nothing of the engine: %s", each, out)
				}
			}
			return nil
		})
	})
}
