package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

type options struct {
	faena, source, out     string
	single, parallel, slow int
	queued                 int // instead of all others
}

// bench is one run.
type bench struct {
	o   options
	bin string
	f   *appliance
	t   *table
}

// measure makes one run and returns its table.
func measure(ctx context.Context, o options) (_ *table, err error) {
	dir, err := os.MkdirTemp("", "faena-bench-bin")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{o: o, t: &table{machine: machine()}}
	if b.bin, err = compile(ctx, o.source, dir); err != nil {
		return nil, err
	}
	if err := importImage(ctx, b.bin); err != nil {
		return nil, err
	}
	if b.f, err = startAppliance(ctx, o.faena); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.f.stop()) }()
	idle, err := b.f.usage()
	if err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{b.engine, b.warm, b.parallel, b.fresh, b.first} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	b.budget("memory idle: worker + API + NATS", float64(idle.rss)/1e6, 150, false, " MB")
	return b.t, nil
}

func machine() string {
	cpu := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(text), "\n") {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				cpu = strings.TrimLeft(name, "\t :")
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores (%s), %s", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), cpu, runtime.Version())
}

func (b *bench) row(name string, s sample, rate float64) {
	b.t.rows = append(b.t.rows, row{name, s, rate})
}

func (b *bench) budget(name string, value, bound float64, least bool, unit string) {
	b.t.budgets = append(b.t.budgets, budget{name, value, bound, least, unit})
}

func (b *bench) p50(name string) time.Duration {
	for _, r := range b.t.rows {
		if r.name == name {
			return r.s.at(.5)
		}
	}
	return 0
}

// Names of rows that budgets compare.
const (
	rowHost   = "host: fork+exec+wait"
	rowDocker = "docker run"
	rowStart  = "Engine API: create + start"
	rowWarm   = "Faena, warm `reuse`, one client"
	rowFresh  = "Faena, warm `fresh`, one client"
	rowFirst  = "Faena, first activation, image present"
)

// engine measures docker run and the Engine API.
func (b *bench) engine(ctx context.Context) error {
	var run, whole, start sample
	for i := range b.o.slow {
		took, err := dockerRun(ctx, fmt.Sprintf("run%d", i))
		if err != nil {
			return err
		}
		run = append(run, took)
		all, began, err := newEngineAPI().cycle(ctx, fmt.Sprintf("api%d", i))
		if err != nil {
			return err
		}
		whole, start = append(whole, all), append(start, began)
	}
	b.row(rowDocker, run, 0)
	b.row("Engine API: create + start + wait", whole, 0)
	b.row(rowStart, start, 0)
	return nil
}

// warm measures one client, and the host in turn with it, so that both see the same machine.
func (b *bench) warm(ctx context.Context) error {
	if err := b.f.deploy(ctx, "bench"); err != nil {
		return err
	}
	for i := range 50 {
		if _, err := b.f.activate(ctx, "bench", fmt.Sprintf("warm-up %d", i)); err != nil {
			return err
		}
	}
	var host, warm sample
	var cpu time.Duration
	const rounds = 20
	for range rounds {
		for i := range b.o.single / rounds {
			took, err := forkExec(b.bin, fmt.Sprintf("host %d", i))
			if err != nil {
				return err
			}
			host = append(host, took)
		}
		before, err := b.f.usage()
		if err != nil {
			return err
		}
		s, _, err := b.f.load(ctx, "bench", 1, b.o.single/rounds)
		if err != nil {
			return err
		}
		after, err := b.f.usage()
		if err != nil {
			return err
		}
		warm, cpu = append(warm, s...), cpu+after.cpu-before.cpu
	}
	b.row(rowHost, host, 0)
	b.row(rowWarm, warm, 0)
	b.budget("warm p50 ÷ the host's fork+exec", ratio(b.p50(rowWarm), b.p50(rowHost)), 2.5, false, " ×")
	b.budget("docker run ÷ warm p50", ratio(b.p50(rowDocker), b.p50(rowWarm)), 80, true, " ×")
	b.budget("one client: p99 ÷ p50", ratio(warm.at(.99), warm.at(.5)), 6, false, " ×")
	b.budget("CPU of API + NATS + worker per activation, one client", float64(cpu.Microseconds())/1000/float64(len(warm)), 1, false, " ms")
	return nil
}

// parallel measures several clients.
func (b *bench) parallel(ctx context.Context) error {
	for _, clients := range []int{8, 32} {
		if _, _, err := b.f.load(ctx, "bench", clients, 20*clients); err != nil { // containers for all places
			return err
		}
		before, err := b.f.usage()
		if err != nil {
			return err
		}
		s, rate, err := b.f.load(ctx, "bench", clients, b.o.parallel)
		if err != nil {
			return err
		}
		after, err := b.f.usage()
		if err != nil {
			return err
		}
		b.row(fmt.Sprintf("Faena, warm `reuse`, %d clients", clients), s, rate)
		cpu := float64((after.cpu - before.cpu).Microseconds()) / 1000 / float64(len(s))
		b.t.notes = append(b.t.notes, fmt.Sprintf("%d clients: %.2f ms of CPU per activation in API, NATS and worker; resident memory %d MB.", clients, cpu, after.rss/1e6))
		if clients == 8 {
			b.budget("8 clients: activations per second", rate, 600, true, " /s")
			b.budget("8 clients: p99 ÷ p50", ratio(s.at(.99), s.at(.5)), 6, false, " ×")
		}
	}
	return nil
}

// fresh measures a new container for each activation, taken from a pool that is given time to fill.
func (b *bench) fresh(ctx context.Context) error {
	if err := b.f.deploy(ctx, "bench-fresh", "--isolation", "fresh", "--warm", "3"); err != nil {
		return err
	}
	if _, err := b.f.activate(ctx, "bench-fresh", "first"); err != nil {
		return err
	}
	var s sample
	for i := range b.o.slow {
		time.Sleep(1500 * time.Millisecond) // until the pool holds again
		took, err := b.f.activate(ctx, "bench-fresh", fmt.Sprintf("fresh %d", i))
		if err != nil {
			return err
		}
		s = append(s, took)
	}
	b.row(rowFresh, s, 0)
	b.budget("fresh p50, while the pool holds", float64(s.at(.5).Microseconds())/1000, 10, false, " ms")
	return nil
}

// first measures the first activation of new revisions, and the Engine API in turn with it.
func (b *bench) first(ctx context.Context) error {
	var s, start sample
	for i := range b.o.slow {
		if err := b.f.deploy(ctx, fmt.Sprintf("first-%d", i)); err != nil {
			return err
		}
		_, began, err := newEngineAPI().cycle(ctx, fmt.Sprintf("api%d", i))
		if err != nil {
			return err
		}
		start = append(start, began)
		took, err := b.f.activate(ctx, fmt.Sprintf("first-%d", i), "x")
		if err != nil {
			return err
		}
		s = append(s, took)
	}
	b.row(rowFirst, s, 0)
	b.row(rowStart+", in turn with it", start, 0)
	b.budget("first activation ÷ create + start", ratio(s.at(.5), start.at(.5)), 1.3, false, " ×")
	return nil
}

func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
