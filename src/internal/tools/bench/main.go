// Command bench measures Faena against what it must be compared with, in one run on one machine: the host's own
// fork+exec+wait, docker run, and the Engine API. It prints a table with ratios and exits with 1 where a ratio
// misses its budget (design section 9). `make bench` builds what it needs and runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitOK     = 0
	exitMissed = 1 // a budget was missed
	exitFailed = 2 // the measurement itself failed
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.StringVar(&o.faena, "faena", "../bin/faena", "the faena binary to measure")
	flag.StringVar(&o.source, "program", "internal/tools/bench/testdata/noop.c", "C source of the function")
	flag.StringVar(&o.out, "out", "", "also write the table to this file")
	flag.IntVar(&o.single, "n", 2000, "activations with one client")
	flag.IntVar(&o.parallel, "parallel-n", 4000, "activations with several clients")
	flag.IntVar(&o.slow, "slow-n", 20, "runs of what takes hundreds of milliseconds")
	flag.IntVar(&o.queued, "queued", 0, "instead: queue so many activations while no worker takes any, start again, and let all run")
	flag.Parse()
	what := measure
	if o.queued > 0 {
		what = measureQueue
	}
	table, err := what(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return exitFailed
	}
	text := table.String()
	fmt.Print(text)
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return exitFailed
		}
	}
	if table.missed() {
		return exitMissed
	}
	return exitOK
}
