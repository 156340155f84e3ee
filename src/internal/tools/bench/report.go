package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// sample is the durations of one row, in the order they were measured.
type sample []time.Duration

// at returns the q-quantile, 0 ≤ q ≤ 1, by nearest rank.
func (s sample) at(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Clone(s)
	slices.Sort(sorted)
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// row is one measured way of running the program.
type row struct {
	name string
	s    sample
	rate float64 // per second, of all clients together; 0 where it was one after the other
}

// budget is one line of design section 9.
type budget struct {
	name  string
	value float64
	bound float64
	least bool // value must be at least bound; otherwise at most
	unit  string
}

func (b budget) met() bool { return (b.value >= b.bound) == b.least || b.value == b.bound }

type table struct {
	machine string
	rows    []row
	budgets []budget
	notes   []string
}

func (t *table) missed() bool {
	return slices.ContainsFunc(t.budgets, func(b budget) bool { return !b.met() })
}

// String is the table in Markdown, as docs/benchmarks.md holds it.
func (t *table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", t.machine)
	if len(t.rows) > 0 {
		fmt.Fprintf(&b, "\n| what | runs | p50 | p95 | p99 | per second |\n|---|--:|--:|--:|--:|--:|\n")
	}
	for _, r := range t.rows {
		rate := r.rate
		if rate == 0 {
			var sum time.Duration
			for _, d := range r.s {
				sum += d
			}
			rate = float64(len(r.s)) / sum.Seconds()
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %.0f |\n", r.name, len(r.s), ms(r.s.at(.5)), ms(r.s.at(.95)), ms(r.s.at(.99)), rate)
	}
	fmt.Fprintf(&b, "\n| budget | measured | bound | |\n|---|--:|--:|---|\n")
	for _, x := range t.budgets {
		sign, verdict := "≤", "met"
		if x.least {
			sign = "≥"
		}
		if !x.met() {
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %.2f%s | %s %g%s | %s |\n", x.name, x.value, x.unit, sign, x.bound, x.unit, verdict)
	}
	for _, n := range t.notes {
		fmt.Fprintf(&b, "\n%s\n", n)
	}
	return b.String()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond)) }
