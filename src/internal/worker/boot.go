package worker

import "os"

// bootID tells one start of a host from another, and from another host's.
func bootID() ([]byte, error) { return os.ReadFile("/proc/sys/kernel/random/boot_id") }
