package rules

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The catalogue of what breaks systems like this one has so many cases, and so many invariants.
const (
	catalogued = 54
	invariants = 10
)

// inBackticks is a word that a page quotes.
var inBackticks = regexp.MustCompile("`([^`]+)`")

// notApplicable begins a row that has no test.
const notApplicable = "Does not apply: "

// docs/cases.md has a row for each case and invariant of the catalogue, in order: the tests that show it, which must be there, or why it
// does not apply.
func TestCases(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "..", "docs", "cases.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for n := range catalogued {
		want = append(want, strconv.Itoa(n+1))
	}
	for n := range invariants {
		want = append(want, fmt.Sprint("V", n+1))
	}
	tests := testsOf(source(t))
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		id := strings.TrimPrefix(cells[0], "| ")
		if len(cells) != 3 || !slices.Contains(want, id) {
			continue
		}
		got = append(got, id)
		shown := strings.TrimSuffix(cells[2], " |")
		for _, complaint := range tests.lacks(shown) {
			t.Errorf("row %s: %s", id, complaint)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the rows are %v, want each of 1 to %d and V1 to V%d, in order", got, catalogued, invariants)
	}
}

// docs/security.md names tests at its end, which are there too.
func TestCases_Security(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, shown, ok := strings.Cut(string(text), "## Shown by")
	if !ok {
		t.Fatal("it does not say what shows it")
	}
	for _, complaint := range testsOf(source(t)).lacks(shown) {
		t.Error(complaint)
	}
}

// testFiles are the tests of the module: their functions, with the text of the package that they are in, and all texts of the fault suite.
type testFiles struct {
	functions map[string][]string // by name, the texts of the packages' test files
	faults    string
}

func testsOf(files []*file) testFiles {
	texts := map[string]string{}
	tests := testFiles{functions: map[string][]string{}}
	for _, f := range files {
		if f.test() {
			texts[f.dir()] += f.text
		}
		if strings.HasPrefix(f.path, "internal/tools/chaos/") {
			tests.faults += f.text
		}
	}
	for _, f := range files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test() && fn.Recv == nil && (strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "Fuzz")) {
				tests.functions[fn.Name.Name] = append(tests.functions[fn.Name.Name], texts[f.dir()])
			}
		}
	}
	return tests
}

// lacks says what a row names that is not there: a test, its subtest (a literal of its package, or the end of one, such as an isolation), or
// a fault of make chaos.
func (tests testFiles) lacks(shown string) (complaints []string) {
	if reason, ok := strings.CutPrefix(shown, notApplicable); ok {
		if len(reason) < 20 {
			return []string{"it does not say why it does not apply"}
		}
		return nil
	}
	named := 0
	for _, m := range inBackticks.FindAllStringSubmatch(shown, -1) {
		fault, isFault := strings.CutPrefix(m[1], "make chaos: ")
		name, sub, _ := strings.Cut(m[1], "/")
		switch {
		case isFault:
			named++
			if !strings.Contains(tests.faults, strconv.Quote(fault)) {
				complaints = append(complaints, "make chaos has no fault "+fault)
			}
		case !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz"): // some other word
		case len(tests.functions[name]) == 0:
			complaints = append(complaints, "there is no test "+name)
		default:
			named++
			for part := range strings.SplitSeq(sub, "/") {
				if part != "" && !slices.ContainsFunc(tests.functions[name], func(text string) bool { return strings.Contains(text, strconv.Quote(part)) }) {
					complaints = append(complaints, name+" has no subtest "+part)
				}
			}
		}
	}
	if named == 0 && len(complaints) == 0 {
		complaints = append(complaints, "it names no test, and does not begin with "+strconv.Quote(notApplicable))
	}
	return complaints
}

func TestCases_FindsWhatIsMissing(t *testing.T) {
	f, err := parse("internal/x/x_test.go", "package x\nfunc TestThere(t *testing.T) { t.Run(\"a part\", nil) }\nfunc (x) TestOfAType() {}\n")
	if err != nil {
		t.Fatal(err)
	}
	chaos, err := parse("internal/tools/chaos/x.go", "package main\nvar x = \"worker-killed\"\n")
	if err != nil {
		t.Fatal(err)
	}
	tests := testsOf([]*file{f, chaos})
	for shown, want := range map[string]string{
		"`TestThere`": "", "`TestThere/a part` and `FAENA_X`": "", "`make chaos: worker-killed`": "", notApplicable + "there are no schedules here yet.": "",
		"": "names no test", "it works": "names no test", "`FAENA_X`": "names no test", notApplicable + "no.": "does not say why",
		"`TestGone`": "no test TestGone", "`TestOfAType`": "no test TestOfAType", "`TestThere/another`": "no subtest another", "`TestThere`, `TestGone`": "no test TestGone",
		"`make chaos: flood`": "no fault flood",
	} {
		if got := strings.Join(tests.lacks(shown), "; "); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", shown, got, want)
		}
	}
}
