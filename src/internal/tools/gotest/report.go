package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxOutput is how much is kept of what one test prints, its end.
const maxOutput = 256 << 10

var errFailed = errors.New("the tests have not passed")

// report prints what happens and counts it.
type report struct {
	out                     io.Writer
	passed, failed, skipped int
	packages                int
	problems                int // that belong to no test
	running                 map[string]*suite
	builds                  map[string]*tail // what the compiler says, by package
}

// suite is the tests of one package while they run.
type suite struct {
	began   time.Time
	tests   int
	failed  int
	outputs map[string]*tail // of each test that has not passed; "" is the package's own
}

// tail keeps the end of what is written to it.
type tail struct{ text []byte }

func (t *tail) write(s string) {
	t.text = append(t.text, s...)
	if len(t.text) > 2*maxOutput {
		t.text = append(t.text[:0], t.text[len(t.text)-maxOutput:]...)
	}
}

func newReport(out io.Writer) *report {
	return &report{out: out, running: map[string]*suite{}, builds: map[string]*tail{}}
}

// add takes one event into account.
func (r *report) add(e event) {
	if e.Action == "build-output" {
		keep(r.builds, strings.Fields(e.ImportPath + " ")[0]).write(e.Output)
		return
	}
	if e.Package == "" {
		if strings.TrimSpace(e.Output) != "" {
			fmt.Fprint(r.out, e.Output)
		}
		return
	}
	s := r.running[e.Package]
	if s == nil {
		s = &suite{began: time.Now(), outputs: map[string]*tail{}}
		r.running[e.Package] = s
	}
	switch {
	case e.Action == "output":
		keep(s.outputs, e.Test).write(e.Output)
	case e.Test != "":
		r.test(e, s)
	default:
		r.suite(e, s)
	}
}

func keep(m map[string]*tail, key string) *tail {
	if m[key] == nil {
		m[key] = &tail{}
	}
	return m[key]
}

// test counts a test that has ended.
func (r *report) test(e event, s *suite) {
	switch e.Action {
	case "pass":
		r.passed++
		s.tests++
		delete(s.outputs, e.Test)
	case "fail", "skip":
		s.tests++
		s.failed++
		if e.Action == "fail" {
			r.failed++
		} else {
			r.skipped++
		}
		fmt.Fprintf(r.out, "--- %s %s %s (%.1f s)\n", strings.ToUpper(e.Action), e.Package, e.Test, e.Elapsed)
		r.print(s.outputs[e.Test])
		delete(s.outputs, e.Test)
	}
}

// suite ends a package.
func (r *report) suite(e event, s *suite) {
	switch e.Action {
	case "pass":
		r.packages++
		fmt.Fprintf(r.out, "ok   %s: %d tests, %.1f s\n", e.Package, s.tests, e.Elapsed)
	case "skip":
		r.packages++
		fmt.Fprintf(r.out, "-    %s: no test files\n", e.Package)
	case "fail":
		r.packages++
		if s.failed == 0 { // it was not built, it panicked, or it ran out of time
			r.failed++
			r.print(r.builds[e.Package])
		}
		// A test that has not ended is why there is a failure without a test's: its words come with the package's.
		for _, test := range slices.Sorted(maps.Keys(s.outputs)) {
			r.print(s.outputs[test])
		}
		fmt.Fprintf(r.out, "FAIL %s: %.1f s\n", e.Package, e.Elapsed)
	default:
		return
	}
	delete(r.running, e.Package)
}

// print writes what was kept, moved in.
func (r *report) print(t *tail) {
	if t == nil {
		return
	}
	for line := range strings.Lines(string(t.text)) {
		fmt.Fprintf(r.out, "     %s\n", strings.TrimRight(line, "\n"))
	}
}

// progress says what is running.
func (r *report) progress() {
	for _, name := range slices.Sorted(maps.Keys(r.running)) {
		s := r.running[name]
		fmt.Fprintf(r.out, "...  %s: %d tests so far, %.0f s\n", name, s.tests, time.Since(s.began).Seconds())
	}
}

// problem prints something that keeps the run from passing and belongs to no test.
func (r *report) problem(text string) {
	r.problems++
	fmt.Fprintf(r.out, "FAIL %s\n", text)
}

// finish prints the count and says whether everything passed.
func (r *report) finish() error {
	if r.problems == 0 && r.packages == 0 {
		r.problem("there are no packages to test")
	} else if r.problems == 0 && r.passed+r.failed+r.skipped == 0 {
		r.problem("there are no tests")
	}
	if r.skipped > 0 {
		r.problem("tests were skipped, and what is not tested is not known to work")
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	if r.problems > 0 || r.failed > 0 {
		return errFailed
	}
	return nil
}
