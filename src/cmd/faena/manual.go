//go:build manual

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// The manual pages and completions are written by a build of their own, so that what makes them is in no released program:
// internal/tools/gendocs runs it.
func init() { more = append(more, manualCommand) }

func manualCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "manual PAGES COMPLETIONS", Short: "Write the manual pages and the completions", Args: exactly(2), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := (&app{terminal: a.terminal}).root() // nothing in the pages is of this environment
			root.DisableAutoGenTag = true
			if err := writePages(root, args[0]); err != nil {
				return err
			}
			return writeCompletions(root, args[1])
		},
	}
}

// undated stands in the pages where the library wants a date. It is taken out: what is built twice is the same.
var undated = time.Date(1970, time.January, 1, 0, 0, 0, 0, time.UTC)

func writePages(cmd *cobra.Command, dir string) error {
	for _, c := range cmd.Commands() {
		if !c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := writePages(c, dir); err != nil {
			return err
		}
	}
	cmd.Long = manualText(cmd.Long)
	var page strings.Builder
	if err := doc.GenMan(cmd, &doc.GenManHeader{Section: "1", Date: &undated, Source: "Faena", Manual: "Faena"}, &page); err != nil {
		return fmt.Errorf("write the manual page of %s: %w", cmd.CommandPath(), err)
	}
	text := strings.Replace(page.String(), undated.Format("Jan 2006"), "", 1)
	return os.WriteFile(filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"), []byte(text), 0o644)
}

// manualText is a help text as the library takes it, which is Markdown: lines that are indented stay as they are.
func manualText(help string) string {
	var b strings.Builder
	for line := range strings.Lines(help) {
		if strings.HasPrefix(line, "  ") {
			b.WriteString("    ")
		}
		b.WriteString(line)
		if strings.HasSuffix(line, ":\n") {
			b.WriteString("\n")
		}
	}
	return b.String()
}

func writeCompletions(root *cobra.Command, dir string) error {
	for _, shell := range []struct {
		file  string
		write func(path string) error
	}{
		{"faena.bash", func(path string) error { return root.GenBashCompletionFileV2(path, true) }},
		{"_faena", root.GenZshCompletionFile},
		{"faena.fish", func(path string) error { return root.GenFishCompletionFile(path, true) }},
	} {
		if err := shell.write(filepath.Join(dir, shell.file)); err != nil {
			return fmt.Errorf("write the completion %s: %w", shell.file, err)
		}
	}
	return nil
}
