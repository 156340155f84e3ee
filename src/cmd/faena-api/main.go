// Command faena-api is one API of an installation: REST in front, the queue behind it.
// Settings are environment variables; docs/settings.md lists them. --help lists the commands beside the daemon.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"faena.dev/faena/internal/wiring"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := wiring.APIMain(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ())
	stop()
	os.Exit(code)
}
