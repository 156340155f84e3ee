package faenatest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var failpointName = regexp.MustCompile(`^(api|recorder|leader|worker|bus)/[a-z]+(-[a-z]+)*$`)

// Failpoints are the names of all failpoints in the sources, in order. It fails the test where one is no constant, stands twice, or
// has a form that package failpoint does not describe.
func Failpoints(t testing.TB) (names []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(SourceDir(t), "internal"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if of, fn := selector(call); of != "failpoint" || fn != "Hit" {
				return true
			}
			name := ""
			if text, ok := call.Args[0].(*ast.BasicLit); ok {
				name, _ = strconv.Unquote(text.Value)
			}
			if !failpointName.MatchString(name) || slices.Contains(names, name) {
				t.Errorf("%s: failpoint %q is no constant of the form AREA/STEP, or stands twice", set.Position(call.Pos()), name)
			}
			names = append(names, name)
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 10 {
		t.Fatalf("only the failpoints %q were found", names)
	}
	slices.Sort(names)
	return names
}

// selector takes a call of the form of.fn() apart.
func selector(call *ast.CallExpr) (of, fn string) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	if id, ok := sel.X.(*ast.Ident); ok {
		of = id.Name
	}
	return of, sel.Sel.Name
}
