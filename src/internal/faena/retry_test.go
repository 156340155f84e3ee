package faena

import (
	"slices"
	"testing"
	"time"
)

func TestSpec_Retry(t *testing.T) {
	spec := Spec{Image: "i", Retries: 3, RetryOn: []Reason{ReasonTimeout}, RetryDelayMS: 1000, RetryMaxDelayMS: 3000}.WithDefaults()
	for _, tc := range []struct {
		name    string
		reason  Reason
		attempt int
		jitter  float64
		after   time.Duration
		again   bool
	}{
		{"the first delay, at least half of it", ReasonTimeout, 1, 0, 500 * time.Millisecond, true},
		{"the first delay, nearly all of it", ReasonTimeout, 1, 0.5, 750 * time.Millisecond, true},
		{"it doubles", ReasonTimeout, 2, 0, time.Second, true},
		{"up to the longest", ReasonTimeout, 3, 0, 1500 * time.Millisecond, true},
		{"no attempt is left", ReasonTimeout, 4, 0, 0, false},
		{"another reason", ReasonExitNonzero, 1, 0, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if after, again := spec.Retry(tc.reason, tc.attempt, tc.jitter); after != tc.after || again != tc.again {
				t.Errorf("after %v, %v; want %v, %v", after, again, tc.after, tc.again)
			}
		})
	}
	if _, again := (Spec{Image: "i"}).WithDefaults().Retry(ReasonWorkerLost, 1, 0); again {
		t.Error("without retries it is run again")
	}
	longest := Spec{Image: "i", Retries: MaxRetries, RetryDelayMS: MaxRetryDelay.Milliseconds()}.WithDefaults()
	if err := longest.Validate(); err != nil {
		t.Fatal(err)
	}
	if after, _ := longest.Retry(ReasonTimeout, MaxRetries, 0.999); after <= 0 || after > MaxRetryDelay {
		t.Errorf("the last delay is %v", after)
	}
}

func TestSpec_WithDefaults_Retries(t *testing.T) {
	if s := (Spec{Image: "i"}).WithDefaults(); s.RetryOn != nil || s.RetryDelayMS != 0 || s.RetryMaxDelayMS != 0 {
		t.Errorf("without retries: %+v", s)
	}
	s := Spec{Image: "i", Retries: 1, RetryDelayMS: 600_000}.WithDefaults()
	if !slices.Equal(s.RetryOn, DefaultRetryOn) || s.RetryMaxDelayMS != 600_000 {
		t.Errorf("with retries: %+v", s)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

func TestSpec_Validate_Retries(t *testing.T) {
	for name, tc := range map[string]struct {
		spec  Spec
		field string
	}{
		"too many":                        {Spec{Retries: MaxRetries + 1}, "retries"},
		"fewer than none":                 {Spec{Retries: -1}, "retries"},
		"a reason that is the same again": {Spec{Retries: 1, RetryOn: []Reason{ReasonNoCommand}}, "retry_on[0]"},
		"no reason":                       {Spec{Retries: 1, RetryOn: []Reason{"bad luck"}}, "retry_on[0]"},
		"a delay of more than an hour":    {Spec{Retries: 1, RetryDelayMS: MaxRetryDelay.Milliseconds() + 1}, "retry_delay_ms"},
		"a longest below the first":       {Spec{Retries: 1, RetryDelayMS: 2000, RetryMaxDelayMS: 1000}, "retry_max_delay_ms"},
		"a delay without retries":         {Spec{RetryDelayMS: 1000}, "retries"},
		"reasons without retries":         {Spec{RetryOn: []Reason{ReasonTimeout}}, "retries"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.spec.Image = "i"
			err := tc.spec.WithDefaults().Validate()
			e, _ := err.(*Error)
			if e == nil || !slices.ContainsFunc(e.Fields, func(f FieldError) bool { return f.Field == tc.field }) {
				t.Errorf("it is %v, want one of %s", err, tc.field)
			}
		})
	}
}

func running() Record {
	started := moment
	return Record{ID: "a", State: StateRunning, Slot: 3, Publication: 1, StartWithinMS: 10_000, Attempt: 1, Worker: "w1", Sequence: 42, StartedAt: &started}
}

func TestRecord_Requeue(t *testing.T) {
	t.Run("in its slot", func(t *testing.T) {
		r := running()
		if err := r.Requeue(ReasonTimeout, "It ran too long.", 2*time.Second, 5*time.Second, nil, moment, moment); err != nil {
			t.Fatal(err)
		}
		if r.State != StateQueued || r.Backlogged || r.Slot != 3 || r.Attempt != 1 || r.Worker != "" || r.Sequence != 0 || r.StartedAt != nil {
			t.Errorf("it is %+v", r)
		}
		if !r.NotBefore.Equal(moment.Add(2*time.Second)) || r.StartWithin() != 17*time.Second {
			t.Errorf("not before %v, to be started within %v", r.NotBefore, r.StartWithin())
		}
		if want := []Failure{{Attempt: 1, Reason: ReasonTimeout, Message: "It ran too long.", Worker: "w1", EndedAt: moment}}; !slices.Equal(r.Failures, want) {
			t.Errorf("the failures are %+v", r.Failures)
		}
	})
	t.Run("in the backlog, and out of it", func(t *testing.T) {
		r := running()
		p := Blob{Size: 1, Inline: []byte("x")}
		if err := r.Requeue(ReasonTimeout, "It ran too long.", time.Minute, 5*time.Second, &p, moment, moment); err != nil {
			t.Fatal(err)
		}
		if r.Claim("w2", 43, moment) == nil {
			t.Error("it is claimed by an old message")
		}
		if !r.Backlogged || r.Parameter == nil || r.StartWithin() != 70*time.Second {
			t.Errorf("it is %+v", r)
		}
		if err := r.Release(7, time.Minute); err != nil {
			t.Fatal(err)
		}
		if r.Backlogged || r.Parameter != nil || r.NotBefore != nil || r.Slot != 7 || r.Publication != 2 || r.StartWithin() != 10*time.Second {
			t.Errorf("released it is %+v", r)
		}
		if r.Release(8, 0) == nil {
			t.Error("it was released twice")
		}
	})
	t.Run("each time it may wait as long again", func(t *testing.T) {
		p := Blob{Size: 1, Inline: []byte("x")}
		r := Record{State: StateQueued, Backlogged: true, StartWithinMS: 10_000}
		steps := []struct {
			name string
			do   func() error
			want time.Duration // to be started within
		}{
			{"released late", func() error { return r.Release(1, 9*time.Second) }, time.Second},
			{"claimed", func() error { return r.Claim("w1", 1, moment) }, time.Second},
			{"queued again in its slot", func() error { return r.Requeue(ReasonTimeout, "", 2*time.Second, 5*time.Second, nil, moment, moment) }, 17 * time.Second},
			{"claimed again", func() error { return r.Claim("w1", 1, moment) }, 17 * time.Second},
			{"and once more", func() error { return r.Requeue(ReasonTimeout, "", 4*time.Second, 8*time.Second, nil, moment, moment) }, 22 * time.Second},
			{"claimed a third time", func() error { return r.Claim("w1", 1, moment) }, 22 * time.Second},
			{"back in the backlog", func() error { return r.Requeue(ReasonTimeout, "", time.Minute, 9*time.Second, &p, moment, moment) }, 70 * time.Second},
			{"released when it is due", func() error { return r.Release(1, time.Minute) }, 10 * time.Second},
		}
		for _, step := range steps {
			if err := step.do(); err != nil || r.StartWithin() != step.want {
				t.Errorf("%s: %v, to be started within %v, want %v", step.name, err, r.StartWithin(), step.want)
			}
		}
	})
	t.Run("what does not run", func(t *testing.T) {
		for _, s := range States {
			r := running()
			if r.State = s; s != StateRunning && r.Requeue(ReasonTimeout, "", 0, 0, nil, moment, moment) == nil {
				t.Errorf("%s is queued again", s)
			}
		}
	})
}

func TestRecord_Reclaim(t *testing.T) {
	r := running()
	if err := r.Reclaim("w2", moment.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if r.State != StateRunning || r.Worker != "w2" || r.Attempt != 2 || r.Sequence != 42 || !r.StartedAt.Equal(moment.Add(time.Minute)) {
		t.Errorf("it is %+v", r)
	}
	if len(r.Failures) != 1 || r.Failures[0].Reason != ReasonWorkerLost || r.Failures[0].Worker != "w1" || r.Failures[0].Attempt != 1 {
		t.Errorf("the failures are %+v", r.Failures)
	}
	r.State = StateQueued
	if r.Reclaim("w3", moment) == nil {
		t.Error("a queued one was claimed again")
	}
}

// What has ended keeps nothing of how it would have gone on.
func TestRecord_Fail_InBacklog(t *testing.T) {
	r := running()
	p := Blob{Size: 1, Inline: []byte("x")}
	if err := r.Requeue(ReasonTimeout, "", time.Minute, 0, &p, moment, moment); err != nil {
		t.Fatal(err)
	}
	if err := r.Fail(ReasonCancelled, "Cancelled.", moment); err != nil {
		t.Fatal(err)
	}
	if r.State != StateCancelled || r.Parameter != nil || r.NotBefore != nil || !r.Backlogged {
		t.Errorf("it is %+v", r)
	}
}
