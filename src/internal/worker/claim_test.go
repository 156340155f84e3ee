package worker

import (
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

func TestDecide(t *testing.T) {
	queued := faena.Record{State: faena.StateQueued, StartWithinMS: 1000}
	running := faena.Record{State: faena.StateRunning, Worker: "w2", Attempt: 1, Sequence: 7, StartWithinMS: 1000}
	with := func(r faena.Record, change func(*faena.Record)) *faena.Record { change(&r); return &r }
	for name, c := range map[string]struct {
		rec      *faena.Record
		sequence uint64
		waited   time.Duration
		want     verdict
	}{
		"absent":                      {nil, 7, 0, drop},
		"queued":                      {&queued, 7, 0, proceed},
		"queued, at its latest start": {&queued, 7, time.Second, proceed},
		"queued, past it":             {&queued, 7, time.Second + 1, expire},
		"queued, cancelled":           {with(queued, func(r *faena.Record) { r.CancelRequested = true }), 7, 0, cancel},
		"queued, cancelled and past":  {with(queued, func(r *faena.Record) { r.CancelRequested = true }), 7, time.Hour, cancel},
		"running, redelivery":         {&running, 7, 0, lose},
		"running, redelivery, past":   {&running, 7, time.Hour, lose},
		"running, a copy":             {&running, 8, 0, drop},
		"running, an earlier copy":    {&running, 6, time.Hour, drop},
		"running, cancelled, redelivery": {
			with(running, func(r *faena.Record) { r.CancelRequested = true }), 7, 0, lose},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(c.rec, c.sequence, c.waited); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
	for _, s := range faena.States {
		if s.Terminal() {
			if got := decide(&faena.Record{State: s, Sequence: 7}, 7, 0); got != drop {
				t.Errorf("%s: got %d, want drop", s, got)
			}
		}
	}
}

func TestStands(t *testing.T) {
	rec := func(s faena.State, worker string, attempt int, seq uint64, wanted bool) *faena.Record {
		return &faena.Record{State: s, Worker: worker, Attempt: attempt, Sequence: seq, CancelRequested: wanted}
	}
	for name, c := range map[string]struct {
		rec     *faena.Record
		attempt int
		want    standing
	}{
		"gone":                            {nil, 1, superseded},
		"terminal":                        {rec(faena.StateLost, "w1", 1, 7, false), 1, superseded},
		"queued, not claimed":             {rec(faena.StateQueued, "", 0, 0, false), 0, ours},
		"queued, cancelled":               {rec(faena.StateQueued, "", 0, 0, true), 0, wanted},
		"claimed since it was looked at":  {rec(faena.StateRunning, "w1", 1, 7, false), 0, ours},
		"running, ours":                   {rec(faena.StateRunning, "w1", 1, 7, false), 1, ours},
		"running, ours, cancelled":        {rec(faena.StateRunning, "w1", 1, 7, true), 1, wanted},
		"running, another worker":         {rec(faena.StateRunning, "w2", 1, 7, false), 1, superseded},
		"running, another attempt":        {rec(faena.StateRunning, "w1", 2, 7, false), 1, superseded},
		"running, another message":        {rec(faena.StateRunning, "w1", 1, 9, false), 0, superseded},
		"queued again while ours is held": {rec(faena.StateQueued, "w1", 1, 7, false), 1, superseded},
	} {
		t.Run(name, func(t *testing.T) {
			if got := stands(c.rec, "w1", c.attempt, 7); got != c.want {
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
