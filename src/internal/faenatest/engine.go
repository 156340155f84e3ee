package faenatest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// Docker is the Docker Engine of this machine, spoken to without any client library.
type Docker struct {
	Host string // for DOCKER_HOST: unix:///…
	http *http.Client
}

// Engine returns the Docker Engine of this machine. A test without one fails; it does not skip.
func Engine(t testing.TB) *Docker {
	t.Helper()
	d, err := dial()
	if err != nil {
		t.Fatalf("no Docker Engine answers (start one with testing/setup.sh): %v", err)
	}
	t.Cleanup(d.http.CloseIdleConnections)
	return d
}

func dial() (*Docker, error) {
	host := or(os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock")
	socket, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return nil, fmt.Errorf("DOCKER_HOST is %q: the tests need an engine on this machine, at a unix socket", host)
	}
	d := &Docker{Host: host, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", socket)
		}}}}
	return d, d.call(http.MethodGet, "/_ping", nil, nil)
}

// Get decodes the answer to a GET into out and fails the test on any error.
func (d *Docker) Get(t testing.TB, path string, out any) {
	t.Helper()
	if err := d.call(http.MethodGet, path, nil, out); err != nil {
		t.Fatal(err)
	}
}

// Post sends in as JSON (or as it is, where it is an io.Reader), decodes the answer into out, and fails the test on
// any error.
func (d *Docker) Post(t testing.TB, path string, in, out any) {
	t.Helper()
	if err := d.call(http.MethodPost, path, in, out); err != nil {
		t.Fatal(err)
	}
}

// Delete removes what path names; it being absent is no error.
func (d *Docker) Delete(t testing.TB, path string) {
	t.Helper()
	if err := d.call(http.MethodDelete, path, nil, nil); err != nil && !errors.Is(err, errAbsent) {
		t.Error(err)
	}
}

var errAbsent = errors.New("not found")

// call uses no context of the test: clean-up needs it after that has ended. The client has a deadline.
func (d *Docker) call(method, path string, in, out any) error {
	body, contentType, err := encode(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, "http://engine/v1.41"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	res, err := d.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s %s: %w: %s", method, path, errAbsent, text)
	case res.StatusCode >= 300 || bytes.Contains(text, []byte(`"errorDetail"`)):
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text)
	case out == nil:
		return nil
	}
	return json.Unmarshal(text, out)
}

func encode(in any) (io.Reader, string, error) {
	switch in := in.(type) {
	case nil:
		return nil, "application/json", nil
	case io.Reader:
		return in, "application/x-tar", nil
	}
	text, err := json.Marshal(in)
	return bytes.NewReader(text), "application/json", err
}

// Containers lists the ids of the containers, in any state, with a label; "name" or "name=value".
func (d *Docker) Containers(t testing.TB, label string) []string {
	t.Helper()
	filters, err := json.Marshal(map[string][]string{"label": {label}})
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ Id string } //nolint:revive // the engine's spelling
	d.Get(t, "/containers/json?all=1&filters="+url.QueryEscape(string(filters)), &list)
	ids := make([]string, 0, len(list))
	for _, c := range list {
		ids = append(ids, c.Id)
	}
	return ids
}

// NoContainersLeft checks at the end of the test that a worker has left no container behind, and removes those that
// it has. Call it before the clean-up that stops the worker is registered: clean-up runs in reverse order.
func NoContainersLeft(t testing.TB, worker string) {
	t.Helper()
	d := Engine(t)
	t.Cleanup(func() {
		left := d.Containers(t, "faena.worker="+worker)
		if len(left) > 0 {
			t.Errorf("worker %s left %d containers behind: %s", worker, len(left), strings.Join(left, " "))
		}
		for _, id := range left {
			d.Delete(t, "/containers/"+id+"?force=1&v=1")
		}
	})
}

// Eventually polls until cond is true, and fails the test where it is not in time.
func Eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// EventuallyNil polls until cond returns nil, and fails the test with its last error where it does not in time.
func EventuallyNil(t testing.TB, within time.Duration, what string, cond func() error) {
	t.Helper()
	var err error
	deadline := time.Now().Add(within)
	for {
		if err = cond(); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", within, what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
