package wiring

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"faena.dev/faena/internal/buildinfo"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/telemetry"
)

// Exit codes of the daemons. A unit need not restart one that ended with exitUsage or exitSettings.
const (
	exitOK       = 0
	exitFailed   = 1 // it could not start, or a part of it has failed
	exitUsage    = 2 // arguments that it does not know
	exitSettings = 3 // a setting is wrong; it is named on standard error
)

// Main is the main function of a daemon: it reads the settings, runs until SIGTERM or Ctrl-C, and returns the exit code.
// load returns what the daemon does, and how it logs.
func Main(name string, load func(environ []string) (func(context.Context, *slog.Logger) error, config.Log, error)) int {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(buildinfo.Read().Text(name))
		return exitOK
	}
	if len(os.Args) > 1 {
		fmt.Fprintf(os.Stderr, "%s: unknown argument %q: settings are environment variables\n", name, os.Args[1])
		return exitUsage
	}
	run, c, err := load(os.Environ())
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return exitSettings
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := telemetry.NewLogger(os.Stderr, c.Format == config.LogJSON, c.Level)
	if err := run(ctx, log); err != nil {
		log.Error(name+" has ended", "error", err)
		return exitFailed
	}
	return exitOK
}
