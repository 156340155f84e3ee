package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/dockerengine"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/registry"
)

// deployment is what the flags of deploy say.
type deployment struct {
	spec                       client.Spec
	file, fromEngine, ifMatch  string
	timeout                    time.Duration
	memory, resultLimit, tmpfs string
	env, labels                []string
	input, isolation           string
	retryOn                    []string
	retryDelay, retryMaxDelay  time.Duration
	registryUser               string
	registryPassword           bool
}

func (a *app) deployCommand() *cobra.Command {
	var d deployment
	cmd := &cobra.Command{
		Use: "deploy NAME", Short: "Deploy an image as a function, or a new revision of one", Args: exactly(1),
		Example: "  faena deploy hello --image registry.example.org/hello:1\n  faena deploy mine --from-engine mine:latest --input stdin",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.deploy(cmd, args[0], &d) },
	}
	f := cmd.Flags()
	f.StringVarP(&d.file, "file", "f", "", "a spec in JSON to begin with")
	f.StringVar(&d.spec.Image, "image", "", "reference of the image at its registry")
	f.StringVar(&d.fromEngine, "from-engine", "", "an image of the local Docker Engine, pushed to the appliance's own registry first")
	f.StringArrayVar(&d.spec.Command, "command", nil, "overrides the image's ENTRYPOINT; once for each word")
	f.StringArrayVar(&d.spec.Args, "arg", nil, "overrides the image's CMD; once for each word")
	f.StringVar(&d.input, "input", "", "how the parameter reaches the function: arg, stdin or both")
	f.DurationVar(&d.timeout, "timeout", 0, "longest run (default 60s)")
	f.StringVar(&d.memory, "memory", "", "such as 256MiB (default 128MiB)")
	f.Float64Var(&d.spec.Cpus, "cpus", 0, "(default 1)")
	f.Int64Var(&d.spec.Pids, "pids", 0, "processes at once (default 128)")
	f.StringVar(&d.resultLimit, "result-limit", "", "largest result (default 16MiB)")
	f.StringVar(&d.tmpfs, "tmpfs", "", "size of /tmp, /dev/shm and each volume (default 64MiB)")
	f.StringArrayVarP(&d.env, "env", "e", nil, "NAME=value, once for each")
	f.StringVar(&d.isolation, "isolation", "", "reuse, a new process, or fresh, a new container (default reuse)")
	f.IntVar(&d.spec.Warm, "warm", 0, "containers that are kept warm")
	f.StringVar(&d.spec.Group, "group", "", "group of worker hosts (default \"default\")")
	f.StringArrayVar(&d.spec.Capabilities, "capability", nil, "Linux capability to give back, once for each")
	f.BoolVar(&d.spec.WritableRoot, "writable-root", false, "let the function write to its own layer, without a bound")
	f.IntVar(&d.spec.Retries, "retries", 0, "how often it is run again after a failure, up to 10 (default 0: it runs at most once)")
	f.StringSliceVar(&d.retryOn, "retry-on", nil, "`REASONS` to run it again for (default exit_nonzero,killed_by_signal,start_failed,timeout,worker_lost)")
	f.DurationVar(&d.retryDelay, "retry-delay", 0, "before the second attempt; doubles with each (default 1s)")
	f.DurationVar(&d.retryMaxDelay, "retry-max-delay", 0, "the longest of these delays (default 5m)")
	f.StringArrayVar(&d.labels, "label", nil, "NAME=value, once for each")
	f.StringVar(&d.registryUser, "registry-username", "", "user name at the image's registry; the password is asked for")
	f.BoolVar(&d.registryPassword, "registry-password-stdin", false, "read that password from standard input")
	f.StringVar(&d.ifMatch, "if-match", "", "only if the function has this ETag")
	return a.withOutput(cmd)
}

func (a *app) deploy(cmd *cobra.Command, name string, d *deployment) error {
	ctx := cmd.Context()
	spec, err := d.complete(cmd.Flags().Changed)
	if err == nil {
		err = checkSpec(cmd, spec)
	}
	if err != nil {
		return err
	}
	c, p, err := a.client()
	if err != nil {
		return err
	}
	if d.registryUser != "" {
		password, err := a.password(ctx, "Password of "+d.registryUser+" at the image's registry", d.registryPassword)
		if err != nil {
			return err
		}
		spec.Registry = &client.Credentials{Username: d.registryUser, Password: password}
	}
	if d.fromEngine != "" {
		if spec.Image, spec.Registry, err = a.push(ctx, p, d.fromEngine, name); err != nil {
			return err
		}
	}
	res, err := client.Stream(c.PutFunction(ctx, name, &client.PutFunctionParams{IfMatch: d.ifMatch}, spec))
	if err != nil {
		return err
	}
	etag := res.Header.Get("ETag")
	f, err := client.Read[client.Function](res, nil)
	if err != nil {
		return err
	}
	for _, w := range f.Warnings {
		a.say("Warning: %s", w)
	}
	return a.show(f, func() [][]string {
		return [][]string{{"FUNCTION", "REVISION", "DIGEST", "ETAG"}, {f.Name, strconv.Itoa(f.Current), f.Revision.Digest, etag}}
	})
}

// complete makes the spec: what the file says, changed by the flags. given reports whether a flag was.
func (d *deployment) complete(given func(flag string) bool) (client.Spec, error) {
	spec := client.Spec{}
	if d.file != "" {
		text, err := os.ReadFile(d.file)
		if err != nil {
			return spec, fmt.Errorf("read the spec: %w", err)
		}
		dec := json.NewDecoder(strings.NewReader(string(text)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&spec); err != nil {
			return spec, fmt.Errorf("read the spec %s: %w", d.file, err)
		}
	}
	over := d.spec
	set(&spec.Image, over.Image)
	set(&spec.Input, client.Input(d.input))
	set(&spec.Isolation, client.Isolation(d.isolation))
	set(&spec.Group, over.Group)
	set(&spec.Cpus, over.Cpus)
	set(&spec.Pids, over.Pids)
	set(&spec.TimeoutMs, d.timeout.Milliseconds())
	set(&spec.RetryDelayMs, d.retryDelay.Milliseconds())
	set(&spec.RetryMaxDelayMs, d.retryMaxDelay.Milliseconds())
	// Of these a zero is a choice: with --retries 0 a function runs at most once, whatever the file says.
	setIf(given("retries"), &spec.Retries, over.Retries)
	setIf(given("warm"), &spec.Warm, over.Warm)
	setIf(given("writable-root"), &spec.WritableRoot, over.WritableRoot)
	for _, l := range []struct {
		to   *[]string
		from []string
	}{{&spec.Command, over.Command}, {&spec.Args, over.Args}, {&spec.Capabilities, over.Capabilities}, {&spec.RetryOn, d.retryOn}} {
		if len(l.from) > 0 {
			*l.to = l.from
		}
	}
	var err error
	for _, s := range []struct {
		flag, text string
		to         *int64
	}{{"memory", d.memory, &spec.MemoryBytes}, {"result-limit", d.resultLimit, &spec.ResultLimitBytes}, {"tmpfs", d.tmpfs, &spec.TmpfsBytes}} {
		if s.text == "" {
			continue
		}
		if *s.to, err = parseSize(s.text); err != nil {
			return spec, usage{fmt.Errorf("--%s: %w", s.flag, err)}
		}
	}
	if spec.Env, err = pairs("env", spec.Env, d.env); err != nil {
		return spec, err
	}
	spec.Labels, err = pairs("label", spec.Labels, d.labels)
	if err == nil && (spec.Image == "") == (d.fromEngine == "") {
		err = usage{errors.New("deploy needs one image: from --image, from image in the file of -f, or with --from-engine")}
	}
	return spec, err
}

func set[T comparable](to *T, v T) {
	var zero T
	setIf(v != zero, to, v)
}

func setIf[T any](given bool, to *T, v T) {
	if given {
		*to = v
	}
}

func pairs(flag string, to map[string]string, list []string) (map[string]string, error) {
	for _, kv := range list {
		name, value, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, usage{fmt.Errorf("--%s is %q, must be NAME=value", flag, name)}
		}
		if to == nil {
			to = make(map[string]string)
		}
		to[name] = value
	}
	return to, nil
}

// parseSize reads a number of bytes: 1048576, 512KiB, 64MiB or 2GiB.
func parseSize(text string) (int64, error) {
	unit := int64(1)
	for suffix, bytes := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if digits, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = digits, bytes
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return 0, fmt.Errorf("%q is no size such as 512KiB, 64MiB or 2GiB", text)
	}
	return n * unit, nil
}

// engineHost is where this host's Docker Engine answers: for `faena up`, and so for everything else.
func (a *app) engineHost() string {
	return or(a.env("FAENA_DOCKER_HOST"), or(a.env("DOCKER_HOST"), "unix:///var/run/docker.sock"))
}

func (a *app) openEngine(ctx context.Context) (*dockerengine.Engine, error) {
	engine, err := dockerengine.Open(ctx, dockerengine.Options{Host: a.env("FAENA_DOCKER_HOST")})
	if err != nil {
		return nil, fmt.Errorf("open the Docker Engine, which FAENA_DOCKER_HOST or DOCKER_HOST names: %w", err)
	}
	return engine, nil
}

// push copies an image of the local engine to the appliance's own registry, and fetches what the function pulls with.
func (a *app) push(ctx context.Context, p profile, image, name string) (ref string, creds *client.Credentials, err error) {
	if p.Registry == "" {
		return "", nil, errors.New("this login names no image registry of the appliance: log in with --registry HOST:PORT")
	}
	if err := p.checkRegistry(); err != nil {
		return "", nil, err
	}
	if !faena.ValidName(name) { // it is to be a repository's name
		return "", nil, usage{fmt.Errorf("%q is no name of a function, which must match %s", name, faena.NamePattern)}
	}
	engine, err := a.openEngine(ctx)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	a.say("Reading %s from the Docker Engine …", image)
	stream, err := engine.SaveImage(ctx, image)
	if e, ok := errors.AsType[*faena.Error](err); ok && e.Kind == faena.KindNotFound {
		there := *e
		there.Message = fmt.Sprintf("There is no image %q in the Docker Engine at %s; docker images lists those that there are.", image, a.engineHost())
		err = &there
	}
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	to := p.Registry + "/" + strings.ToLower(p.Username) + "/" + name + ":latest"
	progress := a.progress("Pushing to " + p.Registry)
	ref, err = registry.Push(ctx, stream, to, &faena.Credentials{Username: p.Username, Password: p.Password}, progress)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" { // the registry is a part of the appliance
		err = fmt.Errorf("%w: %w", client.ErrAway, err)
	}
	if err != nil {
		return "", nil, err
	}
	creds, err = pullToken(ctx, p)
	return ref, creds, err
}

// progress shows how far a long piece of work is, where a person looks.
func (a *app) progress(what string) func(done, total int64) {
	a.say("%s …", what)
	if !a.errTTY {
		return nil
	}
	last := time.Time{}
	return func(done, total int64) {
		if total > 0 && (done == total || time.Since(last) > 200*time.Millisecond) {
			last = time.Now()
			fmt.Fprintf(a.err, "\r%s: %d of %d MiB ", what, done>>20, total>>20)
			if done == total {
				a.say("")
			}
		}
	}
}

// pullToken asks the appliance's registry for credentials that outlive the password.
func pullToken(ctx context.Context, p profile) (*client.Credentials, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Registry+registry.PullTokenPath, nil)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(p.Username, p.Password)
	c := http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the image registry for a pull token: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	var creds client.Credentials
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the image registry for a pull token: it answers %s", res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(&creds); err != nil {
		return nil, fmt.Errorf("ask the image registry for a pull token: %w", err)
	}
	return &creds, nil
}
