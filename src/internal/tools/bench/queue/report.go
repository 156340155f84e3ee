package queue

import (
	"fmt"
	"time"

	"faena.dev/faena/internal/tools/bench/report"
)

// What is called flat: private memory may be so much more at the end than when a tenth was done. A leak of a fifth of a
// kilobyte for each activation would show.
const (
	flat = 16e6
	// maxServer is what the NATS server may take, holding all and giving them away. It keeps all that it has written in the last
	// half minute, so that what it takes before it has held them for a while is a matter of how fast they came: it is told, not
	// judged.
	maxServer = 200e6
)

// Whose memory is measured, and when.
const (
	api, worker, nats       = "API", "worker", "NATS"
	queueing, held, running = "while they are queued", "all queued", "while they run"
)

// Twice is how many activations may have run more than once, by whatever was counted: the records, the function itself,
// and the worker.
func (r *Result) Twice() int { return max(r.Repeated, r.Settled+r.Abandoned-r.N, 0) }

// Report holds the result against the budgets. The NATS server's are left out where nothing was held.
func (r *Result) Report(t *report.Table) {
	t.AtMost(fmt.Sprintf("lost of %d queued activations", r.N), float64(r.Lost), 0, "")
	t.AtMost("run more than once", float64(r.Twice()), 0, "")
	t.AtMost("left in the queue at the end", float64(r.LeftQueued), 0, "")
	t.AtMost("left in the bucket of live records at the end", float64(r.Live), 0, "")
	for _, c := range r.courses() {
		if c.part != nats && c.when != held {
			t.AtMost(fmt.Sprintf("memory of the %s, %s: more at the end than at a tenth", c.part, c.when), float64(c.Growth())/1e6, flat/1e6, " MB")
		}
	}
	if r.Held > 0 {
		t.AtMost("memory of NATS, all queued", float64(r.Holding[nats].Late().Resident)/1e6, maxServer/1e6, " MB")
		t.AtMost("memory of NATS, "+running+", at most", float64(r.Draining[nats].Peak().Resident)/1e6, maxServer/1e6, " MB")
	}
	var rows [][]string
	for _, c := range r.courses() {
		early, late, peak := c.Early(), c.Late(), c.Peak()
		rows = append(rows, []string{c.part + ", " + c.when, mb(early.Resident), mb(late.Resident), mb(peak.Resident), mb(early.Private), mb(late.Private), mb(peak.Private)})
	}
	t.Grid("Memory in MB: resident, and of that private, which is no page of a file.",
		[]string{"part", "at a tenth", "at the end", "at most", "private, at a tenth", "at the end", "at most"}, rows)
	t.Note("%d activations of %d users, %d bytes each, were queued in %s, %.0f a second, while there was no worker; the messages, %d of them in the backlog, are %d MB, the records %d MB.",
		r.N, r.Users, ParameterBytes, r.Queued.Round(100*time.Millisecond), float64(r.N)/r.Queued.Seconds(), r.InBacklog, r.QueueBytes/1e6, r.RecordBytes/1e6)
	t.Note("One worker ran them in %s from its start, %.0f a second, in %d containers, until the last record was in the document store.",
		r.Drained.Round(100*time.Millisecond), float64(r.N)/r.Drained.Seconds(), r.Containers)
	t.Note("The server gave %d messages away; the worker says that it ended %d activations and gave up %d.", r.Deliveries, r.Settled, r.Abandoned)
}

type courseOf struct {
	*Course
	part, when string
}

// courses are all that were taken, in the order of a report.
func (r *Result) courses() (all []courseOf) {
	for _, part := range []string{api, worker, nats} {
		for _, c := range []courseOf{{r.Filling[part], part, queueing}, {r.Holding[part], part, held}, {r.Draining[part], part, running}} {
			if c.Course != nil {
				all = append(all, c)
			}
		}
	}
	return all
}

func mb(bytes int64) string { return fmt.Sprintf("%.0f", float64(bytes)/1e6) }
