package wiring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

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

// Main is what the daemons' programs have in common: it reads the settings, runs until ctx ends, and returns the exit
// code. load returns what the daemon does, and how it logs.
func Main(ctx context.Context, name string, args, environ []string, load func(environ []string) (func(context.Context, *slog.Logger) error, config.Log, error)) int {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Println(buildinfo.Read().Text(name))
		return exitOK
	}
	if len(args) > 0 {
		fmt.Fprintf(os.Stderr, "%s: unknown argument %q: settings are environment variables\n", name, args[0])
		return exitUsage
	}
	run, c, err := load(environ)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return exitSettings
	}
	log := telemetry.NewLogger(os.Stderr, c.Format == config.LogJSON, c.Level)
	if err := run(ctx, log); err != nil {
		log.Error(name+" has ended", "error", err)
		if _, wrong := errors.AsType[settingError](err); wrong {
			return exitSettings
		}
		return exitFailed
	}
	return exitOK
}
