// Command faena-api is one API of an installation: REST in front, the queue behind it.
// Settings are environment variables; docs/settings.md lists them.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/wiring"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := wiring.Main(ctx, "faena-api", os.Args[1:], os.Environ(), load)
	stop()
	os.Exit(code)
}

func load(environ []string) (func(context.Context, *slog.Logger) error, config.Log, error) {
	c, err := config.LoadAPI(environ)
	return func(ctx context.Context, log *slog.Logger) error { return wiring.RunAPI(ctx, c, log) }, c.Log, err
}
