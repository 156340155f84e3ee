// Command gotest runs the tests for make test: `go test -json -race -count=1` with the arguments that it is given. It
// prints a line for each package, everything about what failed, and last how many tests passed, failed and were
// skipped.
//
// It is stricter than go test. A skipped test fails the run: what was not tested is not known to work. So do no tests
// at all, no packages at all, and a Docker Engine that does not answer.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], cmp.Or(os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock"), os.Stdout, os.Stderr)
	stop()
	if err != nil {
		os.Exit(1)
	}
}

// run runs the tests against an engine and returns an error where they have not all passed; what went wrong has been
// printed then. The last line on stdout is the count in any case.
func run(ctx context.Context, args []string, engine string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("gotest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	within := flags.Duration("within", 15*time.Minute, "how long everything together may take")
	parallel := flags.String("p", "2", "how many packages are built and tested at once")
	timeout := flags.String("timeout", "10m", "how long the tests of one package may take")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r := newReport(stdout)
	ctx, cancel := context.WithTimeout(ctx, *within)
	defer cancel()
	if err := ping(ctx, engine); err != nil {
		r.problem("no Docker Engine answers (start one with testing/setup.sh): " + err.Error())
		return r.finish()
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-race", "-count=1", "-p", *parallel, "-timeout", *timeout},
		flags.Args()...)...)
	cmd.Stderr = stderr
	if err := follow(ctx, cmd, r); err != nil {
		r.problem(err.Error())
	}
	return r.finish()
}

// ping asks the engine for a sign of life.
func ping(ctx context.Context, host string) error {
	network, address, ok := strings.Cut(host, "://")
	if !ok {
		return fmt.Errorf("DOCKER_HOST is %q, which is no address", host)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/_ping", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the engine at %s answers %s", host, res.Status)
	}
	return nil
}

// patience is how long tests may clean up that must end.
const patience = 20 * time.Second

// stillRunning is how often it is said what is still running.
const stillRunning = 30 * time.Second

// follow runs the command and reports its events as they come. A command that fails although no test did is an error.
func follow(ctx context.Context, cmd *exec.Cmd, r *report) error {
	// The go command does not pass signals on to the tests, so they go to the whole group; the last one ends whatever
	// is left of it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	signalAll := func(s syscall.Signal) error { return syscall.Kill(-cmd.Process.Pid, s) }
	cmd.Cancel = func() error {
		time.AfterFunc(patience, func() { _ = signalAll(syscall.SIGKILL) })
		return signalAll(syscall.SIGINT)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	events, read := make(chan event), make(chan error, 1)
	go func() { read <- decode(out, events) }()
	tick := time.NewTicker(stillRunning)
	defer tick.Stop()
	for open := true; open; {
		var e event
		select {
		case e, open = <-events:
			if open {
				r.add(e)
			}
		case <-tick.C:
			r.progress()
		}
	}
	err = errors.Join(<-read, cmd.Wait())
	_ = signalAll(syscall.SIGKILL) // as a rule nobody is left
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errors.New("the tests did not end in time")
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case err != nil && r.failed == 0 && r.packages > 0:
		return fmt.Errorf("go test: %w", err)
	}
	return nil
}

// event is a line of go test -json; see go doc test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// decode sends each event, and closes events at the end of the input. A line that is none is sent as output.
func decode(in io.Reader, events chan<- event) error {
	defer close(events)
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				e = event{Action: "output", Output: string(line)}
			}
			events <- e
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
	}
}
