//go:build !failpoints

package clock

import "time"

func step() time.Duration { return 0 }
