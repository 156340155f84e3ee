package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"faena.dev/faena/internal/tools/chaos/history"
)

// report is what a run leaves: as text, and as JSON.
type report struct {
	dir string

	mu       sync.Mutex
	Seed     uint64          `json:"seed"`
	Began    time.Time       `json:"began"`
	Ended    time.Time       `json:"ended"`
	Whole    bool            `json:"whole"` // it came to its end
	Rounds   []*entry        `json:"rounds"`
	Numbers  history.Numbers `json:"numbers"`
	Breaches []found         `json:"breaches"`
}

// entry is a round.
type entry struct {
	Name      string        `json:"name"`
	Faults    []string      `json:"faults"`
	Began     time.Time     `json:"began"`
	Healed    time.Time     `json:"healed"`
	Recovered time.Time     `json:"recovered"`
	Gap       time.Duration `json:"longest_gap_ns"` // between two good answers
	Held      int           `json:"held"`           // what workers that were stopped ran then
	Recovery  time.Duration `json:"recovery_ns"`    // at most, until each of that had ended or was run again
}

func (e *entry) held() string {
	if e.Held == 0 {
		return ""
	}
	return fmt.Sprintf("%.1fs", e.Recovery.Seconds())
}

// found is a breach, and the rounds that it may be of.
type found struct {
	history.Breach
	Rounds []string `json:"rounds"`
}

func newReport(o options) *report { return &report{dir: o.report, Seed: o.seed, Began: time.Now()} }

func (r *report) begin(name string, faults []string) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &entry{Name: name, Faults: faults, Began: time.Now()}
	r.Rounds = append(r.Rounds, e)
	return e
}

// breach notes a breach, unless it is known.
func (r *report) breach(b history.Breach) (isNew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(b.IDs)
	if b.At.IsZero() && len(b.IDs) > 0 {
		b.At = madeAt(b.IDs[0])
	}
	if slices.ContainsFunc(r.Breaches, func(f found) bool { return f.Invariant == b.Invariant && slices.Equal(f.IDs, b.IDs) }) {
		return false
	}
	f := found{Breach: b}
	for _, e := range r.Rounds {
		if !b.At.IsZero() && b.At.After(e.Began.Add(-time.Second)) && (e.Recovered.IsZero() || b.At.Before(e.Recovered.Add(time.Second))) {
			f.Rounds = append(f.Rounds, e.Name+" ("+strings.Join(e.Faults, ", ")+")")
		}
	}
	r.Breaches = append(r.Breaches, f)
	return true
}

// madeAt is when an activation was accepted, by its id, which is a UUIDv7.
func madeAt(id string) (at time.Time) {
	var ms int64
	if _, err := fmt.Sscanf(strings.ReplaceAll(id, "-", ""), "%12x", &ms); err == nil {
		at = time.UnixMilli(ms)
	}
	return at
}

// write writes both files, and returns an error that names what did not hold.
func (r *report) write(n history.Numbers, whole bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Ended, r.Numbers, r.Whole = time.Now(), n, whole
	text := r.text()
	fmt.Print(text)
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	errs := []error{os.MkdirAll(r.dir, 0o755), os.WriteFile(filepath.Join(r.dir, "report.json"), append(body, '\n'), 0o644),
		os.WriteFile(filepath.Join(r.dir, "report.txt"), []byte(text), 0o644)}
	for _, b := range r.Breaches {
		during := "no fault in particular"
		if len(b.Rounds) > 0 {
			during = strings.Join(b.Rounds, "; ")
		}
		errs = append(errs, fmt.Errorf("%s [%s]", b.Breach, during))
	}
	return errors.Join(errs...)
}

func (r *report) text() string {
	var b strings.Builder
	n := r.Numbers
	fmt.Fprintf(&b, "seed %d, %s to %s, %v\n\n", r.Seed, r.Began.Format(time.DateTime), r.Ended.Format(time.TimeOnly), r.Ended.Sub(r.Began).Round(time.Second))
	fmt.Fprintf(&b, "%-8s  %8s  %8s  %8s  %8s  %s\n", "began", "healed", "well", "gap", "held for", "faults")
	for _, e := range r.Rounds {
		fmt.Fprintf(&b, "%s  %7.1fs  %7.1fs  %7.2fs  %8s  %s\n", e.Began.Format(time.TimeOnly), e.Healed.Sub(e.Began).Seconds(), e.Recovered.Sub(e.Began).Seconds(), e.Gap.Seconds(),
			e.held(), strings.Join(e.Faults, "; "))
	}
	fmt.Fprintf(&b, "\n%6d calls: %d refused, %d whose outcome nobody told\n", n.Calls, n.Refused, n.Unknown)
	fmt.Fprintf(&b, "%6d accepted\n%6d settled, %d of them succeeded, %d are lost with their worker\n", n.Accepted, n.Settled, n.Succeeded, n.WorkerLost)
	open := "lost"
	if !r.Whole {
		open = "not seen to their end, since the run was stopped"
	}
	fmt.Fprintf(&b, "%6d run more than once\n%6d %s\n%6d breaches of what must hold\n", n.RanTwice, n.Open, open, len(r.Breaches))
	for _, f := range r.Breaches {
		fmt.Fprintf(&b, "\n  %s\n    during: %s\n", f.Breach, strings.Join(f.Rounds, "; "))
	}
	return b.String()
}
