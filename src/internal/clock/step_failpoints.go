//go:build failpoints

package clock

import (
	"sync/atomic"
	"time"
)

var by atomic.Int64

func step() time.Duration { return time.Duration(by.Load()) }

// Step puts the clock of this process ahead of the host's by d, which may be negative.
func Step(d time.Duration) { by.Store(int64(d)) }
