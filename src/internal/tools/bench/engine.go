package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const image = "faena-bench:noop"

// importImage makes the program an image of one file.
func importImage(ctx context.Context, bin string) error {
	script := fmt.Sprintf(`tar -C %s -c noop | docker import --change 'ENTRYPOINT ["/noop"]' - %s`, filepath.Dir(bin), image)
	if out, err := exec.CommandContext(ctx, "sh", "-c", script).CombinedOutput(); err != nil {
		return fmt.Errorf("import the image: %w: %s", err, out)
	}
	return nil
}

// dockerRun is one `docker run --rm`.
func dockerRun(ctx context.Context, arg string) (time.Duration, error) {
	start := time.Now()
	out, err := exec.CommandContext(ctx, "docker", "run", "--rm", image, arg).CombinedOutput()
	took := time.Since(start)
	if err != nil || string(out) != arg {
		return 0, fmt.Errorf("docker run answered %q: %w", out, err)
	}
	return took, nil
}

// engineAPI speaks to the Docker Engine without any client library.
type engineAPI struct{ http *http.Client }

func newEngineAPI() *engineAPI {
	return &engineAPI{&http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", "/var/run/docker.sock")
		}}}}
}

func (e *engineAPI) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://engine/v1.41"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := e.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, strings.TrimSpace(string(text)))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// cycle is one create, start, wait and remove; started is how long create and start took together.
func (e *engineAPI) cycle(ctx context.Context, arg string) (whole, started time.Duration, err error) {
	var created struct{ Id string }
	begin := time.Now()
	if err := e.call(ctx, "POST", "/containers/create", map[string]any{"Image": image, "Cmd": []string{arg}}, &created); err != nil {
		return 0, 0, err
	}
	if err := e.call(ctx, "POST", "/containers/"+created.Id+"/start", nil, nil); err != nil {
		return 0, 0, err
	}
	started = time.Since(begin)
	if err := e.call(ctx, "POST", "/containers/"+created.Id+"/wait", nil, nil); err != nil {
		return 0, 0, err
	}
	whole = time.Since(begin)
	return whole, started, e.call(ctx, "DELETE", "/containers/"+created.Id, nil, nil)
}
