// Command gendocs writes the manual pages of all programs, and the completions of faena, as the packages have them: from the commands
// themselves. What it writes depends on nothing but the source.
//
//	go run ./internal/tools/gendocs -man DIR -completions DIR
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"

	"faena.dev/faena/internal/wiring"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("gendocs", flag.ContinueOnError)
	man := flags.String("man", "", "The `DIR`ectory of the manual pages.")
	completions := flags.String("completions", "", "The `DIR`ectory of the completions: faena.bash, _faena for zsh, faena.fish.")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *man == "" || *completions == "" || flags.NArg() > 0 {
		return errors.New("usage: gendocs -man DIR -completions DIR")
	}
	pages, err := directory(*man)
	if err != nil {
		return err
	}
	shells, err := directory(*completions)
	if err != nil {
		return err
	}
	if err := commandLine(pages, shells); err != nil {
		return err
	}
	for _, d := range []struct {
		manual wiring.Manual
		file   string
	}{{wiring.APIManual(), "api.env"}, {wiring.WorkerManual(), "worker.env"}} {
		page := md2man.Render([]byte(daemon(d.manual, d.file)))
		if err := os.WriteFile(filepath.Join(pages, d.manual.Name+".8"), page, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// directory makes a directory where there is none, and returns its absolute path.
func directory(path string) (string, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// commandLine has faena write its own, in a build that can: its commands are in no package that could be imported. It runs here,
// whatever is being built.
func commandLine(pages, shells string) error {
	cmd := exec.Command("go", "run", "-tags", "manual", "faena.dev/faena/cmd/faena", "manual", pages, shells)
	cmd.Env = append(os.Environ(), "GOOS=", "GOARCH=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run faena manual: %w\n%s", err, out)
	}
	return nil
}

// daemon is the page of a daemon, as Markdown. file has its settings.
func daemon(m wiring.Manual, file string) string {
	var page bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&page, format+"\n", args...) }
	say(`%% "%s" "8" "" "Faena" "Faena"`, strings.ToUpper(m.Name))
	what := strings.TrimPrefix(m.About, m.Name+" is ")
	short, _, _ := strings.Cut(what, ":")
	say("# NAME\n\n%s - %s\n", m.Name, short)
	say("# SYNOPSIS\n\n**%s**\n", m.Name)
	say("**%s** [**--check-config** | **--version** | **--help**]\n", m.Name)
	for _, c := range m.Commands {
		say("**%s**\n", c.Usage)
	}
	say("# DESCRIPTION\n\n%s Without arguments it is the daemon, which systemd starts as %s.service.\n", m.About, m.Name)
	say("# OPTIONS\n")
	say("**--check-config**\n: Check the settings, and the files that they name, and end. Nothing is contacted, nothing is changed. " +
		"In a shell these are the shell's: it prints the command that checks the service's.\n")
	say("**--version**\n: Print the version.\n")
	say("**--help**\n: Print the commands; behind a command: what it does.\n")
	say("# COMMANDS\n")
	for _, c := range m.Commands {
		say("## %s\n\n%s\n", c.Usage, c.About)
		c.Flags.VisitAll(func(f *flag.Flag) {
			value, text := flag.UnquoteUsage(f)
			if f.DefValue != "" && f.DefValue != "false" {
				text += " Default: " + f.DefValue + "."
			}
			say("**%s**\n: %s\n", strings.TrimSpace("--"+f.Name+" "+value), text)
		})
	}
	say("# EXIT STATUS\n\n0\n: It was stopped; of a command: it is done.\n")
	say("1\n: A part of it has failed; of a command: it could not be done.\n")
	say("2\n: The arguments are wrong.\n")
	say("3\n: A setting is wrong. The journal names it. No restart mends that, so systemd tries none.\n")
	say("# FILES\n\n*/etc/faena/%s*\n: The settings, which are environment variables, each with its meaning and its default.\n", file)
	say("*/etc/credstore/%s.\\**\n: Secrets, which systemd passes to the service.\n", m.Name)
	say("*/var/lib/%s*\n: What it keeps.\n", m.Name)
	say("# SEE ALSO\n\n**faena**(1), **systemctl**(1), **journalctl**(1)")
	return page.String()
}
