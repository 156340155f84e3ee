// Command bench measures Faena against its budgets, and ends with 1 where one is missed. The Makefile builds what it needs.
//
//	bench           one appliance, beside what it must be compared with in the same run: fork+exec+wait of the host, docker
//	                run, and the Engine's API; and lists of a long history
//	bench cluster   the daemons apart: three NATS servers, several APIs and workers
//	bench queue     100,000 activations that are queued while there is no worker
//	bench backlog   the same of 20 users, so that nearly all wait in the backlog
//	bench fairness  what a user's flood costs another user
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"faena.dev/faena/internal/tools/bench/installation"
	"faena.dev/faena/internal/tools/bench/report"
)

// Exit codes.
const (
	exitOK     = 0
	exitMissed = 1 // a budget was missed
	exitFailed = 2 // the measurement itself failed
)

// options are what the flags say.
type options struct {
	programs               string // directory
	single, parallel, slow int
	queued, flood          int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, is := installation.Part(ctx, os.Args[1:])
	if !is {
		code = run(ctx)
	}
	stop()
	os.Exit(code)
}

func run(ctx context.Context) int {
	var o options
	flag.StringVar(&o.programs, "bin", "../bin", "directory of the programs to measure")
	out := flag.String("out", "", "also write the report to this file")
	flag.IntVar(&o.single, "n", 2000, "activations with one client")
	flag.IntVar(&o.parallel, "parallel-n", 4000, "activations with several clients")
	flag.IntVar(&o.slow, "slow-n", 20, "runs of what takes hundreds of milliseconds")
	flag.IntVar(&o.queued, "queued", 100_000, "activations of a long queue")
	flag.IntVar(&o.flood, "flood", 10_000, "activations of a flood")
	flag.Parse()
	measurements := map[string]func(context.Context, options) (*report.Table, error){"": measure, "cluster": measureCluster, "queue": measureQueue,
		"backlog": measureBacklog, "fairness": measureFairness}
	what, known := measurements[flag.Arg(0)]
	if !known || flag.NArg() > 1 {
		fmt.Fprintln(os.Stderr, "usage: bench [flags] [cluster | queue | backlog | fairness]")
		return exitFailed
	}
	table, err := what(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return exitFailed
	}
	fmt.Print(table)
	if *out != "" {
		if err := os.WriteFile(*out, []byte(table.String()), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return exitFailed
		}
	}
	if len(table.Missed()) > 0 {
		return exitMissed
	}
	return exitOK
}

// say tells whoever waits how far it is.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
