package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
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
	for _, step := range []func(context.Context) error{b.prepare, b.single, b.several, b.growth} {
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

// single measures one client.
func (b *clusterBench) single(ctx context.Context) error {
	const name = "R3, warm `reuse`, one client"
	s, rate, use, err := b.load(ctx, "noop", 1, b.o.single)
	if err != nil {
		return err
	}
	b.t.Row(name, s, rate)
	b.t.AtMost("one client: p99 ÷ p50", ratio(s.At(.99), s.At(.5)), 6, " ×")
	b.cpu("one client", use, len(s))
	return nil
}

// several measures more clients than places.
func (b *clusterBench) several(ctx context.Context) error {
	for _, clients := range []int{8, 32} {
		s, rate, use, err := b.load(ctx, "noop", clients, b.o.parallel)
		if err != nil {
			return err
		}
		b.t.Row(fmt.Sprintf("R3, warm `reuse`, %d clients", clients), s, rate)
		b.cpu(fmt.Sprintf("%d clients", clients), use, len(s))
	}
	return nil
}

func (b *clusterBench) cpu(clients string, use time.Duration, n int) {
	b.t.AtMost("CPU of APIs + NATS + workers per activation, "+clients, perActivation(use, n), 2, " ms")
}

func perActivation(use time.Duration, n int) float64 {
	return float64(use.Microseconds()) / 1000 / float64(max(n, 1))
}

// load runs n activations, when there are containers for all places, and returns what the control plane has used too.
func (b *clusterBench) load(ctx context.Context, function string, clients, n int) (s report.Sample, rate float64, use time.Duration, err error) {
	if _, _, err = b.client.LoadFor(ctx, b.who, function, max(clients, 16), warmFor); err != nil {
		return
	}
	use, err = b.uses(func() error {
		s, rate, err = b.client.Load(ctx, b.who, function, clients, n)
		return err
	})
	return
}

// uses is how much processor time the control plane uses while fn runs.
func (b *clusterBench) uses(fn func() error) (time.Duration, error) {
	before, err := b.i.Control()
	if err != nil {
		return 0, err
	}
	if err := fn(); err != nil {
		return 0, err
	}
	after, err := b.i.Control()
	return after.CPU - before.CPU, err
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
		row := []string{fmt.Sprintf("%d APIs, %d workers", size[0], size[1])}
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
			row = append(row, fmt.Sprintf("%.0f", rate), fmt.Sprintf("%.1f ms", float64(s.At(.5).Microseconds())/1000), fmt.Sprintf("%.2f ms", perActivation(use, len(s))))
		}
		rows = append(rows, row)
	}
	head := []string{"installation"}
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
