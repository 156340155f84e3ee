// Command settings writes what documents the settings, each with its default and, from the comment on its field in package config,
// its meaning: docs/settings.md, with those of every daemon, and the configuration files of the packages, api.env and worker.env.
//
//	go run ./internal/tools/settings docs/settings.md packaging/etc
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
	if len(args) != 2 {
		return errors.New("usage: settings FILE DIRECTORY")
	}
	meanings, err := comments()
	if err != nil {
		return err
	}
	up, api, worker := config.DefaultUp(), config.DefaultAPI(), config.DefaultWorker()
	daemons := []daemon{{name: "faena up", settings: config.Settings(&up)},
		{name: "faena-api", file: "api.env", settings: config.Settings(&api)},
		{name: "faena-worker", file: "worker.env", settings: config.Settings(&worker)}}
	for _, d := range daemons {
		for _, s := range d.settings {
			if meanings[s.Struct+"."+s.Field] == "" || meanings[s.Struct] == "" {
				return fmt.Errorf("%s.%s of package config has no comment, or its struct has none", s.Struct, s.Field)
			}
		}
	}
	if err := os.WriteFile(args[0], page(daemons, meanings), 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll(args[1], 0o755); err != nil {
		return err
	}
	for _, d := range daemons {
		if d.file == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(args[1], d.file), d.env(meanings), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// daemon is a program with its settings. file is the name of its configuration file; the program without one is in no package.
type daemon struct {
	name, file string
	settings   []config.Setting
}

// page is docs/settings.md.
func page(daemons []daemon, meanings map[string]string) []byte {
	var out bytes.Buffer
	out.WriteString(intro)
	for _, d := range daemons {
		fmt.Fprintf(&out, "\n## %s\n\n| Setting | Default | Meaning |\n|---|---|---|\n", d.name)
		for _, s := range d.settings {
			meaning := meanings[s.Struct+"."+s.Field]
			if s.Secret {
				meaning += " *Secret.*"
			}
			fmt.Fprintf(&out, "| `%s` | %s | %s |\n", s.Name, code(s.Default), strings.ReplaceAll(meaning, "|", `\|`))
		}
	}
	return out.Bytes()
}

// code sets text in code, where there is any.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

// comments returns the sentences on each struct of package config, by "Struct", and on each of its fields, by "Struct.Field", without
// the words "Field is" that the reader of a table does not need.
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
		if group, ok := n.(*ast.GenDecl); ok && len(group.Specs) == 1 {
			if decl, ok := group.Specs[0].(*ast.TypeSpec); ok {
				found[decl.Name.Name] = sentence(decl.Name.Name, group.Doc.Text())
			}
		}
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
