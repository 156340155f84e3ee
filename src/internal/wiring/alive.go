package wiring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"faena.dev/faena/internal/systemd"
	"faena.dev/faena/internal/telemetry"
)

const (
	// roundWithin is how long a round of a daemon's loops may take. It is more than the timeouts of all that a round asks of NATS and of
	// the document store, so that a daemon without them is not taken for dead.
	roundWithin = 2 * time.Minute
	// healthWithin is how long the daemon's own operations listener may take to answer.
	healthWithin = 5 * time.Second
)

// watched feeds systemd's watchdog, where there is one, as long as the daemon lives: until stop is called, and not only until ctx has
// ended, since a daemon that drains lives.
func watched(ctx context.Context, live *telemetry.Liveness, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { tell(log, systemd.Watchdog(ctx, live.Check, log)) })
	return func() { cancel(); wg.Wait() }
}

// askHealth asks the operations listener of this process whether it answers.
func askHealth(ctx context.Context, address net.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address.String()+"/healthz", nil)
	if err != nil {
		return err
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("the operations listener does not answer: %w", err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("the operations listener answers %s", res.Status), err)
	}
	return nil
}
