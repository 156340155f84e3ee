package wiring_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

// Containers share a bridge, and cannot reach each other on it: neither another user's nor the same user's.
func testNetwork(t *testing.T, i *installation) {
	program, err := os.ReadFile(faenatest.CProgram(t, filepath.Join("testdata", "net.c")))
	if err != nil {
		t.Fatal(err)
	}
	image := i.push(t, "net", faenatest.ImageSpec{Bare: true, Entrypoint: []string{"/net"}, Files: []faenatest.File{{Path: "/net", Data: program}}})
	deploy := func(c *client.Client, mode string) {
		i.deploy(t, c, mode, func(s *client.Spec) { s.Image = image }, mode)
	}
	callers := map[string]*client.Client{"the same user's": i.user(t, "server", 20), "another's": i.user(t, "dialler", 20)}
	server := callers["the same user's"]
	deploy(server, "serve")
	id := async(t, server, "serve", "9000")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	address := ""
	_, _ = server.FollowLogs(ctx, id, 0, func(p []byte) error { address += string(p); stop(); return nil }) // its first words are all of it
	host, _, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) == nil || net.ParseIP(host).IsLoopback() {
		t.Fatalf("the server says %q", address)
	}
	for whose, c := range callers {
		deploy(c, "dial")
		if said := must(t, c, "dial", address); said == "reached" || said == "" {
			t.Errorf("%s function says of the server at %s: %q", whose, address, said)
		}
	}
	if _, err := client.Read[client.Activation](server.CancelActivation(t.Context(), id)); err != nil {
		t.Error(err)
	}
	if a := ended(t, server, id); a.State != client.StateCancelled {
		t.Errorf("the server was %s (%s) meanwhile", a.State, a.Message)
	}
}
