package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"faena.dev/faena/internal/tools/bench/installation"
	"faena.dev/faena/internal/tools/bench/report"
)

//go:embed testdata/sleep.c
var sleeper []byte

// The installation that the budgets are of, and how far it grows.
const (
	clusterServers = 3
	clusterAPIs    = 2
	clusterWorkers = 2
	mostAPIs       = 3
	mostWorkers    = 4
)

// cellFor is how long each cell of the tables of growth is measured, warmFor how long it runs before, until there are
// containers for all places.
const (
	cellFor = 4 * time.Second
	warmFor = time.Second
)

// grown are the functions of the tables of growth. The first takes what two cores give; the second leaves them to the
// control plane, so that more workers are more work done.
var grown = []struct {
	name    string
	clients int
}{{"noop", 32}, {"sleep", 64}}

// clusterBench is one run of `make bench-cluster`.
type clusterBench struct {
	o      options
	i      *installation.Installation
	client *installation.Client
	who    installation.User
	t      *report.Table
}

// measureCluster is `make bench-cluster`.
func measureCluster(ctx context.Context, o options) (_ *report.Table, err error) {
	began := time.Now()
	i, err := installation.Start(ctx, installation.Options{Programs: o.programs, Servers: clusterServers, SharedDocuments: true}, clusterAPIs, clusterWorkers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, i.Close(ctx)) }()
	say("the installation is there after %v", time.Since(began).Round(100*time.Millisecond))
	b := &clusterBench{o: o, i: i, client: i.Client(), t: &report.Table{}}
	for _, step := range []func(context.Context) error{b.prepare, b.idle, b.warm, b.growth} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	b.t.Note("%d NATS servers, each stream on all of them, %d APIs and %d workers, all connections with TLS; the client calls the APIs in turn. "+
		"The documents are in %s, a process that is not counted.", clusterServers, clusterAPIs, clusterWorkers, i.Documents())
	return b.t, nil
}

// prepare makes a user and the functions, and has each run once.
func (b *clusterBench) prepare(ctx context.Context) (err error) {
	if b.who, err = b.i.NewUser(ctx, b.client, "bench", 100); err != nil {
		return err
	}
	for name, source := range map[string][]byte{"noop": noop, "sleep": sleeper} {
		bin, err := b.i.Build(ctx, source, name)
		if err != nil {
			return err
		}
		image, err := b.i.Push(ctx, bin)
		if err != nil {
			return err
		}
		if err := b.i.Deploy(ctx, b.client, b.who, name, image, map[string]any{"memory_bytes": 32 << 20, "cpus": 0.5}); err != nil {
			return err
		}
	}
	return nil
}

// warm measures one client, and more of them than there are places.
func (b *clusterBench) warm(ctx context.Context) error {
	for _, load := range []struct {
		clients, n int
		name       string
	}{{1, b.o.single, "one client"}, {8, b.o.parallel, "8 clients"}, {32, b.o.parallel, "32 clients"}} {
		// Containers for all places first.
		if _, _, err := b.client.LoadFor(ctx, b.who, "noop", max(load.clients, 16), warmFor); err != nil {
			return err
		}
		var s report.Sample
		var rate float64
		use, err := b.uses(func() (err error) {
			s, rate, err = b.client.Load(ctx, b.who, "noop", load.clients, load.n)
			return err
		})
		if err != nil {
			return err
		}
		b.t.Row("R3, warm `reuse`, "+load.name, s, rate)
		if load.clients == 1 {
			b.t.AtMost("one client: p99 ÷ p50", ratio(s.At(.99), s.At(.5)), 6, " ×")
		}
		b.t.AtMost("CPU of APIs + NATS + workers per activation, "+load.name, use.per(len(s)), 2, " ms")
		b.t.Note("CPU per activation, %s: %s.", load.name, use.parts(len(s)))
	}
	return nil
}

// cpu is how much processor time each part of the control plane has used.
type cpu map[string]time.Duration

// per is all of it for each of n activations, in milliseconds.
func (c cpu) per(n int) float64 {
	var sum time.Duration
	for _, d := range c {
		sum += d
	}
	return float64(sum.Microseconds()) / 1000 / float64(max(n, 1))
}

// parts says which part has used how much of it.
func (c cpu) parts(n int) string {
	var each []string
	for _, part := range installation.Parts {
		each = append(each, fmt.Sprintf("%s %.2f ms", part, cpu{part: c[part]}.per(n)))
	}
	return strings.Join(each, ", ")
}

// uses is how much processor time the control plane uses while fn runs.
func (b *clusterBench) uses(fn func() error) (cpu, error) {
	before, err := b.i.Control()
	if err != nil {
		return nil, err
	}
	if err := fn(); err != nil {
		return nil, err
	}
	after, err := b.i.Control()
	use := cpu{}
	for part, u := range after {
		use[part] = u.CPU - before[part].CPU
	}
	return use, err
}

// idle measures what the control plane uses while nobody calls.
func (b *clusterBench) idle(ctx context.Context) error {
	use, err := b.uses(func() error {
		select {
		case <-time.After(cellFor):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return err
	}
	b.t.Note("CPU per second with nobody calling: %s.", use.parts(int(cellFor/time.Second)))
	return nil
}

// growth measures from one to several workers, and from one to several APIs.
func (b *clusterBench) growth(ctx context.Context) error {
	var rows [][]string
	for _, size := range sizes() {
		say("%d APIs, %d workers", size[0], size[1])
		if err := errors.Join(b.i.SetAPIs(ctx, size[0]), b.i.SetWorkers(ctx, size[1])); err != nil {
			return err
		}
		b.client.Close()
		b.client = b.i.Client()
		row := []string{fmt.Sprint(size[0]), fmt.Sprint(size[1])}
		for _, f := range grown {
			if _, _, err := b.client.LoadFor(ctx, b.who, f.name, f.clients, warmFor); err != nil {
				return err
			}
			var s report.Sample
			var rate float64
			use, err := b.uses(func() (err error) {
				s, rate, err = b.client.LoadFor(ctx, b.who, f.name, f.clients, cellFor)
				return err
			})
			if err != nil {
				return err
			}
			row = append(row, fmt.Sprintf("%.0f", rate), fmt.Sprintf("%.1f ms", float64(s.At(.5).Microseconds())/1000), fmt.Sprintf("%.2f ms", use.per(len(s))))
		}
		rows = append(rows, row)
	}
	head := []string{"APIs", "workers"}
	for _, f := range grown {
		head = append(head, fmt.Sprintf("%s, %d clients: per second", f.name, f.clients), "p50", "CPU per activation")
	}
	b.t.Grid("How it grows. The function sleep waits for 20 ms, so that the two cores are not what ends it.", head, rows)
	return nil
}

// sizes are the installations of the table of growth, as APIs and workers.
func sizes() (list [][2]int) {
	for workers := 1; workers <= mostWorkers; workers++ {
		list = append(list, [2]int{clusterAPIs, workers})
	}
	for apis := 1; apis <= mostAPIs; apis++ {
		if apis != clusterAPIs {
			list = append(list, [2]int{apis, clusterWorkers})
		}
	}
	return list
}
