// Command faena-worker is one worker of an installation: it takes activations from the queue and runs them on the local Docker Engine.
// Settings are environment variables; docs/settings.md lists them.
package main

import (
	"context"
	"log/slog"
	"os"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/wiring"
)

func main() {
	os.Exit(wiring.Main("faena-worker", func(environ []string) (func(context.Context, *slog.Logger) error, config.Log, error) {
		c, err := config.LoadWorker(environ)
		return func(ctx context.Context, log *slog.Logger) error { return wiring.RunWorker(ctx, c, log) }, c.Log, err
	}))
}
