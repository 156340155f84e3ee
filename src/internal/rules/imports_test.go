package rules

import (
	"fmt"
	"go/build"
	"slices"
	"strings"
	"testing"
)

// anything is a package that may import every other but those that only tests may.
var anything = []string{"*"}

// mayImport says which packages of this module the code of a package, its tests left out, may import. Dependencies
// point inwards: the domain knows nobody, use cases and adapters know the domain and never each other, only programs
// wire. A new package is a new row here, and a decision in docs/adr.
var mayImport = map[string][]string{
	"api":                   {},
	"internal/faena":        {},
	"internal/config":       {},
	"internal/systemd":      {},
	"internal/buildinfo":    {},
	"internal/clock":        {},
	"internal/failpoint":    {"internal/clock"},
	"internal/backup":       {},
	"internal/packets":      {"internal/faena"},
	"internal/rules":        {},
	"internal/telemetry":    {"internal/faena"},
	"internal/wiring":       anything,
	"internal/sandbox":      {"internal/failpoint", "internal/faena"},
	"internal/control":      {"internal/clock", "internal/failpoint", "internal/faena"},
	"internal/worker":       {"internal/clock", "internal/failpoint", "internal/faena", "internal/sandbox"},
	"internal/httpapi":      {"internal/faena", "internal/telemetry", "internal/buildinfo", "api"},
	"internal/boltstore":    {"internal/clock", "internal/faena"},
	"internal/mongostore":   {"internal/clock", "internal/faena"},
	"internal/natsbus":      {"internal/failpoint", "internal/faena"},
	"internal/dockerengine": {"internal/faena"},
	"internal/registry":     {"internal/faena"},
	"internal/seal":         {"internal/clock", "internal/faena"},
	"internal/auth":         {"internal/faena"},
	"internal/client":       {"internal/faena"},
	"internal/faenatest":    {"internal/faena"},
	"internal/natstest":     {"internal/faenatest"},
	"internal/ferrettest":   {"internal/faenatest"},
	"internal/ferrettest/*": {},
	"internal/endtoend":     anything,
	"internal/endtoend/*":   anything,
	"internal/tools/*":      anything,
	"cmd/*":                 anything,
}

// onlyTests are the packages that no program is made of.
var onlyTests = []string{"internal/faenatest", "internal/natstest", "internal/ferrettest", "internal/endtoend", "internal/endtoend/installation", "internal/endtoend/hosts",
	"internal/rules"}

// mayUse says which packages may import a module of somebody else, so that what depends on it stays in one place;
// docs/dependencies.md says why it is there.
var mayUse = map[string][]string{
	"filippo.io/age":                         {"internal/seal", "internal/backup"},
	"github.com/FerretDB/FerretDB":           {"internal/ferrettest/*"},
	"github.com/containerd/errdefs":          {"internal/dockerengine"},
	"github.com/coreos/go-systemd/v22":       {"internal/systemd"},
	"github.com/cpuguy83/go-md2man/v2":       {"internal/tools/*"},
	"github.com/docker/docker":               {"internal/dockerengine"},
	"github.com/google/go-containerregistry": {"internal/registry", "internal/faenatest", "internal/tools/*"},
	"github.com/google/nftables":             {"internal/packets"},
	"github.com/google/uuid":                 {"internal/control", "internal/natsbus", "internal/httpapi", "internal/seal"},
	"github.com/gorilla/mux":                 {"internal/httpapi"},
	"github.com/kelseyhightower/envconfig":   {"internal/config"},
	"github.com/klauspost/compress":          {"internal/natsbus"},
	"github.com/mdlayher/netlink":            {"internal/packets"},
	"github.com/nats-io/nats-server/v2":      {"internal/natsbus", "internal/natstest", "internal/tools/bench/*"},
	"github.com/nats-io/nats.go":             {"internal/natsbus", "internal/natstest", "internal/endtoend/*", "internal/tools/chaos/*"},
	"github.com/nats-io/nkeys":               {"internal/natsbus", "internal/natstest"},
	"github.com/oapi-codegen/runtime":        {"internal/httpapi", "internal/client"},
	"github.com/prometheus/client_golang":    {"internal/telemetry"},
	"github.com/spf13/cobra":                 {"cmd/faena"},
	"go.etcd.io/bbolt":                       {"internal/boltstore"},
	"go.mongodb.org/mongo-driver/v2":         {"internal/mongostore", "internal/ferrettest", "internal/endtoend/*", "internal/tools/bench/*"},
	"golang.org/x/crypto":                    {"internal/auth"},
	"golang.org/x/sync":                      anything,
	"golang.org/x/sys":                       anything,
	"golang.org/x/term":                      {"cmd/faena"},
	"golang.org/x/time":                      {"internal/auth", "internal/httpapi"},
}

func TestImports(t *testing.T) {
	for _, f := range source(t) {
		for _, complaint := range imports(f) {
			t.Error(complaint)
		}
	}
}

// imports checks a file against the tables.
func imports(f *file) (complaints []string) {
	if f.test() {
		return nil
	}
	own, known := row(mayImport, f.dir())
	if !known {
		return []string{fmt.Sprintf("%s: package %s has no row in the table of imports", f.path, f.dir())}
	}
	noProgram := slices.Contains(onlyTests, f.dir()) || strings.HasPrefix(f.dir(), "internal/tools/")
	for _, path := range f.imports() {
		if std(path) {
			continue
		}
		if ours, ok := strings.CutPrefix(path, module+"/"); ok {
			switch {
			case ours == f.dir(), matches(own, ours) && !strings.HasPrefix(ours, "cmd/") && (!slices.Contains(onlyTests, ours) || noProgram):
			default:
				complaints = append(complaints, fmt.Sprintf("%s: %s may not import %s", f.path, f.dir(), ours))
			}
			continue
		}
		name := owner(path)
		if name == "" {
			complaints = append(complaints, fmt.Sprintf("%s: %s has no row in the table of modules", f.path, path))
		} else if !matches(mayUse[name], f.dir()) {
			complaints = append(complaints, fmt.Sprintf("%s: %s is for %s alone", f.path, name, strings.Join(mayUse[name], ", ")))
		}
	}
	return complaints
}

// std reports whether a path is of the standard library, or C.
func std(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return path == "C" || build.IsLocalImport(path) || !strings.Contains(first, ".")
}

// owner is the row of mayUse that a path belongs to, the longest one.
func owner(path string) (name string) {
	for candidate := range mayUse {
		if (path == candidate || strings.HasPrefix(path, candidate+"/")) && len(candidate) > len(name) {
			name = candidate
		}
	}
	return name
}

func row(table map[string][]string, pkg string) ([]string, bool) {
	for pattern, allowed := range table {
		if matches([]string{pattern}, pkg) {
			return allowed, true
		}
	}
	return nil, false
}

// matches reports whether one of the patterns is the package, or ends in * and begins it.
func matches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		start, wild := strings.CutSuffix(pattern, "*")
		return pattern == pkg || wild && strings.HasPrefix(pkg, start)
	})
}

func TestImports_FindsABreach(t *testing.T) {
	for _, c := range []struct{ path, imported, want string }{
		{"internal/control/x.go", module + "/internal/natsbus", "may not import"},
		{"internal/faena/x.go", module + "/internal/config", "may not import"},
		{"internal/worker/x.go", module + "/internal/faenatest", "may not import"},
		{"cmd/faena/x.go", module + "/internal/faenatest", "may not import"},
		{"internal/natsbus/x.go", module + "/internal/dockerengine", "may not import"},
		{"cmd/faena/x.go", module + "/internal/natstest", "may not import"},
		{"internal/control/x.go", "github.com/nats-io/nats.go/jetstream", "is for internal/natsbus, internal/natstest, internal/endtoend/*, internal/tools/chaos/* alone"},
		{"internal/worker/x.go", "github.com/docker/docker/client", "is for internal/dockerengine alone"},
		{"internal/control/x.go", "example.org/new", "no row in the table of modules"},
		{"internal/helpers/x.go", "fmt", "no row in the table of imports"},
		{"cmd/faena/x.go", module + "/internal/control", ""},
		{"internal/worker/x.go", module + "/internal/sandbox", ""},
		{"internal/control/x_test.go", module + "/internal/natsbus", ""},
	} {
		f, err := parse(c.path, "package x\nimport _ \""+c.imported+"\"\n")
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(imports(f), "\n")
		if c.want == "" && got != "" || c.want != "" && !strings.Contains(got, c.want) {
			t.Errorf("%s that imports %s gives %q, want %q", c.path, c.imported, got, c.want)
		}
	}
}
