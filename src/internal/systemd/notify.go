package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready tells systemd that the daemon can be used, and what it is doing in a few words.
func Ready(status string) error { return notify(daemon.SdNotifyReady, line(status)) }

// Status tells systemd what the daemon is doing, in a few words that `systemctl status` shows.
func Status(status string) error { return notify(line(status)) }

// Stopping tells systemd that the daemon has begun to stop.
func Stopping(status string) error { return notify(daemon.SdNotifyStopping, line(status)) }

// line makes a status of any text: a second line would be a message of its own.
func line(status string) string { return "STATUS=" + strings.Join(strings.Fields(status), " ") }

func notify(messages ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(messages, "\n")); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// Watchdog tells systemd that the daemon is alive, three times in the interval of WatchdogSec=, as long as alive says
// so. When alive returns an error, or does not return, systemd hears nothing and restarts the daemon. It returns when
// ctx ends, and does nothing else where no watchdog is set.
func Watchdog(ctx context.Context, alive func(context.Context) error, log *slog.Logger) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("ask for the watchdog: %w", err)
	}
	if interval == 0 {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(interval / 3)
	defer t.Stop()
	for {
		if err := alive(ctx); err != nil {
			log.Error("not alive; systemd restarts the daemon unless that changes", "error", err)
		} else if err := notify(daemon.SdNotifyWatchdog); err != nil {
			log.Error("the watchdog was not told", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
