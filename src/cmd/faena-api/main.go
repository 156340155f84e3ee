// Command faena-api is one API of an installation: REST in front, the queue behind it.
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
	os.Exit(wiring.Main("faena-api", func(environ []string) (func(context.Context, *slog.Logger) error, config.Log, error) {
		c, err := config.LoadAPI(environ)
		return func(ctx context.Context, log *slog.Logger) error { return wiring.RunAPI(ctx, c, log) }, c.Log, err
	}))
}
