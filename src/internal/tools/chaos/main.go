// Command chaos proves that no activation is lost whatever fails: it starts an installation of real processes, calls for
// activations at the limit of several users, breaks one part after the other, and checks what the callers were told against what
// the functions say that they did. `make chaos` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	duration time.Duration // 0: each round once
	seed     uint64
	report   string   // directory
	only     []string // rounds; none: all
}

func main() {
	var o options
	var only string
	flag.DurationVar(&o.duration, "duration", 0, "go on for so long; 0: each fault once")
	flag.Uint64Var(&o.seed, "seed", 1, "what the order of the faults, and the calls, follow")
	flag.StringVar(&o.report, "report", "../bin/chaos", "directory for the report, and for what the parts say")
	flag.StringVar(&only, "only", "", "names of rounds, separated by commas; none: all")
	flag.Parse()
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}
