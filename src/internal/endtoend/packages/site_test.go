//go:build packages

package packages_test

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"faena.dev/faena/internal/endtoend/hosts"
	"faena.dev/faena/internal/faenatest"
)

var dist = flag.String("dist", "../../../../bin/packages", "the `DIR` that testing/packages.sh has filled")

func TestMain(m *testing.M) {
	os.Exit(faenatest.Run(m, 3))
}

// site is a network of hosts, and an image registry of this process, which they reach.
type site struct {
	*hosts.Network
	image    string // that hosts are made of
	gateway  string // this machine, as hosts see it
	registry string
	images   http.Handler // what is behind it
}

func newSite(t *testing.T) *site {
	image, err := exec.CommandContext(t.Context(), filepath.Join(faenatest.SourceDir(t), "..", "testing", "hosts.sh")).Output()
	if err != nil {
		t.Fatalf("make the image of hosts: %v", err)
	}
	s := &site{Network: hosts.NewNetwork(t), image: strings.TrimSpace(string(image))}
	s.gateway = s.Gateway(t)
	listener, err := net.Listen("tcp4", net.JoinHostPort(s.gateway, "0"))
	if err != nil {
		t.Fatal(err)
	}
	s.images = registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewUnstartedServer(s.images)
	_ = server.Listener.Close() // ours is used instead
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	s.registry = listener.Addr().String()
	return s
}

// push makes an image of one static program in C, which is in its PATH, and returns its reference.
func (s *site) push(t *testing.T, source string, entrypoint ...string) (ref string) {
	t.Helper()
	program, err := os.ReadFile(faenatest.CProgram(t, source))
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSuffix(filepath.Base(source), ".c")
	return faenatest.Push(t, s.registry, name, faenatest.Image(t, faenatest.ImageSpec{Bare: true, Entrypoint: entrypoint, Env: []string{"PATH=/bin"},
		Files: []faenatest.File{{Path: "/bin/" + name, Data: program}}}), nil)
}

// host is one with nothing of Faena's on it, but for the bundle in /root, and that its engine and its daemons are to take the site's registry.
func (s *site) host(t *testing.T, name string) *host {
	t.Helper()
	h := &host{s.Start(t, s.image, name), s}
	h.Put(t, "/etc/docker/daemon.json", "0644", fmt.Sprintf(`{"insecure-registries": [%q]}`, s.registry))
	settings := fmt.Sprintf("[Service]\nEnvironment=FAENA_REGISTRY_INSECURE=%s\nEnvironment=FAENA_REGISTRY_PRIVATE_HOSTS=%s\n", s.registry, s.registry)
	h.Put(t, "/etc/systemd/system/faena-api.service.d/test.conf", "0644", settings)
	h.Put(t, "/etc/systemd/system/faena-worker.service.d/test.conf", "0644", settings+"Environment=FAENA_WORKER_ALLOW="+s.gateway+"\n")
	h.Copy(t, made(t, "faena-bundle-*.tar"), "/root")
	return h
}

// made is what testing/packages.sh has made under the only name that matches.
func made(t testing.TB, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(*dist, pattern))
	if err != nil || len(names) != 1 {
		t.Fatalf("there are %d files %s in %s, where testing/packages.sh is to put one: %v", len(names), pattern, *dist, err)
	}
	return names[0]
}

// host is a host of a site.
type host struct {
	*hosts.Host
	site *site
}

// property is what systemd says of a unit.
func (h *host) property(t testing.TB, unit, name string) string {
	t.Helper()
	return strings.TrimSpace(h.Run(t, fmt.Sprintf("systemctl show --property %s --value %s", name, unit)))
}
