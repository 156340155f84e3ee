package rules

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// Limits of length, in lines. Who meets one splits, by what belongs together.
const (
	maxFile     = 500
	maxFunction = 60
	maxMain     = 150 // of a program's main.go
)

// mayStartFromNothing are the places that begin a context of their own, each with its reason. Everywhere else it
// comes from the caller.
var mayStartFromNothing = map[string]string{
	"internal/httpapi/api.go":      "the context of event streams ends with the server, which has no other",
	"internal/telemetry/gauges.go": "a collector is given no context",
	"internal/faenatest/*":         "clean-up goes on after the test's context has ended",
}

// mayReadEnvironment are the packages outside config that look at the environment, each with its reason.
var mayReadEnvironment = map[string]string{
	"internal/config/*":     "it is the settings",
	"cmd/*":                 "a program hands its environment to config, and the command line has variables of its own",
	"internal/failpoint/*":  "what is armed, in a build with the tag failpoints alone: no released program reads it",
	"internal/tools/*":      "tools of the build run in the environment of make",
	"internal/endtoend/*":   "tests use the MongoDB, the Docker Engine and the path of their own environment",
	"internal/faenatest/*":  "tests use the Docker Engine that DOCKER_HOST names",
	"internal/ferrettest/*": "tests use the MongoDB that FAENA_TEST_MONGODB_URI names",
}

// rule is something that no file may do.
type rule struct {
	name  string
	check func(f *file) []string // complaints
	path  string                 // of a file that breaks the rule
	text  string                 // the text of that file, after its package clause
}

var rules = []rule{
	{"FilesAreShort", shortFiles, "internal/x/x.go", strings.Repeat("// line\n", maxFile)},
	{"FunctionsAreShort", shortFunctions, "internal/x/x.go", "func f() {\n" + strings.Repeat("_ = 1\n", maxFunction) + "}"},
	{"OnlyMainExits", forbid(func(f *file) bool { return !f.test() && path.Base(f.path) != "main.go" },
		"only main.go ends the process", "os.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln"),
		"internal/x/x.go", "import \"os\"\nfunc f() { os.Exit(1) }"},
	{"NobodyPanics", noPanic, "internal/x/x.go", `func f() { panic("no") }`},
	{"TestsDoNotSleep", forbid(func(f *file) bool { return f.test() }, "wait with faenatest.Eventually, which polls with a deadline",
		"time.Sleep"), "internal/x/x_test.go", "import \"time\"\nfunc f() { time.Sleep(1) }"},
	{"TestsDoNotSkip", forbid(func(f *file) bool { return f.test() || f.dir() == "internal/faenatest" },
		"what is missing fails the test", ".Skip", ".Skipf", ".SkipNow"),
		"internal/x/x_test.go", `func f(t *testing.T) { t.Skip("later") }`},
	{"ContextsComeFromTheCaller", forbid(func(f *file) bool {
		return !f.test() && path.Base(f.path) != "main.go" && !allowed(mayStartFromNothing, f.path)
	}, "the context comes from the caller", "context.Background", "context.TODO"),
		"internal/x/x.go", "import \"context\"\nvar c = context.Background()"},
	{"OnlyConfigReadsTheEnvironment", forbid(func(f *file) bool { return !f.test() && !allowed(mayReadEnvironment, f.path) },
		"settings are read in package config", "os.Getenv", "os.LookupEnv", "os.Environ", "os.ExpandEnv"),
		"internal/x/x.go", "import \"os\"\nvar c = os.Getenv(\"HOME\")"},
}

func TestRules(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range source(t) {
				for _, complaint := range r.check(f) {
					t.Error(complaint)
				}
			}
			bad, err := parse(r.path, "package x\n"+r.text)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.check(bad)) == 0 {
				t.Error("a file that breaks the rule is not found")
			}
		})
	}
}

// An exception that nobody needs any more is removed.
func TestRules_ExceptionsAreInUse(t *testing.T) {
	for _, table := range []map[string]string{mayStartFromNothing, mayReadEnvironment} {
		for pattern := range table {
			if strings.HasPrefix(pattern, "cmd/") {
				continue
			}
			if !slices.ContainsFunc(source(t), func(f *file) bool { return matches([]string{pattern}, f.path) }) {
				t.Errorf("there is no %s", pattern)
			}
		}
	}
}

// A package says in one place what it is for: in doc.go, or a program in main.go.
func TestRules_OnePackageComment(t *testing.T) {
	commented, packages := map[string]int{}, map[string]bool{}
	for _, f := range source(t) {
		if f.test() {
			continue
		}
		packages[f.dir()] = true
		if f.ast.Doc == nil || f.generated {
			continue
		}
		commented[f.dir()]++
		start := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			start = "Command " + path.Base(f.dir()) + " "
		}
		if !strings.HasPrefix(f.ast.Doc.Text(), start) {
			t.Errorf("%s: the package comment does not begin with %q", f.path, start)
		}
	}
	for dir := range packages {
		if commented[dir] != 1 {
			t.Errorf("%s has %d package comments, must have 1", dir, commented[dir])
		}
	}
}

func allowed(table map[string]string, path string) bool {
	for pattern := range table {
		if matches([]string{pattern}, path) {
			return true
		}
	}
	return false
}

// forbid makes a check that a kind of file calls none of the functions.
func forbid(in func(*file) bool, instead string, names ...string) func(*file) []string {
	return func(f *file) (complaints []string) {
		if f.generated || !in(f) {
			return nil
		}
		for _, p := range f.calls(names...) {
			complaints = append(complaints, fmt.Sprintf("%s:%d: %s", f.path, f.line(p), instead))
		}
		return complaints
	}
}

// noPanic leaves net/http its way to end a connection in the middle of an answer: panic(http.ErrAbortHandler).
func noPanic(f *file) (complaints []string) {
	if f.generated || f.test() {
		return nil
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if name, ok := call.Fun.(*ast.Ident); !ok || name.Name != "panic" {
			return true
		}
		if sel, ok := call.Args[0].(*ast.SelectorExpr); !ok || sel.Sel.Name != "ErrAbortHandler" {
			complaints = append(complaints, fmt.Sprintf("%s:%d: a library returns errors", f.path, f.line(n.Pos())))
		}
		return true
	})
	return complaints
}

func shortFiles(f *file) []string {
	most := maxFile
	if strings.HasPrefix(f.path, "cmd/") && path.Base(f.path) == "main.go" {
		most = maxMain
	}
	if n := strings.Count(f.text, "\n"); n > most && !f.generated {
		return []string{fmt.Sprintf("%s has %d lines, the limit is %d", f.path, n, most)}
	}
	return nil
}

// shortFunctions leaves out tests: their tables are long, and read like lists.
func shortFunctions(f *file) (complaints []string) {
	if f.generated || f.test() {
		return nil
	}
	check := func(name string, from, to token.Pos) {
		if n := f.line(to) - f.line(from) + 1; n > maxFunction {
			complaints = append(complaints, fmt.Sprintf("%s:%d: %s has %d lines, the limit is %d", f.path, f.line(from), name, n, maxFunction))
		}
	}
	for _, d := range f.ast.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			check(fn.Name.Name, fn.Pos(), fn.End())
		}
	}
	return complaints
}
