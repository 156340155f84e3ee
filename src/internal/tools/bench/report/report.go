// Package report is the result of a benchmark as docs/benchmarks.md holds it: what was measured, the budgets with their
// verdicts, and what else is worth saying.
package report

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Sample is how long each run of one kind took, in the order in which they were measured.
type Sample []time.Duration

// At returns the q-quantile, 0 ≤ q ≤ 1, by nearest rank; of nothing it is 0.
func (s Sample) At(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Clone(s)
	slices.Sort(sorted)
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// row is one way of running the program.
type row struct {
	name string
	s    Sample
	rate float64 // per second, of all clients together; 0 where it was one after the other
}

// budget is what was measured and what it may be.
type budget struct {
	name  string
	value float64
	bound float64
	least bool // value must be at least bound; otherwise at most
	unit  string
}

func (b budget) met() bool { return (b.value >= b.bound) == b.least || b.value == b.bound }

// grid is a table of its own below the budgets.
type grid struct {
	title string
	head  []string
	rows  [][]string
}

// Table is the result of one run. Its zero value is empty. Not safe for concurrent use.
type Table struct {
	rows    []row
	budgets []budget
	grids   []grid
	notes   []string
}

// Row adds what was measured of one kind of run. rate is how many a second all clients together made; 0 where they came
// one after the other.
func (t *Table) Row(name string, s Sample, rate float64) {
	t.rows = append(t.rows, row{name, s, rate})
}

// Median is the one of a row that was added, or 0.
func (t *Table) Median(name string) time.Duration {
	for _, r := range t.rows {
		if r.name == name {
			return r.s.At(.5)
		}
	}
	return 0
}

// AtMost adds a value that must not be above a bound.
func (t *Table) AtMost(name string, value, bound float64, unit string) {
	t.budgets = append(t.budgets, budget{name, value, bound, false, unit})
}

// AtLeast adds a value that must not be below a bound.
func (t *Table) AtLeast(name string, value, bound float64, unit string) {
	t.budgets = append(t.budgets, budget{name, value, bound, true, unit})
}

// Grid adds a table below the budgets; its first column is words, all others are numbers.
func (t *Table) Grid(title string, head []string, rows [][]string) {
	t.grids = append(t.grids, grid{title, head, rows})
}

// Note adds a paragraph at the end.
func (t *Table) Note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// Missed are the names of the budgets that were not met.
func (t *Table) Missed() (names []string) {
	for _, b := range t.budgets {
		if !b.met() {
			names = append(names, b.name)
		}
	}
	return names
}

// String is the table in Markdown.
func (t *Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", machine())
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
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %.0f |\n", r.name, len(r.s), ms(r.s.At(.5)), ms(r.s.At(.95)), ms(r.s.At(.99)), rate)
	}
	if len(t.budgets) > 0 {
		fmt.Fprintf(&b, "\n| budget | measured | bound | |\n|---|--:|--:|---|\n")
	}
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
	for _, g := range t.grids {
		fmt.Fprintf(&b, "\n%s\n\n| %s |\n|---|%s\n", g.title, strings.Join(g.head, " | "), strings.Repeat("--:|", len(g.head)-1))
		for _, r := range g.rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(r, " | "))
		}
	}
	for _, n := range t.notes {
		fmt.Fprintf(&b, "\n%s\n", n)
	}
	return b.String()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond)) }

func machine() string {
	cpu := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(text), "\n") {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				cpu = strings.TrimLeft(name, "\t :")
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores (%s), %s", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), cpu, runtime.Version())
}
