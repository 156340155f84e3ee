// Package fairness measures what a user's flood of asynchronous activations costs another user: how long his activations wait,
// while the flood waits in the backlog and runs.
package fairness

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/tools/bench/installation"
	"faena.dev/faena/internal/tools/bench/report"
)

const (
	// limit is each user's.
	limit = 20
	// callers is how many calls of the flood are under way at once.
	callers = 4
	// slack is what the other user may wait beyond what those before him run.
	slack = 100 * time.Millisecond
	// name is that of the function of each user.
	name = "pause"
)

//go:embed testdata/pause.c
var pause []byte

// Options are one run.
type Options struct {
	Flood        int             // how many calls the one user makes; more where they would run before the other has called
	Runs         []time.Duration // how long those take
	Calls        int             // of the other user, one after the other
	Within       time.Duration   // but at most for so long
	Installation installation.Options
	Say          func(format string, args ...any)
}

// Result is of one run time.
type Result struct {
	Run      time.Duration
	Capacity int           // places of the worker
	Bound    time.Duration // of the 95th percentile
	Waits    report.Sample // of the other user: in the queue, and until a container was ready
	Calls    report.Sample // as he sees them
	Accepted int64         // of the flood
	Waiting  int64         // in the backlog, after the last of his calls
}

// Measure makes one run for each run time, each in an installation of its own.
func Measure(ctx context.Context, o Options) (all []*Result, err error) {
	o.Installation.Servers = 1
	for _, d := range o.Runs {
		r, err := measure(ctx, o, d)
		if err != nil {
			return nil, fmt.Errorf("a flood of %v each: %w", d, err)
		}
		o.Say("%v each: %d calls beside %d, of which %d still wait: p95 %v, at most %v", d, len(r.Waits), r.Accepted, r.Waiting, r.Waits.At(.95), r.Bound)
		all = append(all, r)
	}
	return all, nil
}

func measure(ctx context.Context, o Options, d time.Duration) (_ *Result, err error) {
	i, err := installation.Start(ctx, o.Installation, 1, 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, i.Close(ctx)) }()
	c := i.Client()
	defer c.Close()
	r := &Result{Run: d}
	if r.Capacity, err = capacity(ctx, i, c); err != nil {
		return nil, err
	}
	r.Bound = d*limit/time.Duration(r.Capacity) + slack
	bin, err := i.Build(ctx, pause, name)
	if err != nil {
		return nil, err
	}
	image, err := i.Push(ctx, bin)
	if err != nil {
		return nil, err
	}
	var users [2]installation.User
	for k, run := range []time.Duration{d, 0} {
		if users[k], err = i.NewUser(ctx, c, []string{"flood", "other"}[k], limit); err != nil {
			return nil, err
		}
		spec := map[string]any{"args": []string{strconv.FormatInt(run.Milliseconds(), 10)}, "memory_bytes": 32 << 20, "warm": 1}
		if err := i.Deploy(ctx, c, users[k], name, image, spec); err != nil {
			return nil, err
		}
	}
	// Then there are containers: for the flood in all places, which is no part of what is measured.
	for _, who := range []installation.User{users[1], users[0], users[0]} {
		var calls errgroup.Group
		for range r.Capacity {
			calls.Go(func() error { _, err := call(ctx, c, who); return err })
		}
		if err := calls.Wait(); err != nil {
			return nil, err
		}
	}
	return r, r.flooded(ctx, o, c, users[0], users[1])
}

// flooded has the other user call while the flood comes and waits.
func (r *Result) flooded(ctx context.Context, o Options, c *installation.Client, flood, other installation.User) error {
	var accepted atomic.Int64
	var over atomic.Bool
	calls, ctx := errgroup.WithContext(ctx)
	for range callers {
		calls.Go(func() error {
			// What is short runs as fast as it comes: it goes on coming.
			for !over.Load() && (accepted.Load() < int64(o.Flood) || r.Run < 10*time.Millisecond) {
				_, err := c.Queue(ctx, flood, name, nil)
				switch {
				case err == nil:
					accepted.Add(1)
				case strings.Contains(err.Error(), "backlog_full"):
					if err := sleep(ctx, 10*time.Millisecond); err != nil {
						return err
					}
				default:
					return err
				}
			}
			return nil
		})
	}
	calls.Go(func() error {
		defer over.Store(true)
		began := time.Now()
		for accepted.Load() < int64(o.Flood)/2 && time.Since(began) < o.Within/4 { // so much waits that it has to wait
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
		for began = time.Now(); len(r.Waits) < o.Calls && time.Since(began) < o.Within; {
			sent := time.Now()
			waited, err := call(ctx, c, other)
			if err != nil {
				return err
			}
			r.Waits, r.Calls = append(r.Waits, waited), append(r.Calls, time.Since(sent))
		}
		var usage struct{ Backlog int64 }
		err := c.Get(ctx, flood, "/v1/users/"+flood.Name+"/usage", &usage)
		r.Waiting = usage.Backlog
		return err
	})
	err := calls.Wait()
	r.Accepted = accepted.Load()
	return err
}

// call runs the user's function once, and returns how long that had to wait.
func call(ctx context.Context, c *installation.Client, who installation.User) (time.Duration, error) {
	text, err := c.Send(ctx, who, http.MethodPost, "/v1/functions/"+name+"/activations", nil, "Accept", "application/json")
	if err != nil {
		return 0, err
	}
	var record struct {
		State   string
		Timings struct {
			Queue int64 `json:"queue_us"`
			Pull  int64 `json:"pull_us"`
			Start int64 `json:"start_us"`
		}
	}
	if err := json.Unmarshal(text, &record); err != nil || record.State != "succeeded" {
		return 0, fmt.Errorf("an activation of %s has ended as %.300q: %w", who.Name, text, err)
	}
	return time.Duration(record.Timings.Queue+record.Timings.Pull+record.Timings.Start) * time.Microsecond, nil
}

// capacity is how many activations the workers run at once.
func capacity(ctx context.Context, i *installation.Installation, c *installation.Client) (n int, err error) {
	var workers struct{ Items []struct{ Places int } }
	if err := c.Get(ctx, i.Admin, "/v1/workers", &workers); err != nil {
		return 0, err
	}
	for _, w := range workers.Items {
		n += w.Places
	}
	if n == 0 {
		return 0, errors.New("no worker has a place")
	}
	return n, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Report holds the results against the bar.
func Report(t *report.Table, all []*Result) {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) }
	var rows [][]string
	for _, r := range all {
		t.AtMost(fmt.Sprintf("p95 of another user's wait beside a flood of %v each", r.Run), r.Waits.At(.95).Seconds()*1000, r.Bound.Seconds()*1000, " ms")
		rows = append(rows, []string{fmt.Sprint(r.Run), fmt.Sprint(len(r.Waits)), ms(r.Waits.At(.5)), ms(r.Waits.At(.95)), ms(r.Waits.At(1)), ms(r.Calls.At(.5)),
			ms(r.Calls.At(.95)), fmt.Sprint(r.Accepted), fmt.Sprint(r.Waiting)})
	}
	t.Grid("What the other user waits, and how long his calls take, in ms.",
		[]string{"run time", "calls", "wait, p50", "p95", "most", "call, p50", "p95", "flood", "still waiting"}, rows)
	if len(all) > 0 {
		t.Note("Each user may have %d active; the worker has %d places. The wait is in the queue and until a container was ready; the bound is limit ÷ places × run time + %v.",
			limit, all[0].Capacity, slack)
	}
}
