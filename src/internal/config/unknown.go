package config

import (
	"fmt"
	"slices"
	"strings"
)

const listed = "all settings are in docs/settings.md (/usr/share/doc/faena-cli)"

func (*Up) listed() string     { return listed }
func (*API) listed() string    { return listed + ", and in /etc/faena/api.env of the package" }
func (*Worker) listed() string { return listed + ", and in /etc/faena/worker.env of the package" }

// unknown reports the FAENA_ variables that are no setting of this daemon, and what to do about each. list says where the settings are listed.
func unknown(env environment, settings []Setting, known []string, list string) (problems Problems) {
	names := make([]string, 0, len(settings))
	for _, s := range settings {
		names = append(names, s.Name)
	}
	for name := range env {
		if !strings.HasPrefix(name, prefix) || slices.Contains(names, name) || slices.Contains(known, name) {
			continue
		}
		text := "is no setting of this daemon"
		if other := owner(name); other != "" {
			text += fmt.Sprintf(", it is one of %s: remove it here", other)
		} else if near := nearest(name, names); near != "" {
			text += fmt.Sprintf("; %s is: correct the name, or remove it", near)
		} else {
			text += ": remove it; " + list
		}
		problems = append(problems, Problem{name, text})
	}
	return problems
}

// owner names a daemon that has the setting.
func owner(name string) string {
	for _, d := range []struct {
		name     string
		settings []Setting
	}{{"faena-api", Settings(&API{})}, {"faena-worker", Settings(&Worker{})}, {"faena up", Settings(&Up{})}} {
		if slices.ContainsFunc(d.settings, func(s Setting) bool { return s.Name == name }) {
			return d.name
		}
	}
	return ""
}

// nearest is the name that was probably meant, or nothing.
func nearest(name string, names []string) string {
	most := min(3, (len(name)-len(prefix))/2) // edits; beyond that it is a guess
	best, least := "", most+1
	for _, candidate := range names {
		if d := distance(name, candidate); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance is how many letters must be added, removed or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
