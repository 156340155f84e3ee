package worker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
	"faena.dev/faena/internal/worker"
)

// retries gives a revision retries after a delay.
func retries(n int, delay time.Duration, on ...faena.Reason) func(*faena.Revision) {
	return func(r *faena.Revision) {
		r.Spec.Retries, r.Spec.RetryDelayMS, r.Spec.RetryOn = n, delay.Milliseconds(), on
	}
}

// failures are the ends of a record's earlier attempts in short.
func failures(r *faena.Record) string {
	var b strings.Builder
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "%d %s %s; ", f.Attempt, f.Reason, f.Worker)
	}
	return b.String()
}

// letter reads a dead letter, nil where there is none.
func (s *site) letter(id string) *faena.DeadLetter {
	s.t.Helper()
	var d *faena.DeadLetter
	faenatest.EventuallyNil(s.t, patience, "the dead letter is read", func() (err error) {
		if d, _, err = s.bus.DeadLetter(s.t.Context(), group, "ana", id); faena.IsKind(err, faena.KindNotFound) {
			d, err = nil, nil
		}
		return err
	})
	return d
}

// TestWorker_Retry: what fails is run again as often as its spec says, and keeps its slot where that is soon.
func TestWorker_Retry(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("retry")
	t.Run("until it succeeds", func(t *testing.T) {
		told := make(chan *faena.Record, 10)
		stop, err := s.bus.Completed("api-2", func(r *faena.Record) { told <- r })
		s.check(err)
		defer stop()
		id := s.send(s.function("f", retries(2, 400*time.Millisecond), "attempt", "3"), "", func(r *faena.Record) { r.Instance = "api-2" })
		seen := map[string]bool{}
		var r *faena.Record
		faenatest.EventuallyNil(t, patience, "it succeeds", func() error {
			busy, err := s.bus.BusySlots(t.Context(), group, "ana")
			s.check(err)
			r = s.record(id)
			if _, held := busy[r.Slot]; !held && r.State == faena.StateQueued {
				t.Errorf("its slot is free while it waits: %+v", r)
			}
			if r.State == faena.StateQueued && r.Attempt > 0 {
				seen[fmt.Sprintf("%d %v %s", r.Attempt, r.NotBefore != nil, failures(r))] = true
			}
			if r.State != faena.StateSucceeded {
				return fmt.Errorf("it is %s", r.State)
			}
			return nil
		})
		ends := fmt.Sprintf("1 exit_nonzero %s; 2 exit_nonzero %s; ", h.id, h.id)
		if string(r.Result.Inline) != "3" || r.Attempt != 3 || failures(r) != ends || r.Reason != "" || r.NotBefore != nil {
			t.Errorf("%+v", r)
		}
		for _, f := range r.Failures {
			if f.Message != "The function ended with exit code 7." || f.EndedAt.Before(r.AdmittedAt) {
				t.Errorf("%+v", f)
			}
		}
		if !seen[fmt.Sprintf("1 true 1 exit_nonzero %s; ", h.id)] {
			t.Errorf("between its attempts it was %v", seen)
		}
		if gap := r.StartedAt.Sub(r.Failures[0].EndedAt); gap < 600*time.Millisecond { // half of 400 and of 800
			t.Errorf("its last attempt began %v after the first had ended", gap)
		}
		s.quiet()
		if first := <-told; first.ID != id || first.State != faena.StateSucceeded || len(told) > 0 {
			t.Errorf("told: %+v, and %d more", first, len(told))
		}
		if n := h.metric(`faena_worker_retries_total{reason="exit_nonzero"}`); n != 2 {
			t.Errorf("%d retries are counted, want 2", n)
		}
	})
	t.Run("until it has used them up", func(t *testing.T) {
		for instance, dead := range map[string]bool{"": true, "api-3": false} {
			r := s.ended(s.send(s.function("f", retries(1, 100*time.Millisecond), "attempt", "3"), "arg", func(r *faena.Record) { r.Instance = instance }))
			if r.Reason != faena.ReasonExitNonzero || r.Attempt != 2 || len(r.Failures) != 1 || string(r.Result.Inline) != "2" || ending(r) != "7" {
				t.Errorf("%+v", r)
			}
			d := s.letter(r.ID)
			if (d != nil) != dead {
				t.Errorf("its instance is %q, its dead letter %+v", instance, d)
			}
			if d != nil && (d.Reason != r.Reason || d.Attempts != 2 || d.Worker != h.id || d.Function != "f" || d.Revision != 1 ||
				string(d.Parameter.Inline) != "arg" || d.Message != r.Message || len(d.Raw) > 0) {
				t.Errorf("%+v", d)
			}
		}
		if n := h.metric(`faena_worker_dead_letters_total{reason="exit_nonzero"}`); n != 1 {
			t.Errorf("%d dead letters are counted, want 1", n)
		}
	})
	t.Run("not for what is not listed", func(t *testing.T) {
		r := s.call(s.function("f", retries(3, time.Second, faena.ReasonTimeout), "attempt", "3"), "")
		if r.Reason != faena.ReasonExitNonzero || r.Attempt != 1 || len(r.Failures) != 0 || s.letter(r.ID) == nil {
			t.Errorf("%+v, dead letter %+v", r, s.letter(r.ID))
		}
	})
	t.Run("never without", func(t *testing.T) {
		r := s.call(s.function("f", nil, "attempt", "3"), "")
		if r.Reason != faena.ReasonExitNonzero || r.Attempt != 1 || len(r.Failures) != 0 || s.letter(r.ID) != nil {
			t.Errorf("%+v, dead letter %+v", r, s.letter(r.ID))
		}
	})
	t.Run("after its timeout", func(t *testing.T) {
		timeout := retries(1, 100*time.Millisecond, faena.ReasonTimeout)
		r := s.call(s.function("slow", func(r *faena.Revision) { timeout(r); r.Spec.TimeoutMS = 2000 }, "stubborn"), "")
		if r.State != faena.StateTimedOut || r.Attempt != 2 || failures(r) != "1 timeout "+h.id+"; " || string(r.Log.Inline) != "here" {
			t.Errorf("%+v", r)
		}
	})
	s.quiet()
	h.idle()
}

// TestWorker_Retry_Later: what is run again only after a while gives up its slot, with all in its record that it takes to publish it
// again.
func TestWorker_Retry_Later(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("later")
	for _, size := range []int{3, faena.MaxInlineBytes + 1} {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			later := retries(1, time.Minute+2*time.Second)
			rev := s.function("f", func(r *faena.Revision) { later(r); r.Spec.Input = faena.InputStdin }, "attempt", "2")
			id := s.send(rev, strings.Repeat("x", size))
			var r *faena.Record
			faenatest.Eventually(t, patience, "it waits in the backlog", func() bool { r = s.record(id); return r.Backlogged })
			s.quiet()
			p := r.Parameter
			if r.State != faena.StateQueued || failures(r) != "1 exit_nonzero "+h.id+"; " || r.Worker != "" || p == nil || p.Size != int64(size) ||
				(p.Object == "") != (size == 3) || len(p.Inline) != size && p.Object != "in."+id {
				t.Fatalf("%+v", r)
			}
			if wait := time.Until(*r.NotBefore); wait < 25*time.Second || wait > 62*time.Second {
				t.Errorf("it is due in %v", wait)
			}
			parameter := *p
			before := r.Slot
			s.change(id, func(r *faena.Record) { s.check(r.Release(int(s.slots.Add(1)), 0)) }) // as if it were due
			r = s.record(id)
			// A message that is still in its first slot, as when its acknowledgement was lost, is not what it waits for.
			_, _, err := s.bus.Publish(t.Context(), "ana", group, before, 9, &faena.Message{Schema: faena.SchemaVersion, ID: id, Revision: rev,
				Parameter: parameter})
			s.check(err)
			s.quiet()
			if now := s.record(id); now.State != faena.StateQueued || now.Attempt != 1 {
				t.Errorf("by its old message: %+v", now)
			}
			_, _, err = s.bus.Publish(t.Context(), "ana", group, r.Slot, r.Publication, &faena.Message{Schema: faena.SchemaVersion, ID: id, Revision: rev,
				Parameter: parameter})
			s.check(err)
			if r = s.ended(id); r.State != faena.StateSucceeded || r.Attempt != 2 || string(r.Result.Inline) != "2" {
				t.Errorf("%+v", r)
			}
			s.quiet()
		})
	}
}

// TestWorker_Retry_Cancelled: what is cancelled is not run again, whenever its user has asked for that.
func TestWorker_Retry_Cancelled(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("unwanted")
	flag := func(r *faena.Record) { r.CancelRequested = true }
	t.Run("between attempts", func(t *testing.T) {
		id := s.send(s.function("f", retries(5, 8*time.Second), "attempt", "9"), "")
		faenatest.Eventually(t, patience, "its first attempt has failed", func() bool { return len(s.record(id).Failures) > 0 })
		s.change(id, flag)
		if r := s.ended(id); r.State != faena.StateCancelled || r.Attempt != 1 || !strings.Contains(r.Message, "before attempt 2") || s.letter(id) != nil {
			t.Errorf("%+v", r)
		}
	})
	t.Run("unheard while it ran", func(t *testing.T) {
		slow := retries(5, 100*time.Millisecond, faena.ReasonTimeout)
		id := s.send(s.function("slow", func(r *faena.Revision) { slow(r); r.Spec.TimeoutMS = 5000 }, "stubborn"), "")
		s.is(id, faena.StateRunning)
		s.change(id, flag)
		r := s.ended(id)
		if r.State != faena.StateCancelled || r.Attempt != 1 || len(r.Failures) != 0 || !strings.Contains(r.Message, "timeout") || string(r.Log.Inline) != "here" ||
			s.letter(id) != nil {
			t.Errorf("%+v", r)
		}
	})
	s.quiet()
	h.idle()
}

// TestWorker_Retry_Lost: what a lost worker ran is run again where it may be, by whoever is given its message.
func TestWorker_Retry_Lost(t *testing.T) {
	t.Parallel()
	s := start(t, 2*time.Second)
	g := s.ghost()
	rev := s.function("f", retries(2, time.Second), "attempt", "2")
	sent := map[string]string{}
	for _, c := range []struct {
		name string
		rev  *faena.Revision
		then func(*faena.Record)
	}{
		{"again", rev, nil},
		{"used up", rev, func(r *faena.Record) { r.Attempt = 3 }},
		{"cancelled", rev, func(r *faena.Record) { r.CancelRequested = true }},
		{"never", s.function("never", nil, "attempt", "2"), nil},
	} {
		id := s.send(c.rev, "arg")
		g.starts(id)
		if c.then != nil {
			s.change(id, c.then)
		}
		sent[c.name] = id
	}
	s.check(g.d.Close())
	// It looks at each record more than once while it makes the container.
	h := s.quick("heir", worker.Every{Tick: 20 * time.Millisecond, Progress: 40 * time.Millisecond})

	r := s.ended(sent["again"])
	if r.State != faena.StateSucceeded || r.Attempt != 2 || r.Worker != h.id || failures(r) != "1 worker_lost ghost; " || string(r.Result.Inline) != "2" {
		t.Errorf("again: %+v", r)
	}
	for name, attempts := range map[string]int{"used up": 3, "never": 1} {
		r, d := s.ended(sent[name]), s.letter(sent[name])
		if r.State != faena.StateLost || r.Reason != faena.ReasonWorkerLost || r.Attempt != attempts || r.Worker != "ghost" || len(r.Failures) != 0 {
			t.Errorf("%s: %+v", name, r)
		}
		if d == nil || d.Reason != faena.ReasonWorkerLost || d.Attempts != attempts || d.Worker != h.id || string(d.Parameter.Inline) != "arg" {
			t.Errorf("%s: dead letter %+v", name, d)
		}
	}
	if r := s.ended(sent["cancelled"]); r.State != faena.StateCancelled || r.Attempt != 1 || s.letter(r.ID) != nil {
		t.Errorf("cancelled: %+v", r)
	}
	s.quiet()
	h.idle()
}

// TestWorker_Retry_Start: that a container could not be started counts as an attempt where there are retries.
func TestWorker_Retry_Start(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	f := s.frontage()
	h := s.run("starting", f.behind)
	says := "unable to find user nobody: no matching entries in passwd file"
	t.Run("used up", func(t *testing.T) {
		f.refuses.Store(&says)
		r := s.call(s.function("f", retries(2, 100*time.Millisecond), "attempt", "2"), "arg")
		ends := fmt.Sprintf("1 start_failed %s; 2 start_failed %s; ", h.id, h.id)
		if r.Reason != faena.ReasonStartFailed || r.Attempt != 3 || failures(r) != ends || f.refused.Load() != 3 || r.StartedAt != nil {
			t.Errorf("after %d tries %+v", f.refused.Load(), r)
		}
		if d := s.letter(r.ID); d == nil || d.Attempts != 3 || d.Reason != faena.ReasonStartFailed {
			t.Errorf("dead letter %+v", d)
		}
	})
	t.Run("until it starts", func(t *testing.T) {
		id := s.send(s.function("g", retries(2, 300*time.Millisecond), "attempt", "2"), "arg")
		faenatest.Eventually(t, patience, "a start is refused", func() bool { return len(s.record(id).Failures) > 0 })
		f.refuses.Store(nil)
		if r := s.ended(id); r.State != faena.StateSucceeded || string(r.Result.Inline) != fmt.Sprint(r.Attempt) || r.Attempt < 2 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("not without its parameter", func(t *testing.T) {
		rev := s.function("cat", func(r *faena.Revision) { r.Spec.Retries, r.Spec.Input = 3, faena.InputStdin }, "cat")
		busy := []string{s.send(s.function("busy", nil, "stubborn"), ""), s.send(s.function("busy", nil, "stubborn"), "")}
		for _, id := range busy { // both places are taken
			s.is(id, faena.StateRunning)
		}
		id := s.send(rev, strings.Repeat("x", faena.MaxInlineBytes+1))
		s.check(s.bus.DeleteObject(t.Context(), group, "in."+id))
		for _, b := range busy {
			s.cancel(b)
		}
		r := s.ended(id)
		if r.Reason != faena.ReasonStartFailed || len(r.Failures) != 0 || r.Attempt != 1 {
			t.Errorf("%+v", r)
		}
		if d := s.letter(id); d == nil || d.Parameter.Object != "in."+id || !strings.Contains(d.Message, "Its parameter is not") {
			t.Errorf("dead letter %+v", d)
		}
	})
	s.quiet()
	h.idle()
}

// TestWorker_Retry_Stopped: what a worker that is stopped has cut short is run again at once by another, where it may be.
func TestWorker_Retry_Stopped(t *testing.T) {
	t.Parallel()
	s := start(t, never)
	h := s.run("stopped")
	id := s.send(s.function("f", retries(1, time.Hour), "sleep", "4000"), "")
	s.is(id, faena.StateRunning)
	h.Abort()
	heir := s.run("heir", func(o *wiring.WorkerOptions) { o.Pool.Places = 1 })
	r := s.ended(id)
	if r.State != faena.StateSucceeded || r.Attempt != 2 || r.Worker != heir.id || failures(r) != "1 worker_lost "+h.id+"; " {
		t.Errorf("%+v", r)
	}
	s.quiet()
}
