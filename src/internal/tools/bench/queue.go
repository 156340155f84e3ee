package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// ofOne is how many asynchronous activations a user may have at once: four fifths of the highest limit.
	ofOne = 800
	// parameterBytes is the size of each one's parameter.
	parameterBytes = 2 << 10
	// settle is how long the server may keep in memory what was just written.
	settle = 30 * time.Second
	// drainFor bounds the wait for the end of all.
	drainFor = 15 * time.Minute
)

// queueBench queues many activations while no worker takes any, starts the appliance again, and lets all run.
type queueBench struct {
	f     *appliance
	t     *table
	n     int
	users []string
	peak  int64 // resident memory, in bytes
}

func measureQueue(ctx context.Context, o options) (_ *table, err error) {
	dir, err := os.MkdirTemp("", "faena-bench-bin")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bin, err := compile(ctx, o.source, dir)
	if err != nil {
		return nil, err
	}
	if err := importImage(ctx, bin); err != nil {
		return nil, err
	}
	q := &queueBench{t: &table{machine: machine()}, n: o.queued}
	if q.f, err = startAgainable(ctx, o.faena); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, q.f.stop()) }()
	for _, step := range []func(context.Context) error{q.prepare, q.hold, q.fill, q.drain} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return q.t, nil
}

// startAgainable starts an appliance on addresses that it has again when it is started again.
func startAgainable(ctx context.Context, bin string) (*appliance, error) {
	var settings []string
	for _, name := range []string{"FAENA_LISTEN", "FAENA_OPERATIONS_LISTEN", "FAENA_REGISTRY_LISTEN"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // a listener that nobody has called
		settings = append(settings, name+"="+l.Addr().String())
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	return startAppliance(ctx, bin, settings...)
}

// prepare makes as many users as are needed, each with the function.
func (q *queueBench) prepare(ctx context.Context) error {
	for i := range (q.n + ofOne - 1) / ofOne {
		q.users = append(q.users, fmt.Sprintf("bench-%03d", i))
	}
	for i, user := range q.users {
		profile := fmt.Sprintf(`{"role":"user","groups":{"default":1000},"password":%q}`, passwordOf(user))
		if _, err := q.f.send(ctx, http.MethodPut, "/v1/users/"+user, q.f.user, q.f.password, []byte(profile)); err != nil {
			return err
		}
		home := filepath.Join(q.f.dir, user)
		for _, args := range [][]string{
			{"login", q.f.url, "--user", user, "--registry", q.f.registry, "--password-stdin"}, {"deploy", "bench", "--from-engine", image},
		} {
			cmd := exec.CommandContext(ctx, q.f.bin, args...)
			cmd.Env = append(q.f.environ(), "HOME="+home)
			cmd.Stdin = strings.NewReader(passwordOf(user))
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s of %s: %w: %s", args[0], user, err, out)
			}
		}
		if (i+1)%25 == 0 {
			fmt.Fprintf(os.Stderr, "bench: %d of %d users are there\n", i+1, len(q.users))
		}
	}
	return nil
}

func passwordOf(user string) string { return "a-password-of-" + user }

// hold starts the appliance again with a worker that takes nothing.
func (q *queueBench) hold(ctx context.Context) error {
	if err := q.f.down(); err != nil {
		return err
	}
	q.f.settings, q.f.held = append(q.f.settings, "FAENA_DISK_MIN_FREE=1000000GiB"), true
	return q.f.up(ctx)
}

// fill queues all, several clients at once.
func (q *queueBench) fill(ctx context.Context) error {
	idle, err := q.f.usage()
	if err != nil {
		return err
	}
	began := time.Now()
	group, calls := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, user := range q.users {
		group.Go(func() error {
			parameter := bytes.Repeat([]byte("x"), parameterBytes)
			for range min(ofOne, q.n-i*ofOne) {
				if _, err := q.f.send(calls, http.MethodPost, "/v1/functions/bench/activations", user, passwordOf(user), parameter, "Prefer", "respond-async"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	took := time.Since(began)
	full, err := q.f.usage()
	if err != nil {
		return err
	}
	q.peak = full.rss
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
	}
	still, err := q.f.usage()
	if err != nil {
		return err
	}
	q.t.notes = append(q.t.notes, fmt.Sprintf("%d activations of %d bytes were queued in %s, %.0f a second; resident memory %d MB before, %d MB at the end of that, %d MB after %s.",
		q.n, parameterBytes, took.Round(time.Second), float64(q.n)/took.Seconds(), idle.rss/1e6, full.rss/1e6, still.rss/1e6, settle))
	q.t.budgets = append(q.t.budgets, budget{"memory of API, NATS and worker together, all queued", float64(still.rss) / 1e6, 350, false, " MB"})
	return nil
}

// drain starts the appliance again, with a worker that works, and waits until all have ended.
func (q *queueBench) drain(ctx context.Context) error {
	if err := q.f.down(); err != nil {
		return err
	}
	began := time.Now()
	q.f.settings, q.f.held = q.f.settings[:len(q.f.settings)-1], false
	if err := q.f.up(ctx); err != nil {
		return err
	}
	ready := time.Since(began)
	done := 0
	for deadline := began.Add(drainFor); done < q.n && time.Now().Before(deadline); {
		time.Sleep(time.Second)
		use, err := q.f.usage()
		if err != nil {
			return err
		}
		q.peak = max(q.peak, use.rss)
		if done, err = q.ended(ctx); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "bench: %d of %d have ended, %d MB\n", done, q.n, use.rss/1e6)
	}
	took := time.Since(began)
	q.t.notes = append(q.t.notes, fmt.Sprintf("Started again with all of them queued it was ready after %s; all had run after %s, %.0f a second.",
		ready.Round(100*time.Millisecond), took.Round(time.Second), float64(done)/took.Seconds()))
	q.t.budgets = append(q.t.budgets,
		budget{"lost of " + fmt.Sprint(q.n) + " queued activations", float64(q.n - done), 0, false, ""},
		budget{"memory of API, NATS and worker together, at most", float64(q.peak) / 1e6, 600, false, " MB"})
	return nil
}

// ended counts what has succeeded, over all users.
func (q *queueBench) ended(ctx context.Context) (n int, err error) {
	for _, user := range q.users {
		var usage struct{ Completed int }
		if err := q.f.get(ctx, "/v1/users/"+user+"/usage", &usage); err != nil {
			return 0, err
		}
		n += usage.Completed
	}
	return n, nil
}

// send makes one call; any answer but a 2xx is an error. headers are pairs.
func (a *appliance) send(ctx context.Context, method, path, user, password string, body []byte, headers ...string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(user, password)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s answered %s: %.300s", method, path, res.Status, text)
	}
	return text, err
}
