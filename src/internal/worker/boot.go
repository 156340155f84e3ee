package worker

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is how long ago this host was started, the time counted in which it was suspended. Nobody sets it back or forward. It is
// 0 where the kernel does not say, which it always does.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// bootID tells one start of a host from another, and from another host's.
func bootID() ([]byte, error) { return os.ReadFile("/proc/sys/kernel/random/boot_id") }
