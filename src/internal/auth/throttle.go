package auth

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Failures that are allowed: a few at once, then so many a minute. A user's own bound is wide, since whoever knows the
// name could otherwise keep its owner out.
const (
	addressBurst, addressPerMinute = 20, 20
	pairBurst, pairPerMinute       = 5, 6
	userBurst, userPerMinute       = 50, 60
	// throttled bounds what is remembered; beyond it what has recovered is dropped, and all where nothing has.
	throttled = 20_000
)

// throttle counts failed logins by address, by user, and by both together. Safe for concurrent use.
type throttle struct {
	now func() time.Time

	mu       sync.Mutex
	limiters map[throttleKey]*rate.Limiter
}

type throttleKey struct{ address, user string }

func newThrottle(now func() time.Time) *throttle {
	return &throttle{now: now, limiters: make(map[throttleKey]*rate.Limiter)}
}

// keysOf are what a login counts for. Where no user is named it is the address alone.
func keysOf(address, user string) []throttleKey {
	address = network(address)
	if user == "" {
		return []throttleKey{{address, ""}}
	}
	return []throttleKey{{address, ""}, {"", user}, {address, user}}
}

// network is what one caller can take an address from: of IPv6 a host has a whole /64.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}

// blocked is how long a login from address as user must wait; 0 where it may be tried.
func (t *throttle) blocked(address, user string) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for _, k := range keysOf(address, user) {
		if l := t.limiters[k]; l != nil {
			if missing := 1 - l.TokensAt(now); missing > 0 {
				wait = max(wait, time.Duration(missing/float64(l.Limit())*float64(time.Second)))
			}
		}
	}
	return wait
}

// failed counts a failure.
func (t *throttle) failed(address, user string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if len(t.limiters) >= throttled {
		t.forgetRecovered(now)
	}
	for _, k := range keysOf(address, user) {
		l := t.limiters[k]
		if l == nil {
			burst, minute := pairBurst, pairPerMinute
			switch {
			case k.user == "":
				burst, minute = addressBurst, addressPerMinute
			case k.address == "":
				burst, minute = userBurst, userPerMinute
			}
			l = rate.NewLimiter(rate.Limit(float64(minute)/60), burst)
			t.limiters[k] = l
		}
		l.AllowN(now, 1)
	}
}

func (t *throttle) forgetRecovered(now time.Time) {
	for k, l := range t.limiters {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(t.limiters, k)
		}
	}
	if len(t.limiters) >= throttled {
		clear(t.limiters)
	}
}
