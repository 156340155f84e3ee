package kills_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"faena.dev/faena/internal/faenatest"
)

// TestCovered: there is a case for every failpoint of the sources. A case says the failpoint's name as a constant.
func TestCovered(t *testing.T) {
	points := faenatest.Failpoints(t)
	covered := make(map[string]bool)
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
				if s, err := strconv.Unquote(text.Value); err == nil && slices.Contains(points, s) {
					covered[s] = true
				}
			}
			return true
		})
	}
	for _, p := range points {
		if !covered[p] {
			t.Errorf("no case kills a process at %s", p)
		}
	}
}
