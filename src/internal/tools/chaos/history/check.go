package history

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Breach is an invariant that did not hold.
type Breach struct {
	Invariant string    `json:"invariant"` // of the list of cases: V1 to V10, or a budget
	Words     string    `json:"words"`
	IDs       []string  `json:"activations"`
	At        time.Time `json:"at"` // about when; zero where it is of no moment
}

func (b Breach) String() string {
	text := b.Invariant + ": " + b.Words
	if len(b.IDs) > 0 {
		text += ": " + strings.Join(b.IDs, " ")
	}
	return text
}

// Check checks everything that holds at any moment, and with final also what holds when nothing runs any more: each breach once.
func (h *History) Check(final bool) []Breach {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.index()
	c.final = final
	c.answers()
	c.runs()
	c.ends()
	c.contents()
	c.stops()
	for _, l := range h.letters {
		c.letters(l.listed, "that its user sees", l)
		c.letters(l.stored, "in the stream", l)
	}
	if final {
		c.lists()
	}
	return c.found
}

// Recovery is how many activations the workers held that were killed, or could do nothing, since a moment, and how long it took at
// most until each had ended or was run again.
func (h *History) Recovery(since time.Time) (n int, longest time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.index()
	for _, stop := range h.stops {
		if stop.Within == 0 || stop.At.Before(since) {
			continue
		}
		for id, attempt := range c.heldBy(stop) {
			n++
			if next, settled := c.after(id, attempt); settled {
				longest = max(longest, next.Sub(stop.At))
			}
		}
	}
	return n, longest
}

// Holds is how many activations a worker is seen to run at this moment.
func (h *History) Holds(worker string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.index().heldBy(Stop{Worker: worker, At: time.Now()}))
}

// index sorts what is known. The caller holds mu.
func (h *History) index() *check {
	c := &check{h: h, accepted: make(map[string]Call), byToken: make(map[string][]Call), steps: make(map[string][]Step), starts: make(map[string][]Step)}
	for _, call := range h.calls {
		if call.Outcome == Accepted {
			c.accepted[call.ID] = call
		}
		c.byToken[call.Token] = append(c.byToken[call.Token], call)
	}
	for _, s := range h.steps {
		c.steps[s.ID] = append(c.steps[s.ID], s)
		if !s.End {
			c.starts[s.ID] = append(c.starts[s.ID], s)
		}
	}
	return c
}

type check struct {
	h        *History
	final    bool
	accepted map[string]Call   // by id
	byToken  map[string][]Call // the tries of a call
	steps    map[string][]Step // by id
	starts   map[string][]Step // those of them that are no end
	found    []Breach
}

func (c *check) breach(invariant string, at time.Time, ids []string, format string, args ...any) {
	c.found = append(c.found, Breach{Invariant: invariant, Words: fmt.Sprintf(format, args...), IDs: ids, At: at})
}

// answers looks at what callers were told: nothing strange, in time, and the same for the same Idempotency-Key.
func (c *check) answers() {
	for _, call := range c.h.calls {
		if call.Strange != "" {
			c.breach("V1", call.Answered, []string{call.ID}, "a call of %s for %s was answered as none may be: %s", call.User, call.Function, call.Strange)
		}
		if took := call.Answered.Sub(call.Sent); call.Longest > 0 && took > call.Longest {
			c.breach("wait", call.Answered, []string{call.ID}, "a call of %s for %s was answered after %v, its own wait ends after %v",
				call.User, call.Function, took.Round(time.Millisecond), call.Longest)
		}
	}
	for token, tries := range c.byToken {
		var ids []string
		for _, call := range tries {
			if call.Outcome == Accepted && !slices.Contains(ids, call.ID) {
				ids = append(ids, call.ID)
			}
		}
		if len(ids) > 1 {
			c.breach("V2", tries[0].Sent, ids, "the same Idempotency-Key gave several activations to call %s", token)
		}
	}
}

// runs looks at what was run: nothing that was refused, at most once without retries, and never again once it has ended.
func (c *check) runs() {
	type run struct {
		id      string
		attempt int
	}
	seen := make(map[run]int)
	ran := make(map[string][]string) // ids by token
	for _, s := range c.h.steps {
		if s.End {
			continue
		}
		seen[run{s.ID, s.Attempt}]++
		if n := seen[run{s.ID, s.Attempt}]; n == 2 {
			c.breach("V3", s.At, []string{s.ID}, "attempt %d was run twice", s.Attempt)
		}
		if !slices.Contains(ran[s.Token], s.ID) {
			ran[s.Token] = append(ran[s.Token], s.ID)
		}
	}
	for token, ids := range ran {
		tries := c.byToken[token]
		if len(tries) == 0 {
			continue // it is not answered yet
		}
		if !slices.ContainsFunc(tries, func(t Call) bool { return t.Outcome != Refused }) {
			c.breach("V1", tries[0].Answered, ids, "a call of %s for %s was refused, and was run", tries[0].User, tries[0].Function)
		}
		if len(ids) > 1 {
			c.breach("V2", tries[0].Sent, ids, "one call of %s for %s was run as several activations", tries[0].User, tries[0].Function)
		}
	}
	for id, starts := range c.starts {
		tries := c.byToken[starts[0].Token]
		if len(tries) > 0 && len(starts) > tries[0].Retries+1 {
			c.breach("V2", starts[len(starts)-1].At, []string{id}, "it was run %d times, with %d retries", len(starts), tries[0].Retries)
		}
	}
}

// ends looks at how records were seen: each accepted one is there, ends once, and an attempt that has not ended gives no result.
func (c *check) ends() {
	for id, sights := range c.h.sights {
		call, accepted := c.accepted[id]
		var end *Sight
		for k, s := range sights {
			switch {
			case s.State == Absent && (accepted && s.At.After(call.Answered) || end != nil):
				c.breach("V1", s.At, []string{id}, "it was accepted, and is not there")
			case end != nil && s.State != Absent && (s.State != end.State || s.Reason != end.Reason || s.Attempt != 0 && end.Attempt != 0 && s.Attempt != end.Attempt):
				c.breach("V8", s.At, []string{id}, "it had ended as %s %s in attempt %d, and later is %s %s in attempt %d", end.State, end.Reason, end.Attempt, s.State, s.Reason, s.Attempt)
			}
			if end == nil && s.Ended() {
				end = &sights[k]
			}
		}
		if end != nil {
			c.end(id, *end)
		}
	}
	if !c.final {
		return
	}
	for id, call := range c.accepted {
		if !c.h.ended(id) {
			c.breach("V2", call.Answered, []string{id}, "it was accepted for %s of %s, and has not ended", call.Function, call.User)
		}
	}
}

func (c *check) end(id string, end Sight) {
	if end.State == "succeeded" && end.Attempt > 0 &&
		!slices.ContainsFunc(c.steps[id], func(s Step) bool { return s.End && s.Attempt == end.Attempt }) {
		c.breach("V3", end.At, []string{id}, "attempt %d has succeeded, and did not come to its end", end.Attempt)
	}
	for _, s := range c.starts[id] {
		if end.Attempt > 0 && s.Attempt > end.Attempt {
			c.breach("V3", s.At, []string{id}, "it had ended in attempt %d, and attempt %d was run", end.Attempt, s.Attempt)
		}
	}
}

// contents looks at results and logs.
func (c *check) contents() {
	for _, o := range c.h.outputs {
		if o.got != o.want {
			c.breach("V10", o.at, []string{o.id}, "the result is not what the function has written: sha256 %x instead of %x", o.got[:8], o.want[:8])
		}
	}
	for _, l := range c.h.logs {
		if at := slices.IndexFunc(c.h.sights[l.id], Sight.Ended); at >= 0 && c.h.sights[l.id][at].Attempt != l.attempt {
			c.breach("V3", l.at, []string{l.id}, "its log is of attempt %d, and it has ended in attempt %d", l.attempt, c.h.sights[l.id][at].Attempt)
		}
	}
}

// slack is what a caller's looks at a record may be late.
const slack = 2 * time.Second

// stops looks at what a worker ran when it was stopped, and at the calls while an API was.
func (c *check) stops() {
	for _, stop := range c.h.stops {
		for _, call := range c.h.calls {
			if stop.Worker == "" && stop.Gently && call.Broke != "" && call.Answered.After(stop.At) && call.Sent.Before(stop.Until) {
				c.breach("V9", call.Answered, []string{call.ID}, "a call of %s broke while an API was started again: %s", call.User, call.Broke)
			}
		}
		if stop.Worker == "" {
			continue
		}
		for id, attempt := range c.heldBy(stop) {
			next, settled := c.after(id, attempt)
			switch {
			case stop.Gently && c.lost(id):
				c.breach("V9", stop.At, []string{id}, "it was lost although its worker %s was told to finish it", stop.Worker)
			case stop.Within > 0 && (!settled && (c.final || time.Since(stop.At) > stop.Within+slack) || settled && next.Sub(stop.At) > stop.Within+slack):
				words := "has not ended"
				if settled {
					words = fmt.Sprintf("had ended, or ran again, %v later", next.Sub(stop.At).Round(time.Millisecond))
				}
				c.breach("recovery", stop.At, []string{id}, "its worker %s was killed, and it %s: the budget is %v", stop.Worker, words, stop.Within)
			}
		}
	}
}

func (c *check) lost(id string) bool {
	return slices.ContainsFunc(c.h.sights[id], func(s Sight) bool { return s.State == "lost" })
}

// heldBy are the activations that a worker ran when it was stopped, with the attempt.
func (c *check) heldBy(stop Stop) map[string]int {
	held := make(map[string]int)
	for id, sights := range c.h.sights {
		for _, s := range sights {
			if s.Worker != stop.Worker || s.Attempt == 0 {
				continue
			}
			began, ended := false, false
			for _, step := range c.steps[id] {
				if step.Attempt == s.Attempt && step.At.Before(stop.At) {
					began, ended = true, ended || step.End
				}
			}
			seenEnded := slices.ContainsFunc(sights, func(s Sight) bool { return s.Ended() && s.At.Before(stop.At) })
			if began && !ended && !seenEnded {
				held[id] = s.Attempt
			}
		}
	}
	return held
}

// after is when an attempt was followed by another, or by the end.
func (c *check) after(id string, attempt int) (at time.Time, settled bool) {
	for _, s := range c.h.sights[id] {
		if s.Ended() && (!settled || s.At.Before(at)) {
			at, settled = s.At, true
		}
	}
	for _, s := range c.starts[id] {
		if s.Attempt > attempt && (!settled || s.At.Before(at)) {
			at, settled = s.At, true
		}
	}
	return at, settled
}

// lists compares what users have at the end with what they were told.
func (c *check) lists() {
	for user, list := range c.h.lists {
		there := make(map[string]int)
		unknown, refused := 0, 0
		for _, call := range c.h.calls {
			if call.User == user && call.Outcome == Unknown {
				unknown++
			} else if call.User == user && call.Outcome == Refused {
				refused++
			}
		}
		var open, more, ran, missing, twice []string
		for _, s := range list {
			if there[s.ID]++; there[s.ID] == 2 {
				twice = append(twice, s.ID)
			}
			if !s.Ended() {
				open = append(open, s.ID)
			}
			if _, told := c.accepted[s.ID]; !told {
				more = append(more, s.ID)
				if starts := c.starts[s.ID]; len(starts) > 0 && len(c.byToken[starts[0].Token]) == 0 {
					ran = append(ran, s.ID)
				}
			}
		}
		for id, call := range c.accepted {
			if call.User == user && there[id] == 0 {
				missing = append(missing, id)
			}
		}
		for words, ids := range map[string][]string{"have not ended": open, "were accepted, and are not in the history": missing, "are there twice": twice} {
			if len(ids) > 0 {
				c.breach("V4", time.Time{}, ids, "at the end %d activations of %s %s", len(ids), user, words)
			}
		}
		if len(ran) > 0 {
			c.breach("V4", time.Time{}, ran, "%d activations of %s ran that nobody has called for", len(ran), user)
		}
		if len(more) > unknown+refused { // of one that was refused a record may tell that it was not run
			c.breach("V4", time.Time{}, more, "%d activations of %s are there that were not accepted; of %d calls the outcome was not told, %d were refused",
				len(more), user, unknown, refused)
		}
	}
}
