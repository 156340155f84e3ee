// Package clock is this host's wall clock, for what is written down or compared with another host's times. What is measured on
// one host, a pause or how long something took, uses package time: a step of the wall clock changes nothing there.
//
// A build with the tag failpoints lets a test step the clock of one process (see package failpoint).
package clock

import "time"

// Now is the wall clock's time, UTC, without a monotonic reading.
func Now() time.Time { return time.Now().Add(step()).UTC().Round(0) }
