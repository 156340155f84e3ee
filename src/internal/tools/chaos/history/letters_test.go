package history_test

import (
	"strings"
	"testing"

	"faena.dev/faena/internal/tools/chaos/history"
)

func TestHistory_Lettered(t *testing.T) {
	for _, c := range []struct {
		name           string
		async          bool
		retries        int
		state, reason  string
		attempt        int
		listed, stored string // ids, separated by spaces
		want           int    // breaches
	}{
		{"lost", true, 0, "lost", "worker_lost", 1, "a", "a", 0},
		{"lost and not there", true, 0, "lost", "worker_lost", 1, "", "", 2},
		{"lost and not shown", true, 0, "lost", "worker_lost", 1, "", "a", 1},
		{"lost and shown only", true, 0, "lost", "worker_lost", 1, "a", "", 1},
		{"lost with two", true, 0, "lost", "worker_lost", 1, "a", "a a", 1},
		{"lost before it was started", true, 0, "lost", "worker_lost", 0, "", "", 0},
		{"lost while somebody waited", false, 0, "lost", "worker_lost", 1, "", "", 0},
		{"lost while somebody waited, and there", false, 0, "lost", "worker_lost", 1, "a", "a", 2},
		{"out of attempts", true, 1, "failed", "exit_nonzero", 2, "a", "a", 0},
		{"out of attempts and not there", true, 1, "failed", "exit_nonzero", 2, "", "", 2},
		{"failed without retries", true, 0, "failed", "exit_nonzero", 1, "", "", 0},
		{"failed without retries, and there", true, 0, "failed", "exit_nonzero", 1, "a", "a", 2},
		{"cancelled", true, 1, "cancelled", "cancelled", 1, "a", "", 1},
		{"succeeded", true, 1, "succeeded", "", 2, "", "", 0},
		{"succeeded, and there", true, 1, "succeeded", "", 2, "a", "", 1},
		{"ended since", true, 0, "later", "", 1, "", "", 0},
		{"of a call whose outcome nobody told", true, 0, "lost", "worker_lost", 1, "a other", "a other", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := history.New()
			h.Called(history.Call{Token: "t", User: "ann", Function: "f", Retries: c.retries, Async: c.async, Sent: at(1), Answered: at(1.1), Outcome: history.Accepted, ID: "a"})
			for n := range c.attempt {
				h.Did(history.Step{ID: "a", Token: "t", Attempt: n + 1, At: at(2)})
				h.Did(history.Step{ID: "a", Token: "t", Attempt: n + 1, End: true, At: at(3)})
			}
			seen := at(3.1)
			if c.state == "later" {
				c.state, c.reason, seen = "lost", "worker_lost", at(5.1)
			}
			h.Saw(history.Sight{ID: "a", State: c.state, Reason: c.reason, Attempt: c.attempt, Worker: "w1", At: seen})
			h.Lettered("ann", at(5), strings.Fields(c.listed), strings.Fields(c.stored))
			found := h.Check(true)
			for _, b := range found {
				if b.Invariant != "letters" {
					t.Errorf("it finds %s", b)
				}
			}
			if len(found) != c.want {
				t.Errorf("it finds %d, want %d: %v", len(found), c.want, found)
			}
		})
	}
	t.Run("another user has it", func(t *testing.T) {
		h := history.New()
		lost(h, "a", 4)
		h.Lettered("bob", at(5), []string{"a"}, nil)
		if found := h.Check(true); len(found) != 1 || found[0].Invariant != "letters" {
			t.Errorf("it finds %v", found)
		}
	})
}
