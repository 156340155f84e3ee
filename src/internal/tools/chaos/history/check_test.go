package history_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/tools/chaos/history"
)

// begin is the first moment of the made-up histories.
var begin = time.Now().Add(-10 * time.Minute)

func at(seconds float64) time.Time {
	return begin.Add(time.Duration(seconds * float64(time.Second)))
}

// activation notes a call that was accepted, run once and seen succeeded: all as it should be.
func activation(h *history.History, id string) {
	h.Called(history.Call{Token: "t-" + id, User: "ann", Function: "f", Sent: at(1), Answered: at(1.1), Outcome: history.Accepted, ID: id, Good: true})
	h.Saw(history.Sight{ID: id, State: "queued", At: at(1.2)})
	h.Did(history.Step{ID: id, Token: "t-" + id, Attempt: 1, At: at(2)})
	h.Saw(history.Sight{ID: id, State: "running", Attempt: 1, Worker: "w1", At: at(2.1)})
	h.Did(history.Step{ID: id, Token: "t-" + id, Attempt: 1, End: true, At: at(3)})
	h.Saw(history.Sight{ID: id, State: "succeeded", Attempt: 1, Worker: "w1", At: at(3.1)})
	h.Read(id, []byte("result"), []byte("result"))
	h.ReadLog(id, 1)
}

// retried notes one whose first worker, w1, is killed after 2.5 s, and which succeeds in its second attempt.
func retried(h *history.History, id string, retries int) {
	h.Called(history.Call{Token: "t-" + id, User: "ann", Function: "f", Retries: retries, Sent: at(1), Answered: at(1.1), Outcome: history.Accepted, ID: id})
	h.Did(history.Step{ID: id, Token: "t-" + id, Attempt: 1, At: at(2)})
	h.Saw(history.Sight{ID: id, State: "running", Attempt: 1, Worker: "w1", At: at(2.1)})
	h.Did(history.Step{ID: id, Token: "t-" + id, Attempt: 2, At: at(12)})
	h.Did(history.Step{ID: id, Token: "t-" + id, Attempt: 2, End: true, At: at(13)})
	h.Saw(history.Sight{ID: id, State: "succeeded", Attempt: 2, Worker: "w2", At: at(13.1)})
}

// lost notes one that was lost with its worker w1, which was stopped after 2.5 s, as seen after so many seconds.
func lost(h *history.History, id string, seen float64) {
	h.Called(history.Call{Token: "t-" + id, User: "ann", Function: "f", Sent: at(1), Answered: at(1.1), Outcome: history.Accepted, ID: id})
	h.Did(history.Step{ID: id, Token: "t-" + id, Attempt: 1, At: at(2)})
	h.Saw(history.Sight{ID: id, State: "running", Attempt: 1, Worker: "w1", At: at(2.1)})
	h.Saw(history.Sight{ID: id, State: "lost", Reason: "worker_lost", Attempt: 1, Worker: "w1", At: at(seen)})
}

func TestHistory_Check(t *testing.T) {
	killed := history.Stop{Worker: "w1", At: at(2.5), Within: 15 * time.Second}
	for _, c := range []struct {
		name string
		make func(h *history.History)
		want string // begin of each breach, separated by commas
	}{
		{"all as it should be", func(h *history.History) { h.Listed("ann", []history.Sight{{ID: "a", State: "succeeded", Attempt: 1}}) }, ""},
		{"V1: refused and run", func(h *history.History) {
			h.Called(history.Call{Token: "t-b", User: "ann", Outcome: history.Refused, Sent: at(1), Answered: at(2)})
			h.Did(history.Step{ID: "b", Token: "t-b", Attempt: 1, At: at(3)})
		}, "V1"},
		{"unknown and run is none", func(h *history.History) {
			h.Called(history.Call{Token: "t-b", User: "ann", Outcome: history.Unknown, Sent: at(1), Answered: at(2)})
			h.Did(history.Step{ID: "b", Token: "t-b", Attempt: 1, At: at(3)})
		}, ""},
		{"V1: accepted and absent", func(h *history.History) {
			h.Called(history.Call{Token: "t-b", User: "ann", Outcome: history.Accepted, ID: "b", Sent: at(1), Answered: at(2)})
			h.Saw(history.Sight{ID: "b", State: history.Absent, At: at(3)})
		}, "V1,V2"},
		{"V1: a strange answer", func(h *history.History) {
			h.Called(history.Call{Token: "t-b", Strange: "500", Outcome: history.Refused})
		}, "V1"},
		{"V2: accepted and never seen ended", func(h *history.History) {
			h.Called(history.Call{Token: "t-b", User: "ann", Outcome: history.Accepted, ID: "b", Sent: at(1), Answered: at(2)})
			h.Saw(history.Sight{ID: "b", State: "running", At: at(3)})
		}, "V2"},
		{"V2: run twice without retries", func(h *history.History) { retried(h, "b", 0) }, "V2"},
		{"run twice with retries is none", func(h *history.History) { retried(h, "b", 1); h.ReadLog("b", 2) }, ""},
		{"V2: one key, two activations", func(h *history.History) {
			for _, id := range []string{"b", "c"} {
				h.Called(history.Call{Token: "t-b", Key: "k", User: "ann", Outcome: history.Accepted, ID: id, Sent: at(1), Answered: at(2)})
				h.Saw(history.Sight{ID: id, State: "failed", Reason: "expired", At: at(3)})
			}
		}, "V2"},
		{"V3: an attempt is run twice", func(h *history.History) {
			retried(h, "b", 2)
			h.Did(history.Step{ID: "b", Token: "t-b", Attempt: 2, At: at(12.5)})
		}, "V3"},
		{"V3: run again after its end", func(h *history.History) {
			retried(h, "b", 2)
			h.Did(history.Step{ID: "b", Token: "t-b", Attempt: 3, At: at(14)})
		}, "V3"},
		{"V3: succeeded without its end", func(h *history.History) {
			h.Called(history.Call{Token: "t-b", User: "ann", Outcome: history.Accepted, ID: "b", Sent: at(1), Answered: at(2)})
			h.Did(history.Step{ID: "b", Token: "t-b", Attempt: 1, At: at(2)})
			h.Saw(history.Sight{ID: "b", State: "succeeded", Attempt: 1, At: at(3)})
		}, "V3"},
		{"V3: the log of a stale attempt", func(h *history.History) { retried(h, "b", 1); h.ReadLog("b", 1) }, "V3"},
		{"V4: not in the history", func(h *history.History) { h.Listed("ann", nil) }, "V4"},
		{"V4: more than was accepted", func(h *history.History) {
			h.Listed("ann", []history.Sight{{ID: "a", State: "succeeded"}, {ID: "x", State: "lost"}})
		}, "V4"},
		{"V4: run and never called for", func(h *history.History) {
			h.Called(history.Call{Token: "t-b", User: "ann"})
			h.Did(history.Step{ID: "x", Token: "t-x", Attempt: 1, At: at(3)})
			h.Listed("ann", []history.Sight{{ID: "a", State: "succeeded"}, {ID: "x", State: "succeeded"}})
		}, "V4"},
		{"V4: twice in the history", func(h *history.History) {
			h.Listed("ann", []history.Sight{{ID: "a", State: "succeeded"}, {ID: "a", State: "succeeded"}})
		}, "V4"},
		{"V4: still running", func(h *history.History) { h.Listed("ann", []history.Sight{{ID: "a", State: "running"}}) }, "V4"},
		{"V8: back to running", func(h *history.History) { h.Saw(history.Sight{ID: "a", State: "running", Attempt: 1, At: at(5)}) }, "V8"},
		{"V8: ended twice", func(h *history.History) {
			h.Saw(history.Sight{ID: "a", State: "lost", Reason: "worker_lost", Attempt: 1, At: at(5)})
		}, "V8"},
		{"V9: lost in a drain", func(h *history.History) {
			lost(h, "b", 4)
			h.Stopped(history.Stop{Worker: "w1", At: at(2.5), Gently: true})
		}, "V9"},
		{"V9: a call breaks while an API is started again", func(h *history.History) {
			h.Called(history.Call{Token: "t-b", Broke: "EOF", Sent: at(1), Answered: at(3)})
			h.Stopped(history.Stop{At: at(2), Until: at(4), Gently: true})
		}, "V9"},
		{"a call that breaks at another time", func(h *history.History) {
			h.Called(history.Call{Token: "t-b", Broke: "EOF", Sent: at(1), Answered: at(1.5)})
			h.Stopped(history.Stop{At: at(2), Until: at(4), Gently: true})
		}, ""},
		{"V10: other bytes", func(h *history.History) { h.Read("a", []byte("result\n"), []byte("result")) }, "V10"},
		{"a call that hangs", func(h *history.History) {
			h.Called(history.Call{Token: "t-b", Outcome: history.Unknown, Longest: time.Minute, Sent: at(1), Answered: at(62)})
		}, "wait"},
		{"recovery in time", func(h *history.History) { lost(h, "b", 17); h.Stopped(killed) }, ""},
		{"recovery too late", func(h *history.History) { lost(h, "b", 20); h.Stopped(killed) }, "recovery"},
		{"recovery by another attempt", func(h *history.History) { retried(h, "b", 1); h.Stopped(killed) }, ""},
		{"what had ended before is not concerned", func(h *history.History) {
			h.Stopped(history.Stop{Worker: "w1", At: at(4), Within: time.Millisecond})
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := history.New()
			activation(h, "a")
			c.make(h)
			var got []string
			for _, b := range h.Check(true) {
				got = append(got, b.Invariant)
			}
			if strings.Join(got, ",") != c.want {
				t.Errorf("it finds %q, want %q: %v", got, c.want, h.Check(true))
			}
		})
	}
}

func TestHistory_Recovery(t *testing.T) {
	h := history.New()
	activation(h, "a")
	retried(h, "b", 1)
	lost(h, "c", 8)
	h.Stopped(history.Stop{Worker: "w1", At: at(2.5), Within: 15 * time.Second})
	h.Stopped(history.Stop{Worker: "w1", At: at(2.6), Gently: true})
	if n, longest := h.Recovery(at(2)); n != 3 || longest != 9500*time.Millisecond {
		t.Errorf("%d were held, for %v at most", n, longest)
	}
	if n, _ := h.Recovery(at(3)); n != 0 {
		t.Errorf("%d were held later", n)
	}
}

func TestHistory_Holds(t *testing.T) {
	h := history.New()
	activation(h, "a")
	h.Did(history.Step{ID: "b", Attempt: 1, At: at(2)})
	h.Saw(history.Sight{ID: "b", State: "running", Attempt: 1, Worker: "w1", At: at(2.1)})
	for worker, want := range map[string]int{"w1": 1, "w2": 0} {
		if got := h.Holds(worker); got != want {
			t.Errorf("%s holds %d, want %d", worker, got, want)
		}
	}
}

func TestHistory_Gap(t *testing.T) {
	h := history.New()
	for _, s := range []float64{1, 2, 3, 7, 8, 20} {
		h.Called(history.Call{Token: fmt.Sprint(s), Good: true, Answered: at(s)})
	}
	h.Called(history.Call{Token: "refused", Answered: at(5)})
	for _, c := range []struct{ from, to, want, began float64 }{{1, 8.5, 4, 3}, {2.5, 4, 1, 3}, {7, 30, 12, 8}, {21, 25, 4, 21}} {
		if got, began := h.Gap(at(c.from), at(c.to)); got.Seconds() != c.want || !began.Equal(at(c.began)) {
			t.Errorf("from %v to %v the longest gap is %v from %v s, want %v from %v s", c.from, c.to, got, began.Sub(begin).Seconds(), c.want, c.began)
		}
	}
}

func TestHistory_Numbers(t *testing.T) {
	h := history.New()
	activation(h, "a")
	retried(h, "b", 1)
	lost(h, "c", 5)
	h.Called(history.Call{Token: "t-d", Outcome: history.Accepted, ID: "d"})
	h.Called(history.Call{Token: "t-e", Outcome: history.Refused})
	h.Called(history.Call{Token: "t-f"})
	want := history.Numbers{Calls: 6, Accepted: 4, Refused: 1, Unknown: 1, Settled: 3, Succeeded: 2, RanTwice: 1, WorkerLost: 1, Open: 1}
	if got := h.Numbers(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := h.Unsettled(time.Now()); len(got) != 1 || got[0] != "d" {
		t.Errorf("unsettled are %q", got)
	}
}
