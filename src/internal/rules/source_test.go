package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// module is the path of the Go module, and root its directory seen from here. The files are parsed by the tests
// themselves: what a command prints about them may come from the cache of another day.
const (
	module = "faena.dev/faena"
	root   = "../.."
)

// file is a Go file.
type file struct {
	path      string // below the module's root, with slashes
	text      string
	set       *token.FileSet
	ast       *ast.File
	generated bool
}

// dir is the file's package, below the module's root.
func (f *file) dir() string {
	dir, _, _ := cutLast(f.path, "/")
	return dir
}

func (f *file) test() bool { return strings.HasSuffix(f.path, "_test.go") }

// line is the line of a position.
func (f *file) line(p token.Pos) int { return f.set.Position(p).Line }

// imports are the paths that the file imports.
func (f *file) imports() []string {
	paths := make([]string, 0, len(f.ast.Imports))
	for _, spec := range f.ast.Imports {
		paths = append(paths, strings.Trim(spec.Path.Value, `"`))
	}
	return paths
}

func parse(path, text string) (*file, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &file{path: path, text: text, set: set, ast: tree, generated: ast.IsGenerated(tree)}, nil
}

var load = sync.OnceValues(func() (files []*file, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "testdata" {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		f, err := parse(filepath.ToSlash(rel), string(text))
		if err == nil {
			files = append(files, f)
		}
		return err
	})
	return files, err
})

// source is every Go file of the module.
func source(t *testing.T) []*file {
	t.Helper()
	files, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("only %d files were found: the rules look in the wrong place", len(files))
	}
	return files
}

// calls are the positions where the file calls one of the functions, each written as package.Name with the import's
// last element, or as .Name for a method of anything.
func (f *file) calls(names ...string) (found []token.Pos) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		of, _ := sel.X.(*ast.Ident)
		for _, name := range names {
			pkg, fn, _ := cutLast(name, ".")
			if sel.Sel.Name == fn && (pkg == "" || of != nil && of.Name == pkg) {
				found = append(found, sel.Pos())
			}
		}
		return true
	})
	return found
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}
