// Command demo runs unmodified images as functions on real input, through the whole real path: it makes four images,
// pushes them to two registries on loopback, one of which asks for a password, starts the appliance (`faena up`),
// registers and activates each function, compares what comes back with a plain `docker run`, and prints the timings.
// It exits with 1 where anything failed. `make demo` builds what it needs and runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// cleanWithin is how long removing what the demo made may take, each thing.
const cleanWithin = time.Minute

// run is the whole demo. Data goes to stdout, talk to stderr. Whatever happens, what it made is removed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	program := flags.String("faena", "../bin/faena", "the faena program")
	warm := flags.Int("n", 20, "warm activations of each function")
	within := flags.Duration("within", 15*time.Minute, "how long everything together may take")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *warm < 1 {
		return errors.New("-n must be at least 1")
	}
	if _, err := os.Stat(*program); err != nil {
		return fmt.Errorf("there is no faena to show (make build): %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, *within)
	defer cancel()
	dir, err := os.MkdirTemp("", "faena-demo-")
	if err != nil {
		return err
	}
	later := func(what string, undo func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanWithin)
		defer cancel()
		if e := undo(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", what, e))
		}
	}
	defer later("remove the temporary files", func(context.Context) error { return os.RemoveAll(dir) })

	p := newProgress(stderr)
	functions := demoFunctions()
	// Deferred calls run backwards: first the containers and the network go, then the images that they used.
	defer later("remove the images", removeImages)
	if err := prepare(ctx, p, dir, functions); err != nil {
		return err
	}
	registries, err := publish(ctx, p, dir, functions)
	defer later("stop the registries", registries.close)
	if err != nil {
		return err
	}
	defer later("remove the network", removeNetwork)
	app, err := startAppliance(ctx, p, *program, filepath.Join(dir, "up"), registries.hosts())
	if err != nil {
		return err
	}
	rows, err := activateAll(ctx, p, app, functions, *warm, stdout)
	later("stop faena up", func(ctx context.Context) error {
		return p.step("stop the appliance", func(func(string)) error { return app.stop(ctx) })
	})
	if err != nil {
		return errors.Join(err, app.logTail())
	}
	return writeTable(stdout, rows)
}
