package worker_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/worker"
)

// TestWorker_Overtaken: who finds that another worker has claimed what he makes ready, by the same message, takes that one neither for
// lost nor for done: he says nothing.
func TestWorker_Overtaken(t *testing.T) {
	t.Parallel()
	for name, every := range map[string]worker.Every{
		"before its claim":                    {},
		"while it is made ready":              {Tick: 20 * time.Millisecond, Progress: 50 * time.Millisecond},
		"whose container then does not start": {Tick: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, 0)
			f := s.frontage()
			made, goOn := make(chan struct{}), make(chan struct{})
			hold := func(r *http.Request) {
				select {
				case made <- struct{}{}:
					<-goOn
				case <-r.Context().Done():
				}
			}
			f.created.Store(&hold)
			h := s.quick("overtaken", every, f.behind)
			id := s.send(s.function("f", func(r *faena.Revision) { r.Spec.Retries = 1 }, "attempt", "9"), "arg")
			<-made
			f.created.Store(nil)
			if name == "whose container then does not start" {
				says := "unable to find user nobody: no matching entries in passwd file"
				f.refuses.Store(&says)
			}
			s.change(id, func(r *faena.Record) { s.check(r.Claim("another", 2, time.Now().UTC())) }) // the stream's first is its anchor
			want := s.record(id)
			release := sync.OnceFunc(func() { close(goOn) })
			defer release()
			if every.Progress == 0 {
				release()
			}
			faenatest.Eventually(t, patience, "it has given it up", func() bool { return h.log.has("given up before it started") })
			release()
			h.idle()
			if n, err := s.bus.QueueDepth(t.Context(), group); err != nil || n != 1 || !sameRecord(s.record(id), want) || s.letter(id) != nil {
				t.Errorf("%d messages are in the stream, %v; the record is %+v, its dead letter %+v", n, err, s.record(id), s.letter(id))
			}
			if n, err := s.bus.Pending(t.Context(), group); err != nil || n != 0 {
				t.Errorf("%d were handed back, %v", n, err)
			}
		})
	}
}

// TestWorker_Ahead: a worker that finds that another one has begun later than it is here, which it would take for a lost one, leaves the
// message to the server: its own host may have stood still. When the message comes again the other one is lost.
func TestWorker_Ahead(t *testing.T) {
	t.Parallel()
	for name, lives := range map[string]bool{"the other one lives": true, "it is lost": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, 2*time.Second)
			id := s.send(s.function("f", nil), "arg")
			deliveries, err := s.connect("another", 2*time.Second).Deliveries(group)
			s.check(err)
			defer func() { s.check(deliveries.Close()) }()
			d, err := deliveries.Next(t.Context())
			s.check(err)
			s.change(id, func(r *faena.Record) { s.check(r.Claim("another", d.Sequence, time.Now().UTC().Add(30*time.Second))) })
			h := s.run("behind")
			const says = "so that this host may have stood still"
			faenatest.Eventually(t, patience, "it has given it up", func() bool { return h.log.has(says) })
			if lives {
				s.check(d.Confirm(t.Context()))
				s.change(id, func(r *faena.Record) { s.check(r.Succeed(time.Now().UTC())) })
				s.check(d.DoubleAck(t.Context()))
			}
			s.quiet()
			if r := s.record(id); (r.State == faena.StateSucceeded) != lives || (r.Reason == faena.ReasonWorkerLost) == lives {
				t.Errorf("%+v", r)
			}
			if n := h.log.count(says); n != 1 {
				t.Errorf("it was given up %d times", n)
			}
		})
	}
}

func sameRecord(a, b *faena.Record) bool {
	return a.State == b.State && a.Worker == b.Worker && a.Attempt == b.Attempt && a.Sequence == b.Sequence && len(a.Failures) == len(b.Failures)
}
