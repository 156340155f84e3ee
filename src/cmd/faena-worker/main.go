// Command faena-worker is one worker of an installation: it takes activations from the queue and runs them on the local Docker Engine.
// Settings are environment variables; docs/settings.md lists them.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"faena.dev/faena/internal/buildinfo"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/telemetry"
	"faena.dev/faena/internal/wiring"
)

// Exit codes.
const (
	exitOK       = 0
	exitFailed   = 1 // it could not start, or a part of it has failed
	exitUsage    = 2 // arguments that it does not know
	exitSettings = 3 // a setting is wrong; it is named on standard error
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the daemon but for the process around it. It returns the exit code.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintln(stdout, buildinfo.Read().Text("faena-worker"))
		return exitOK
	}
	if len(args) > 0 {
		fmt.Fprintf(stderr, "faena-worker: unknown argument %q: settings are environment variables\n", args[0])
		return exitUsage
	}
	c, err := config.LoadWorker(environ)
	if err != nil {
		fmt.Fprintln(stderr, "faena-worker:", err)
		return exitSettings
	}
	log := telemetry.NewLogger(stderr, c.Log.Format == config.LogJSON, c.Log.Level)
	if err := wiring.RunWorker(ctx, c, log); err != nil {
		log.Error("faena-worker has ended", "error", err)
		return exitFailed
	}
	return exitOK
}
