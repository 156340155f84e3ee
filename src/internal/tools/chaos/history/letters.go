package history

import "slices"

// letters looks at a user's dead letters: one for each asynchronous activation that nobody runs any more although it was to, and none
// for any other.
func (c *check) letters(ids []string, where string, l letters) {
	count := make(map[string]int)
	for _, id := range ids {
		count[id]++
	}
	for id, n := range count {
		call, accepted := c.accepted[id]
		at := slices.IndexFunc(c.h.sights[id], func(s Sight) bool { return s.Ended() && s.At.Before(l.before) })
		switch {
		case n > 1:
			c.breach("letters", l.before, []string{id}, "it has %d dead letters %s", n, where)
		case accepted && call.User != l.user:
			c.breach("letters", l.before, []string{id}, "it is of %s, and %s has its dead letter", call.User, l.user)
		case accepted && at >= 0 && !dead(call, c.h.sights[id][at]):
			end := c.h.sights[id][at]
			c.breach("letters", l.before, []string{id}, "it has ended as %s %s in attempt %d of %d, and has a dead letter %s", end.State, end.Reason, end.Attempt, call.Retries+1, where)
		}
	}
	for id, call := range c.accepted {
		if call.User != l.user || count[id] > 0 {
			continue
		}
		for _, s := range c.h.sights[id] {
			if s.Ended() && s.At.Before(l.before) && s.Attempt > 0 && dead(call, s) {
				c.breach("letters", s.At, []string{id}, "it has ended as %s %s in attempt %d of %d, and has no dead letter %s", s.State, s.Reason, s.Attempt, call.Retries+1, where)
				break
			}
		}
	}
}

// dead reports whether what a call for nobody who waits has ended like that is to have a dead letter: lost with its worker, or failed
// although it had retries.
func dead(c Call, end Sight) bool {
	return c.Async && end.State != "succeeded" && end.State != "cancelled" && (end.State == "lost" || c.Retries > 0)
}
