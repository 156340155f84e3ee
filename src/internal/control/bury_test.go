package control

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// retry stores the record of an asynchronous activation of ann's function that has been started once, and waits for its next attempt,
// for which the time is over in a moment.
func (r *rig) retry(changes ...func(*faena.Record)) *faena.Record {
	r.t.Helper()
	rev, err := r.documents.Revision(r.t.Context(), "ann", "f", 1)
	noError(r.t, err)
	return r.orphan(append([]func(*faena.Record){func(rec *faena.Record) {
		at := time.Now().UTC()
		rec.ID, rec.AdmittedAt, rec.Digest, rec.Attempt, rec.StartWithinMS = idAt(at), at, rev.Digest, 1, 1
	}}, changes...)...)
}

// What the leader ends has a dead letter where a worker would have written one, with the parameter, and can be run again.
func TestSweeper_DeadLetter(t *testing.T) {
	t.Parallel()
	r := sweeping(t, hasty)
	rev, err := r.documents.Revision(t.Context(), "ann", "f", 1)
	noError(t, err)
	large := strings.Repeat("l", faena.MaxInlineBytes+1)
	message := func(rec *faena.Record, parameter string) *faena.Message {
		p := faena.Blob{Size: int64(len(parameter)), Inline: []byte(parameter)}
		if len(parameter) > faena.MaxInlineBytes {
			p = faena.Blob{Size: p.Size, Object: rec.ParameterObject}
		}
		return &faena.Message{Schema: faena.SchemaVersion, ID: rec.ID, Revision: &rev, Parameter: p}
	}
	inSlot := func(rec *faena.Record, parameter string) {
		_, _, err := r.bus.Bus.Publish(t.Context(), "ann", group, rec.Slot, 1, message(rec, parameter))
		noError(t, err)
	}
	inBacklog := func(rec *faena.Record, parameter string) {
		noError(t, r.bus.Bus.PublishBacklog(t.Context(), "ann", group, 1, message(rec, parameter)))
	}
	none := func(*faena.Record, string) {}
	backlogged := func(rec *faena.Record) { rec.Backlogged = true }
	started := func(rec *faena.Record) { rec.State, rec.Worker, rec.Sequence = faena.StateRunning, "w0", 7 }
	for i, c := range []struct {
		name    string
		changes []func(*faena.Record)
		put     func(*faena.Record, string) // its message
		with    string                      // its parameter
		reason  faena.Reason                // of the dead letter; empty: there is none
		gone    bool                        // the parameter is
	}{
		{"ARetryInItsSlot", nil, inSlot, "slot", faena.ReasonExpired, false},
		{"ARetryWithALargeParameter", []func(*faena.Record){func(rec *faena.Record) { rec.ParameterObject = "in." + rec.ID }}, inSlot, large, faena.ReasonExpired, false},
		{"ARetryInTheBacklog", []func(*faena.Record){backlogged}, inBacklog, "backlog", faena.ReasonExpired, false},
		{"ARetryThatWasNotFiled", []func(*faena.Record){backlogged, func(rec *faena.Record) {
			rec.Parameter = &faena.Blob{Size: 5, Inline: []byte("filed")}
		}}, none, "filed", faena.ReasonExpired, false},
		{"ARetryWithoutAMessage", []func(*faena.Record){func(rec *faena.Record) { rec.StartWithinMS = 3_600_000 }}, none, "", faena.ReasonWorkerLost, true},
		{"WhatRunsWithoutAMessage", []func(*faena.Record){started}, none, "", faena.ReasonWorkerLost, true},
		{"WhatRunsWithALargeParameter", []func(*faena.Record){started, func(rec *faena.Record) { rec.ParameterObject = "in." + rec.ID }}, none, large,
			faena.ReasonWorkerLost, false},
		{"WhatWasNeverStarted", []func(*faena.Record){func(rec *faena.Record) { rec.Attempt = 0 }}, inSlot, "never", "", false},
		{"WhatSomebodyWaitsFor", []func(*faena.Record){func(rec *faena.Record) { rec.Instance = "api-7" }}, inSlot, "waits", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := r.retry(append(c.changes, func(rec *faena.Record) { rec.Slot = i })...)
			if rec.ParameterObject != "" {
				noError(t, r.bus.PutObject(t.Context(), group, rec.ParameterObject, []byte(c.with)))
			}
			c.put(rec, c.with)
			want := faena.StateFailed
			if c.reason == faena.ReasonWorkerLost {
				want = faena.StateLost
			}
			r.becomes(rec.ID, want)
			d, err := r.DeadLetter(t.Context(), "ann", rec.ID)
			if c.reason == "" {
				isKind(t, err, faena.KindNotFound)
				return
			}
			noError(t, err)
			if d.Reason != c.reason || d.Attempts != 1 || d.Function != "f" || d.Revision != 1 || d.Message == "" || d.At.Before(rec.AdmittedAt) {
				t.Errorf("the dead letter is %+v", d)
			}
			l, err := r.letterOf(t.Context(), "ann", rec.ID)
			noError(t, err)
			if p, err := r.letterParameter(t.Context(), &l); c.gone {
				isKind(t, err, faena.KindGone)
			} else if err != nil || string(p) != c.with || d.Parameter.Size != int64(len(c.with)) {
				t.Errorf("its parameter is %d bytes, said to be %d, %v", len(p), d.Parameter.Size, err)
			}
		})
	}
	w := r.worker(2, func(j *job) (string, faena.Reason) { return string(j.parameter[:1]), "" })
	all, err := r.RedriveAll(t.Context(), faena.DeadLetterQuery{User: "ann", Limit: 100}, faena.ActivationRequest{})
	noError(t, err)
	var results []string
	for _, a := range all.Accepted {
		results = append(results, string(r.becomes(a.ID, faena.StateSucceeded).Result.Inline))
	}
	if slices.Sort(results); !slices.Equal(results, []string{"b", "f", "l", "l", "s"}) || len(all.Refused) != 2 || w.ran.Load() != 5 {
		t.Errorf("run again they give %q, refused are %d, %d ran", results, len(all.Refused), w.ran.Load())
	}
}

// An activation is not ended before its dead letter is written; one that was written before its leader was killed is written again.
func TestSweeper_DeadLetter_First(t *testing.T) {
	t.Parallel()
	r := sweeping(t, hasty)
	r.bus.on("PutDeadLetter", func() error { return faena.ErrUnknown })
	rec := r.retry()
	noError(t, r.publish(rec))
	asked := func(method string, n int) {
		t.Helper()
		from := r.bus.count(method)
		faenatest.Eventually(t, patience, method+" is called again", func() bool { return r.bus.count(method) >= from+n })
	}
	asked("PutDeadLetter", 2)
	r.becomes(rec.ID, faena.StateQueued)
	r.bus.on("UpdateRecord", func() error { return errors.New("killed") })
	r.bus.on("PutDeadLetter", nil)
	asked("PutDeadLetter", 2)
	if got := r.letters("ann"); !slices.Equal(got, []string{rec.ID}) {
		t.Errorf("there are %v", got)
	}
	r.becomes(rec.ID, faena.StateQueued)
	r.bus.on("UpdateRecord", nil)
	r.becomes(rec.ID, faena.StateFailed)
	if got := r.letters("ann"); !slices.Equal(got, []string{rec.ID}) {
		t.Errorf("there are %v", got)
	}
}
