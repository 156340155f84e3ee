// Command settings writes docs/settings.md: every setting of every daemon with its default and, from the comment on
// its field in package config, its meaning.
//
//	go run ./internal/tools/settings docs/settings.md
package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"faena.dev/faena/internal/config"
)

const intro = `<!-- Generated from the comments in src/internal/config by "make generate". Do not edit. -->
# Settings

Every setting is an environment variable. A daemon refuses to start where a ` + "`FAENA_*`" + ` variable is unknown, a value
cannot be read, or settings do not go together; it names them all. A variable that is empty counts as not set.

Sizes are written as 1048576, 512KiB, 64MiB or 2GiB; durations as 500ms, 90s, 10m or 24h; lists with commas.

A setting whose name ends in _FILE is the path of a file. One that holds a secret (marked *secret*) must not be open to
every user of the host. Where it is not set, it is taken from the credentials that systemd passes to the service:
` + "`FAENA_TLS_KEY_FILE`" + ` from ` + "`$CREDENTIALS_DIRECTORY/faena.tls_key`" + `, and so on.
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "settings:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: settings FILE")
	}
	meanings, err := comments()
	if err != nil {
		return err
	}
	up, api, worker := config.DefaultUp(), config.DefaultAPI(), config.DefaultWorker()
	var page bytes.Buffer
	page.WriteString(intro)
	for _, d := range []struct {
		title    string
		settings []config.Setting
	}{{"faena up", config.Settings(&up)}, {"faena-api", config.Settings(&api)}, {"faena-worker", config.Settings(&worker)}} {
		fmt.Fprintf(&page, "\n## %s\n\n| Setting | Default | Meaning |\n|---|---|---|\n", d.title)
		for _, s := range d.settings {
			meaning := meanings[s.Struct+"."+s.Field]
			if meaning == "" {
				return fmt.Errorf("%s.%s of package config has no comment", s.Struct, s.Field)
			}
			if s.Secret {
				meaning += " *Secret.*"
			}
			fmt.Fprintf(&page, "| `%s` | %s | %s |\n", s.Name, code(s.Default), strings.ReplaceAll(meaning, "|", `\|`))
		}
	}
	return os.WriteFile(args[0], page.Bytes(), 0o644)
}

// code sets text in code, where there is any.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

// comments returns the sentences on each field of each struct of package config, by "Struct.Field", without the
// words "Field is" that the reader of a table does not need.
func comments() (map[string]string, error) {
	_, self, _, ok := runtime.Caller(0)
	if !ok {
		return nil, errors.New("the source of this program cannot be found")
	}
	file := filepath.Join(filepath.Dir(self), "..", "..", "config", "settings.go")
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	ast.Inspect(parsed, func(n ast.Node) bool {
		decl, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		fields, ok := decl.Type.(*ast.StructType)
		if !ok {
			return false
		}
		for _, field := range fields.Fields.List {
			for _, name := range field.Names {
				found[decl.Name.Name+"."+name.Name] = sentence(name.Name, field.Doc.Text())
			}
		}
		return false
	})
	return found, nil
}

// sentence turns a field's comment into a line of its own: "Field is the size" becomes "The size".
func sentence(field, comment string) string {
	text := strings.Join(strings.Fields(comment), " ")
	for _, opening := range []string{" is ", " are ", " says ", " "} {
		if rest, ok := strings.CutPrefix(text, field+opening); ok {
			text = rest
			break
		}
	}
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
