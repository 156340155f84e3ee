package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Engine is a Docker Engine of the installation's own: nothing that happens to it is noticed by another one of this machine. It
// sets no packet rules of its own, since those of several engines would get into each other's way.
type Engine struct {
	*Process
	Socket string

	dir  string
	http *http.Client
}

func newEngine(dir, logs, name, pool string) (*Engine, error) {
	e := &Engine{dir: filepath.Join(dir, name), Socket: filepath.Join(dir, name, "sock")}
	if err := os.Mkdir(e.dir, 0o711); err != nil {
		return nil, err
	}
	config := filepath.Join(e.dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		return nil, err
	}
	e.Process = newProcess(name, logs, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + e.dir}, "dockerd", "--config-file", config,
		"--host", "unix://"+e.Socket, "--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"), "--pidfile", filepath.Join(e.dir, "pid"),
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--default-address-pool", "base="+pool+",size=26")
	e.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", e.Socket)
	}}}
	return e, nil
}

// Run starts it and waits until it answers.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.Start(); err != nil {
		return err
	}
	return e.await(ctx, func(ctx context.Context) error { return e.call(ctx, http.MethodGet, "/_ping", nil) })
}

// Container is one that the engine has.
type Container struct {
	ID      string `json:"Id"`
	Created int64
	State   string
	Labels  map[string]string
}

// Containers are those of a worker, in any state.
func (e *Engine) Containers(ctx context.Context, worker string) (list []Container, err error) {
	return list, e.call(ctx, http.MethodGet, "/containers/json?all=1&filters="+url.QueryEscape(`{"label":["faena.worker=`+worker+`"]}`), &list)
}

// HasImage reports whether it has an image of a repository.
func (e *Engine) HasImage(ctx context.Context, repository string) (bool, error) {
	var list []struct{ RepoDigests []string }
	if err := e.call(ctx, http.MethodGet, "/images/json", &list); err != nil {
		return false, err
	}
	for _, image := range list {
		for _, digest := range image.RepoDigests {
			if strings.Contains(digest, "/"+repository+"@") {
				return true, nil
			}
		}
	}
	return false, nil
}

func (e *Engine) call(ctx context.Context, method, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, nil)
	if err != nil {
		return err
	}
	res, err := e.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it is read
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s of %s answers %s", method, path, e.Name, res.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(out)
}

// close ends it with all its containers, and removes what it had.
func (e *Engine) close(ctx context.Context) error {
	var errs []error
	if !e.Runs() { // what it left is ended by the next one
		errs = append(errs, e.Run(ctx))
	}
	if e.Runs() {
		_ = e.Signal(unix.SIGCONT) // it may be stopped
		var networks []struct{ Name, Driver string }
		if err := e.call(ctx, http.MethodGet, "/networks", &networks); err == nil {
			var all []Container
			errs = append(errs, e.call(ctx, http.MethodGet, "/containers/json?all=1", &all))
			for _, c := range all {
				_ = e.call(ctx, http.MethodDelete, "/containers/"+c.ID+"?force=1&v=1", nil) // it may be on its way out
			}
			for _, n := range networks {
				if n.Driver == "bridge" {
					errs = append(errs, e.call(ctx, http.MethodDelete, "/networks/"+n.Name, nil))
				}
			}
		}
		errs = append(errs, e.Stop())
	}
	e.http.CloseIdleConnections()
	e.discard()
	killBelow(e.dir)
	errs = append(errs, unmountBelow(e.dir), os.RemoveAll(e.dir))
	return errors.Join(errs...)
}

// unmountBelow unmounts what is mounted below a directory.
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			if err := unix.Unmount(fields[1], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("unmount %s: %w", fields[1], err))
			}
		}
	}
	return errors.Join(errs...)
}
