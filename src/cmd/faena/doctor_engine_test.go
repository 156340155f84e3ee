package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"faena.dev/faena/internal/faena"
)

// Advice of engines that work says which workers it concerns, why, and what to do, and does not make the doctor say that something is
// wrong.
func TestDoctor_Advice(t *testing.T) {
	t.Parallel()
	a, c := newCluster(t)
	slices.SortFunc(c.workers, func(a, b faena.Worker) int { return strings.Compare(a.ID, b.ID) })
	if found, code := a.examined(); code != exitOK || strings.Contains(found, "docker engine") {
		t.Errorf("of older workers, which say nothing, with %d:\n%s", code, found)
	}
	c.change(func() {
		for i := range 6 {
			w := c.workers[i%3]
			if i >= 3 {
				w.ID = "x" + strconv.Itoa(i)
				c.workers = append(c.workers, w)
			}
		}
		for i := range c.workers {
			c.workers[i].Engine = &faena.Engine{Version: "28.5.2", Advice: []string{faena.AdviceNoLiveRestore}}
		}
		c.workers[0].Engine = &faena.Engine{Version: "20.10.24", Advice: []string{faena.AdviceStorageDriver + "=v\x1bfs", faena.AdviceDiskHigh + "=91", "of_the_future=\x1b"}}
		c.workers[1].Engine = &faena.Engine{Version: "28.5.2"}
		c.workers[2].Engine = nil
		c.workers = append(c.workers, faena.Worker{ID: "x6", Group: "batch", Engine: c.workers[3].Engine}, faena.Worker{ID: "x7", Group: "batch", Engine: c.workers[3].Engine})
	})
	found, code := a.examined()
	for _, want := range []string{
		"docker engines ok of 7 workers, version 20.10.24 and 28.5.2\n",
		`docker engines advice x3, x4, x5, x6 and 1 more: whatever restarts the engine, an upgrade of it too, kills the functions that run: "live-restore": true in /etc/docker/daemon.json, `,
		`docker engines advice w1: the engine's storage driver is v?fs; `,
		"docker engines advice w1: 91 % of the disk is in use, ",
		`docker engines advice w1: a newer worker says "of_the_future=\x1b", which this faena has no words for: upgrade it`,
	} {
		if !strings.Contains(found, "\n"+want) {
			t.Errorf("there is no %q:\n%s", want, found)
		}
	}
	if code != exitOK || strings.Contains(found, "BAD") {
		t.Errorf("it ends with %d:\n%s", code, found)
	}
	said := 0
	for _, f := range decode[[]finding](a, "doctor") {
		if f.Advice {
			said++
		}
	}
	if said != 4 {
		t.Errorf("in JSON there are %d advices", said)
	}
}

// There are words for each code that a worker may say, with a place for the detail where it has one.
func TestAdviceWords(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../internal/faena/worker.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Advice") {
			return true
		}
		codes++
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		w, known := adviceWords[code]
		if !known || !strings.Contains(w.text, ": ") {
			t.Errorf("%s has the words %q", code, w.text)
		}
		if strings.HasPrefix(spec.Comment.Text(), "=") != strings.Contains(w.text, "%s") {
			t.Errorf("%s has a detail, or none, other than its words: %q", code, w.text)
		}
		return true
	})
	if codes == 0 || codes != len(adviceWords) {
		t.Errorf("there are %d codes and words for %d", codes, len(adviceWords))
	}
}
