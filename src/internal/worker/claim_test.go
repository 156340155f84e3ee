package worker

import (
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

func TestDecide(t *testing.T) {
	now := time.Now()
	soon, past := now.Add(time.Second), now.Add(-time.Second)
	queued := faena.Record{State: faena.StateQueued, Slot: 3, StartWithinMS: 1000}
	running := faena.Record{State: faena.StateRunning, Worker: "w2", Attempt: 1, Sequence: 7, StartWithinMS: 1000}
	with := func(r faena.Record, change func(*faena.Record)) *faena.Record { change(&r); return &r }
	wanted := func(r *faena.Record) { r.CancelRequested = true }
	second := func(r *faena.Record) { r.Attempt = 2 }
	never := faena.Spec{}.WithDefaults()
	once := faena.Spec{Retries: 1, TimeoutMS: 1000}.WithDefaults()
	other := faena.Spec{Retries: 1, RetryOn: []faena.Reason{faena.ReasonTimeout}}.WithDefaults()
	for name, c := range map[string]struct {
		rec      *faena.Record
		spec     faena.Spec
		sequence uint64
		waited   time.Duration
		want     verdict
	}{
		"absent":                         {nil, never, 7, 0, drop},
		"queued":                         {&queued, never, 7, 0, proceed},
		"queued, at its latest start":    {&queued, never, 7, time.Second, proceed},
		"queued, past it":                {&queued, never, 7, time.Second + 1, expire},
		"queued, cancelled":              {with(queued, wanted), never, 7, 0, cancel},
		"queued, cancelled and past":     {with(queued, wanted), never, 7, time.Hour, cancel},
		"in the backlog":                 {with(queued, func(r *faena.Record) { r.Backlogged = true }), once, 7, 0, drop},
		"in another slot":                {with(queued, func(r *faena.Record) { r.Slot = 4 }), once, 7, 0, drop},
		"in another slot, cancelled":     {with(queued, func(r *faena.Record) { r.Slot, r.CancelRequested = 4, true }), once, 7, 0, drop},
		"in another slot, past":          {with(queued, func(r *faena.Record) { r.Slot = 4 }), once, 7, time.Hour, drop},
		"running, redelivery":            {&running, never, 7, 0, lose},
		"running, redelivery, past":      {&running, never, 7, time.Hour, lose},
		"running, a copy":                {&running, never, 8, 0, drop},
		"running, an earlier copy":       {&running, never, 6, time.Hour, drop},
		"running, cancelled, redelivery": {with(running, wanted), never, 7, 0, lose},

		"again, not due":               {with(queued, func(r *faena.Record) { r.NotBefore = &soon }), once, 7, 0, wait},
		"again, due":                   {with(queued, func(r *faena.Record) { r.NotBefore = &past }), once, 7, 0, proceed},
		"again, not due, cancelled":    {with(queued, func(r *faena.Record) { r.NotBefore, r.CancelRequested = &soon, true }), once, 7, 0, cancel},
		"again, past it":               {with(queued, func(r *faena.Record) { r.NotBefore, r.Attempt = &past, 1 }), once, 7, time.Hour, expire},
		"lost":                         {&running, once, 7, time.Second, proceed},
		"lost, a copy":                 {&running, once, 8, time.Second, drop},
		"lost, cancelled":              {with(running, wanted), once, 7, time.Second, cancel},
		"lost, for the last time":      {with(running, second), once, 7, time.Second, lose},
		"lost, which is not listed":    {&running, other, 7, time.Second, lose},
		"lost, at its latest start":    {&running, once, 7, 33 * time.Second, proceed},
		"lost, and nobody could start": {&running, once, 7, 33*time.Second + 1, lose},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(c.rec, circumstances{c.sequence, 3, c.waited, now, &c.spec}); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
	for _, s := range faena.States {
		if s.Terminal() {
			if got := decide(&faena.Record{State: s, Sequence: 7}, circumstances{sequence: 7, spec: &once}); got != drop {
				t.Errorf("%s: got %d, want drop", s, got)
			}
		}
	}
}

func TestStands(t *testing.T) {
	rec := func(s faena.State, worker string, attempt int, seq uint64, wanted bool) *faena.Record {
		return &faena.Record{State: s, Worker: worker, Attempt: attempt, Sequence: seq, CancelRequested: wanted}
	}
	from := phase{lost: "w2", lostAttempt: 1} // taken over, not claimed
	self := phase{lost: "w1", lostAttempt: 1}
	for name, c := range map[string]struct {
		rec  *faena.Record
		at   phase
		want standing
	}{
		"gone":                            {nil, phase{attempt: 1}, superseded},
		"terminal":                        {rec(faena.StateLost, "w1", 1, 7, false), phase{attempt: 1}, superseded},
		"queued, not claimed":             {rec(faena.StateQueued, "", 0, 0, false), phase{}, ours},
		"queued, cancelled":               {rec(faena.StateQueued, "", 0, 0, true), phase{}, wanted},
		"claimed since it was looked at":  {rec(faena.StateRunning, "w1", 1, 7, false), phase{}, ours},
		"running, ours":                   {rec(faena.StateRunning, "w1", 1, 7, false), phase{attempt: 1}, ours},
		"running, ours, cancelled":        {rec(faena.StateRunning, "w1", 1, 7, true), phase{attempt: 1}, wanted},
		"running, another worker":         {rec(faena.StateRunning, "w2", 1, 7, false), phase{attempt: 1}, superseded},
		"running, another attempt":        {rec(faena.StateRunning, "w1", 2, 7, false), phase{attempt: 1}, superseded},
		"running, another message":        {rec(faena.StateRunning, "w1", 1, 9, false), phase{}, superseded},
		"queued again while ours is held": {rec(faena.StateQueued, "w1", 1, 7, false), phase{attempt: 1}, superseded},
		"queued again, without a worker":  {rec(faena.StateQueued, "", 1, 0, false), phase{attempt: 1}, superseded},

		"put into the backlog":                 {&faena.Record{State: faena.StateQueued, Backlogged: true}, phase{}, superseded},
		"taken over, as it was found":          {rec(faena.StateRunning, "w2", 1, 7, false), from, ours},
		"taken over, cancelled":                {rec(faena.StateRunning, "w2", 1, 7, true), from, wanted},
		"taken over, and claimed":              {rec(faena.StateRunning, "w1", 2, 7, false), from, ours},
		"taken over by somebody else":          {rec(faena.StateRunning, "w3", 2, 7, false), from, superseded},
		"taken over by whom it was lost":       {rec(faena.StateRunning, "w2", 2, 7, false), from, superseded},
		"taken over, queued by whom it was of": {rec(faena.StateQueued, "", 1, 0, false), from, ours},
		"from an earlier life, as it was":      {rec(faena.StateRunning, "w1", 1, 7, false), self, ours},
		"from an earlier life, and claimed":    {rec(faena.StateRunning, "w1", 2, 7, false), self, ours},
		"from an earlier life, once too often": {rec(faena.StateRunning, "w1", 3, 7, false), phase{attempt: 2, lost: "w1", lostAttempt: 1}, superseded},
	} {
		t.Run(name, func(t *testing.T) {
			if got := stands(c.rec, "w1", c.at, 7); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestStartFailure(t *testing.T) {
	for errno, want := range map[string]faena.Reason{
		"ENOENT": faena.ReasonNoCommand, "ENOTDIR": faena.ReasonNoCommand, "EACCES": faena.ReasonExecFormat,
		"ENOEXEC": faena.ReasonExecFormat, "E2BIG": faena.ReasonStartFailed, "EAGAIN": faena.ReasonStartFailed,
	} {
		reason, message := startFailure([]string{"/bin/tool"}, errno)
		if reason != want || message == "" {
			t.Errorf("%s: got %s (%s), want %s", errno, reason, message, want)
		}
	}
}

func TestRegistryHost(t *testing.T) {
	for ref, want := range map[string]string{
		"registry.example.org/team/image@sha256:1": "registry.example.org",
		"127.0.0.1:5000/image@sha256:1":            "127.0.0.1:5000",
		"localhost/image@sha256:1":                 "localhost",
		"library/alpine@sha256:1":                  "index.docker.io",
		"alpine@sha256:1":                          "index.docker.io",
	} {
		if got := registryHost(ref); got != want {
			t.Errorf("%s: got %s, want %s", ref, got, want)
		}
	}
}

// TestSameEnd: a try whose answer was lost is known again by what came of it, also where a later try ended at another moment.
func TestSameEnd(t *testing.T) {
	now := time.Now()
	requeued := func(attempt int, worker string, reason faena.Reason, ended time.Time) *faena.Record {
		r := &faena.Record{State: faena.StateRunning, Worker: worker, Attempt: attempt, StartWithinMS: 1000}
		for n := range attempt - 1 {
			r.Failures = append(r.Failures, faena.Failure{Attempt: n + 1, Reason: faena.ReasonTimeout, Worker: "w0"})
		}
		if err := r.Requeue(reason, "", time.Second, 0, nil, ended, ended); err != nil {
			t.Fatal(err)
		}
		return r
	}
	tried := requeued(2, "w1", faena.ReasonTimeout, now)
	claimed := requeued(2, "w1", faena.ReasonTimeout, now.Add(-time.Second))
	if err := claimed.Claim("w2", 7, now); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		found *faena.Record
		want  bool
	}{
		"by an earlier try":      {requeued(2, "w1", faena.ReasonTimeout, now.Add(-time.Second)), true},
		"and claimed since":      {claimed, true},
		"by another worker":      {requeued(2, "w2", faena.ReasonTimeout, now), false},
		"for another reason":     {requeued(2, "w1", faena.ReasonWorkerLost, now), false},
		"of the attempt before":  {requeued(1, "w1", faena.ReasonTimeout, now), false},
		"running as it was":      {&faena.Record{State: faena.StateRunning, Worker: "w1", Attempt: 2, Failures: tried.Failures[:1]}, false},
		"ended before it began":  {&faena.Record{State: faena.StateLost}, false},
		"by the next one's end":  {requeued(3, "w1", faena.ReasonTimeout, now), false},
		"by this try, as stored": {tried, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sameEnd(c.found, tried); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
