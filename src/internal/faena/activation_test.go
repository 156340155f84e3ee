package faena

import (
	"slices"
	"testing"
	"time"
)

var moment = time.Date(2026, 3, 1, 12, 30, 0, 5_000_000, time.UTC)

// Every state with every step: what becomes of it, or that it is refused and nothing is changed.
func TestRecord_Transitions(t *testing.T) {
	const refused = State("")
	steps := map[string]func(*Record) error{
		"claim":   func(r *Record) error { return r.Claim("w1", 9, moment) },
		"succeed": func(r *Record) error { return r.Succeed(moment) },
		"fail":    func(r *Record) error { return r.Fail(ReasonNoCommand, "m", moment) },
		"timeout": func(r *Record) error { return r.Fail(ReasonTimeout, "m", moment) },
		"cancel":  func(r *Record) error { return r.Fail(ReasonCancelled, "m", moment) },
		"lose":    func(r *Record) error { return r.Fail(ReasonWorkerLost, "m", moment) },
		"unknown": func(r *Record) error { return r.Fail("no such reason", "m", moment) },
	}
	want := map[State]map[string]State{
		StateQueued:    {"claim": StateRunning, "fail": StateFailed, "cancel": StateCancelled, "lose": StateLost},
		StateRunning:   {"succeed": StateSucceeded, "fail": StateFailed, "timeout": StateTimedOut, "cancel": StateCancelled, "lose": StateLost},
		StateSucceeded: {}, StateFailed: {}, StateTimedOut: {}, StateCancelled: {}, StateLost: {}, "": {},
	}
	if len(want) != len(States)+1 {
		t.Fatal("a state is missing in the table")
	}
	for from, table := range want {
		for name, step := range steps {
			r := Record{ID: "id", State: from, Reason: "before", Attempt: 1}
			err := step(&r)
			if table[name] == refused {
				if err == nil || r.State != from || r.Reason != "before" || r.EndedAt != nil || r.StartedAt != nil || r.Attempt != 1 {
					t.Errorf("%q, %s: %v, the record is %+v", from, name, err, r)
				}
				continue
			}
			if err != nil || r.State != table[name] {
				t.Errorf("%q, %s: %v, the record is %q, want %q", from, name, err, r.State, table[name])
			}
			if r.State.Terminal() != (r.EndedAt != nil) {
				t.Errorf("%q, %s: ended at %v", from, name, r.EndedAt)
			}
		}
	}
}

func TestRecord_Claim(t *testing.T) {
	r := Record{State: StateQueued}
	if r.HeldBy("w1", 0) {
		t.Error("a queued record is held")
	}
	if err := r.Claim("w1", 9, moment); err != nil {
		t.Fatal(err)
	}
	if r.Worker != "w1" || r.Sequence != 9 || r.Attempt != 1 || !r.StartedAt.Equal(moment) {
		t.Errorf("the record is %+v", r)
	}
	if !r.HeldBy("w1", 1) || r.HeldBy("w2", 1) || r.HeldBy("w1", 2) {
		t.Error("the record is held by others")
	}
	if err := r.Succeed(moment); err != nil {
		t.Fatal(err)
	}
	if r.HeldBy("w1", 1) || r.Reason != "" || !r.EndedAt.Equal(moment) {
		t.Errorf("after its end the record is %+v", r)
	}
}

func TestRecord_Fail(t *testing.T) {
	for _, reason := range Reasons() {
		r := Record{State: StateRunning}
		if err := r.Fail(reason, "what happened", moment); err != nil {
			t.Fatal(err)
		}
		if e, _ := Explain(reason); r.State != e.State || r.Reason != reason || r.Message != "what happened" {
			t.Errorf("%s makes %+v", reason, r)
		}
	}
}

func TestState_Terminal(t *testing.T) {
	for _, s := range States {
		if want := s != StateQueued && s != StateRunning; s.Terminal() != want {
			t.Errorf("%s: %v", s, s.Terminal())
		}
	}
	if State("").Terminal() {
		t.Error("no state is terminal")
	}
}

// The list of reasons is closed: it is part of the contract with users.
func TestReasons(t *testing.T) {
	want := []Reason{"cancelled", "exec_format", "exit_nonzero", "expired", "function_deleted", "image_denied", "image_not_found",
		"image_platform", "killed_by_signal", "no_command", "no_worker", "oom_killed", "restored", "result_store_full", "result_too_large",
		"start_failed", "timeout", "worker_lost"}
	if got := Reasons(); !slices.Equal(got, want) {
		t.Errorf("the reasons are %v", got)
	}
	components := []Component{ComponentAPI, ComponentQueue, ComponentStore, ComponentWorker, ComponentEngine, ComponentRegistry, ComponentFunction, ComponentCaller}
	for _, r := range Reasons() {
		e, ok := Explain(r)
		if !ok || !e.State.Terminal() || e.State == StateSucceeded || !slices.Contains(components, e.Component) {
			t.Errorf("%s is explained by %+v", r, e)
		}
		if e.Retryable && (e.Component == ComponentFunction || e.Component == ComponentCaller) {
			t.Errorf("%s is the function's or the caller's own, and yet retryable", r)
		}
	}
	states := map[Reason]State{ReasonTimeout: StateTimedOut, ReasonCancelled: StateCancelled, ReasonFunctionDeleted: StateCancelled, ReasonWorkerLost: StateLost,
		ReasonRestored: StateLost}
	for _, r := range Reasons() {
		want, special := states[r]
		if !special {
			want = StateFailed
		}
		if e, _ := Explain(r); e.State != want {
			t.Errorf("%s leads to %s, want %s", r, e.State, want)
		}
	}
	if _, ok := Explain("no such reason"); ok {
		t.Error("an unknown reason is explained")
	}
}
