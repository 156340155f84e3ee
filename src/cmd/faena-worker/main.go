// Command faena-worker is one worker of an installation: it takes activations from the queue and runs them on the local Docker Engine.
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
	code := wiring.Main(ctx, "faena-worker", os.Args[1:], os.Environ(), load)
	stop()
	os.Exit(code)
}

func load(environ []string) (func(context.Context, *slog.Logger) error, config.Log, error) {
	c, err := config.LoadWorker(environ)
	return func(ctx context.Context, log *slog.Logger) error { return wiring.RunWorker(ctx, c, log) }, c.Log, err
}
