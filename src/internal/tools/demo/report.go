package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"faena.dev/faena/internal/client"
)

// call is one activation: what the record says of its stages, and how long the whole call took here.
type call struct {
	timings client.Timings
	http    time.Duration
}

// row is what became of a function.
type row struct {
	f       *function
	summary string
	first   call
	warm    []call
}

// median is the middle of the warm calls by one of their times.
func (r row) median(of func(call) time.Duration) time.Duration {
	times := make([]time.Duration, 0, len(r.warm))
	for _, c := range r.warm {
		times = append(times, of(c))
	}
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[(len(times)-1)/2]
}

func queue(c call) time.Duration  { return micro(c.timings.QueueUs) }
func pull(c call) time.Duration   { return micro(c.timings.PullUs) }
func start(c call) time.Duration  { return micro(c.timings.StartUs) }
func ran(c call) time.Duration    { return micro(c.timings.RunUs) }
func total(c call) time.Duration  { return micro(c.timings.TotalUs) }
func wholly(c call) time.Duration { return c.http }

func micro(us int64) time.Duration { return time.Duration(us) * time.Microsecond }

// writeResult prints what a function answered, with its timings.
func writeResult(out io.Writer, r row) error {
	_, err := fmt.Fprintf(out, "\n%s: %s\n  parameter  %s\n  result     %s\n  sha256     %x: what docker run gives\n"+
		"  first      queue %s, pull %s, start %s, run %s, total %s\n  warm       queue %s, start %s, run %s, total %s; over HTTP %s (median of %d)\n  docker run %s\n",
		r.f.name, r.f.about, parameter(r.f), oneLine(r.summary, 110), sha256.Sum256(r.f.want),
		ms(queue(r.first)), ms(pull(r.first)), ms(start(r.first)), ms(ran(r.first)), ms(total(r.first)),
		ms(r.median(queue)), ms(r.median(start)), ms(r.median(ran)), ms(r.median(total)), ms(r.median(wholly)), len(r.warm), ms(r.f.took))
	return err
}

func parameter(f *function) string {
	if f.asArgument() {
		return string(f.parameter)
	}
	return size(len(f.parameter)) + " on standard input"
}

// writeTable prints the last word: all functions side by side.
func writeTable(out io.Writer, rows []row) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nfunction\tresult\tfirst: pull\tstart\trun\ttotal\twarm: queue\trun\ttotal\thttp\tdocker run\n")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.f.name, oneLine(r.summary, 34),
			ms(pull(r.first)), ms(start(r.first)), ms(ran(r.first)), ms(total(r.first)),
			ms(r.median(queue)), ms(r.median(ran)), ms(r.median(total)), ms(r.median(wholly)), ms(r.f.took))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// ms writes a time so that three digits are read.
func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f ms", v)
	case v < 1000:
		return fmt.Sprintf("%.0f ms", v)
	default:
		return fmt.Sprintf("%.1f s", v/1000)
	}
}

func size(n int) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	default:
		return fmt.Sprintf("%d MiB", n>>20)
	}
}
