package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"faena.dev/faena/internal/tools/bench/installation"
	"faena.dev/faena/internal/tools/bench/report"
)

//go:embed testdata/noop.c
var noop []byte

// bench is one run.
type bench struct {
	o   options
	bin string
	f   *appliance
	t   *report.Table
}

// measure makes one run and returns its table.
func measure(ctx context.Context, o options) (_ *report.Table, err error) {
	dir, err := os.MkdirTemp("", "faena-bench-bin")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{o: o, t: &report.Table{}}
	if b.bin, err = installation.Compile(ctx, noop, dir, "noop"); err != nil {
		return nil, err
	}
	if err := importImage(ctx, b.bin); err != nil {
		return nil, err
	}
	if b.f, err = startAppliance(ctx, filepath.Join(o.programs, "faena")); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.f.stop()) }()
	idle, err := b.f.usage()
	if err != nil {
		return nil, err
	}
	b.t.AtMost("memory idle: worker + API + NATS", float64(idle.Resident)/1e6, 150, " MB")
	for _, step := range []func(context.Context) error{b.engine, b.warm, b.parallel, b.fresh, b.first, b.lists} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return b.t, nil
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
	var run, whole, start report.Sample
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
	b.t.Row(rowDocker, run, 0)
	b.t.Row("Engine API: create + start + wait", whole, 0)
	b.t.Row(rowStart, start, 0)
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
	var host, warm report.Sample
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
		warm, cpu = append(warm, s...), cpu+after.CPU-before.CPU
	}
	b.t.Row(rowHost, host, 0)
	b.t.Row(rowWarm, warm, 0)
	b.t.AtMost("warm p50 ÷ the host's fork+exec", ratio(b.t.Median(rowWarm), b.t.Median(rowHost)), 2.5, " ×")
	b.t.AtLeast("docker run ÷ warm p50", ratio(b.t.Median(rowDocker), b.t.Median(rowWarm)), 80, " ×")
	b.t.AtMost("one client: p99 ÷ p50", ratio(warm.At(.99), warm.At(.5)), 6, " ×")
	b.t.AtMost("CPU of API + NATS + worker per activation, one client", float64(cpu.Microseconds())/1000/float64(len(warm)), 1, " ms")
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
		b.t.Row(fmt.Sprintf("Faena, warm `reuse`, %d clients", clients), s, rate)
		cpu := float64((after.CPU - before.CPU).Microseconds()) / 1000 / float64(len(s))
		b.t.Note("%d clients: %.2f ms of CPU per activation in API, NATS and worker; resident memory %d MB.", clients, cpu, after.Resident/1e6)
		if clients == 8 {
			b.t.AtLeast("8 clients: activations per second", rate, 600, " /s")
			b.t.AtMost("8 clients: p99 ÷ p50", ratio(s.At(.99), s.At(.5)), 6, " ×")
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
	var s report.Sample
	for i := range b.o.slow {
		time.Sleep(1500 * time.Millisecond) // until the pool holds again
		took, err := b.f.activate(ctx, "bench-fresh", fmt.Sprintf("fresh %d", i))
		if err != nil {
			return err
		}
		s = append(s, took)
	}
	b.t.Row(rowFresh, s, 0)
	b.t.AtMost("fresh p50, while the pool holds", float64(s.At(.5).Microseconds())/1000, 10, " ms")
	return nil
}

// first measures the first activation of new revisions, and the Engine API in turn with it.
func (b *bench) first(ctx context.Context) error {
	var s, start report.Sample
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
	b.t.Row(rowFirst, s, 0)
	b.t.Row(rowStart+", in turn with it", start, 0)
	b.t.AtMost("first activation ÷ create + start", ratio(s.At(.5), start.At(.5)), 1.3, " ×")
	return nil
}

func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
