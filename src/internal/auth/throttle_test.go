package auth

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// allowed fails as user from address until that is blocked, at most 1,000 times, and returns how often it was not.
func allowed(th *throttle, address, user func(i int) string) int {
	for i := range 1000 {
		if th.blocked(address(i), user(i)) > 0 {
			return i
		}
		th.failed(address(i), user(i))
	}
	return 1000
}

func same(s string) func(int) string      { return func(int) string { return s } }
func each(prefix string) func(int) string { return func(i int) string { return fmt.Sprint(prefix, i) } }

func TestThrottle_Bounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		address, user func(int) string
		burst         int
		wait          time.Duration // until the next one
	}{
		{"AnAddressAndAUser", same("192.0.2.1"), same("ann"), pairBurst, time.Minute / pairPerMinute},
		{"AnAddress", same("192.0.2.1"), each("user"), addressBurst, time.Minute / addressPerMinute},
		{"AHostOfIPv6", each("2001:db8:0:1::"), same("ann"), pairBurst, time.Minute / pairPerMinute},
		{"AHostOfIPv6ThatNamesNoUser", each("2001:db8:0:1::"), same(""), addressBurst, time.Minute / addressPerMinute},
		{"AnAddressThatNamesNoUser", same("192.0.2.1"), same(""), addressBurst, time.Minute / addressPerMinute},
		{"AUser", each("192.0.2."), same("ann"), userBurst, time.Minute / userPerMinute},
		{"NeitherTwice", each("192.0.2."), each("user"), 1000, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			clock := newClock()
			th := newThrottle(clock.now)
			if n := allowed(th, c.address, c.user); n != c.burst {
				t.Fatalf("%d failures are allowed at once, not %d", n, c.burst)
			}
			if c.wait == 0 {
				return
			}
			wait := th.blocked(c.address(c.burst), c.user(c.burst))
			if d := wait - c.wait; d < -time.Millisecond || d > time.Millisecond {
				t.Errorf("the next one waits for %v, not %v", wait, c.wait)
			}
			clock.pass(c.wait - 10*time.Millisecond)
			if th.blocked(c.address(c.burst), c.user(c.burst)) == 0 {
				t.Error("it is let in too early")
			}
			clock.pass(20 * time.Millisecond)
			if wait := th.blocked(c.address(c.burst), c.user(c.burst)); wait != 0 {
				t.Errorf("after its time it waits for %v more", wait)
			}
			clock.pass(time.Hour)
			if n := allowed(th, c.address, c.user); n != c.burst {
				t.Errorf("after an hour %d failures are allowed at once, not %d", n, c.burst)
			}
		})
	}
}

// Who is kept out keeps nobody else out, unless he comes from the same address or tries the same user.
func TestThrottle_Others(t *testing.T) {
	t.Parallel()
	th := newThrottle(newClock().now)
	allowed(th, same("192.0.2.1"), same("ann"))
	for _, c := range []struct{ address, user string }{{"192.0.2.1", "bob"}, {"192.0.2.2", "ann"}, {"192.0.2.2", "bob"}, {"", "bob"}, {"192.0.2.2", ""}} {
		if wait := th.blocked(c.address, c.user); wait != 0 {
			t.Errorf("%+v waits for %v", c, wait)
		}
	}
	allowed(th, same("2001:db8:0:1::1"), same(""))
	allowed(th, same("::ffff:192.0.2.5"), same(""))
	for address, blocked := range map[string]bool{"2001:db8:0:1:ffff::": true, "2001:db8:0:1::9%eth0": true, "2001:db8:0:2::1": false, "2001:db8::1": false,
		"::1": false, "192.0.2.5": true, "192.0.2.6": false} {
		if wait := th.blocked(address, ""); wait > 0 != blocked {
			t.Errorf("%s waits for %v", address, wait)
		}
	}
	// Names and addresses cannot be taken for each other.
	allowed(th, same("ann"), same("192.0.2.9"))
	if wait := th.blocked("192.0.2.9", "carl"); wait != 0 {
		t.Errorf("an address that somebody gave as a user waits for %v", wait)
	}
}

func TestThrottle_BoundedMemory(t *testing.T) {
	t.Parallel()
	t.Run("WhatHasRecoveredGoesFirst", func(t *testing.T) {
		t.Parallel()
		clock := newClock()
		th := newThrottle(clock.now)
		for i := 0; len(th.limiters) < throttled; i++ {
			th.failed(fmt.Sprint("old", i), fmt.Sprint("user", i))
		}
		clock.pass(time.Hour)
		if n := allowed(th, same("192.0.2.1"), same("ann")); n != pairBurst {
			t.Errorf("%d failures are allowed", n)
		}
		if n := len(th.limiters); n != 3 {
			t.Errorf("%d are remembered: an hour later all but the last address and user have recovered", n)
		}
	})
	t.Run("HoweverManyComeAtOnce", func(t *testing.T) {
		t.Parallel()
		th := newThrottle(newClock().now)
		most := 0
		for i := range 2 * throttled {
			th.failed(fmt.Sprint("address", i), fmt.Sprint("user", i))
			most = max(most, len(th.limiters))
		}
		if most > throttled+3 {
			t.Errorf("%d are remembered, at most %d may be", most, throttled)
		}
	})
}
