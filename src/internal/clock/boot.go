package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// SinceBoot is how long ago this host was started, the time counted in which it was suspended, which package time leaves out. It is 0
// where the kernel does not say, which it always does.
func SinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
