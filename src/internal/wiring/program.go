package wiring

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"

	"faena.dev/faena/internal/buildinfo"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/systemd"
)

// Exit codes of the daemons. A unit need not restart one that ended with exitUsage or exitSettings.
const (
	exitOK       = 0
	exitFailed   = 1 // it could not start, or a part of it has failed; a command could not do what it was to
	exitUsage    = 2 // arguments that it does not know
	exitSettings = 3 // a setting is wrong, or what it names; it is named on standard error
)

// program is a daemon and the commands beside it.
type program struct {
	name, about string
	in          io.Reader
	out, err    io.Writer
	// load reads the settings. With an error what it returns only says how to log.
	load     func() (configured, error)
	commands []command
	settings []config.Setting
	service  bool // it is systemd's, and no person's
}

// configured is a daemon with its settings.
type configured struct {
	log   config.Log
	check func() error // of what the settings name, without any change and without a word to anybody else
	run   func(context.Context, *slog.Logger) error
}

// command is one of a program's.
type command struct {
	name  string // one word or two
	args  string // for the help
	about string
	// prepare declares the flags and returns what the command does with its other arguments.
	prepare func(*flag.FlagSet) func(ctx context.Context, words []string) error
}

// usageError is a mistake in the arguments.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run runs the daemon until ctx ends, or the command that args name, and returns the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		return p.daemon(ctx)
	}
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintln(p.out, buildinfo.Read().Text(p.name))
		return exitOK
	}
	if len(args) == 1 && args[0] == "--check-config" {
		return p.check()
	}
	for _, c := range p.commands {
		if name := strings.Fields(c.name); len(args) >= len(name) && slices.Equal(args[:len(name)], name) {
			return p.do(ctx, c, args[len(name):])
		}
	}
	if last := args[len(args)-1]; last == "--help" || last == "-h" {
		p.help()
		return exitOK
	}
	fmt.Fprintf(p.err, "%s: unknown argument %q: settings are environment variables, and --help lists the commands\n", p.name, args[0])
	return exitUsage
}

func (p *program) daemon(ctx context.Context) int {
	c, err := p.checked()
	log := NewLogger(p.err, c.log)
	if err != nil {
		p.complain(c.log, err)
		tell(log, systemd.Status(oneLine(err)))
		return exitSettings
	}
	if err = c.run(ctx, log); err == nil {
		return exitOK
	}
	tell(log, systemd.Status(oneLine(err)))
	if c.log.Format == config.LogJournal {
		p.complain(c.log, err)
	} else {
		log.Error(p.name+" has ended", "error", err)
	}
	if _, wrong := errors.AsType[settingError](err); wrong || errors.Is(err, fs.ErrPermission) { // nor does waiting mend what it may not do
		return exitSettings
	}
	return exitFailed
}

// check is --check-config. Whoever types it into a shell is told that the service's settings are others, and what checks these.
func (p *program) check() int {
	c, err := p.checked()
	if err != nil {
		p.complain(c.log, err)
	}
	if !p.service {
		fmt.Fprintf(p.err, "%s: checked was what this shell has set, and not the service's own: these are in %s, and /etc/credstore. To check them, as root:\n%s\n",
			p.name, p.envFile(), p.checkOfUnit())
	}
	if err != nil {
		return exitSettings
	}
	return exitOK
}

// envFile is where the unit of the packages has its settings.
func (p *program) envFile() string {
	return "/etc/faena/" + strings.TrimPrefix(p.name, "faena-") + ".env"
}

// checkOfUnit is a command that runs the check with what the unit of the packages gives to its daemon.
func (p *program) checkOfUnit() string {
	words := []string{"systemd-run", "--quiet", "--wait", "--pipe", "--uid=" + p.name,
		`-p "Environment=$(systemctl show -P Environment ` + p.name + `)"`, "-p EnvironmentFile=-" + p.envFile()}
	for _, s := range p.settings {
		if s.Secret {
			words = append(words, "-p LoadCredential="+s.Credential()+":"+p.name+strings.TrimPrefix(s.Credential(), "faena"))
		}
	}
	return "  " + strings.Join(append(words, "/usr/bin/"+p.name, "--check-config"), " ")
}

// checked is the daemon with its settings and what they name, all of which is well unless there is an error.
func (p *program) checked() (configured, error) {
	c, err := p.load()
	if err == nil {
		err = c.check()
	}
	return c, err
}

// complain says why the program ends: each problem on a line of standard error. They do not go to the journal's own socket: it would
// take a moment to look up of which unit they are, and this process is gone by then.
func (p *program) complain(log config.Log, err error) {
	severity := ""
	if log.Format == config.LogJournal {
		severity = "<3>" // how systemd marks an error in such a line
	}
	for _, problem := range problems(err) {
		fmt.Fprintf(p.err, "%s%s: %s\n", severity, p.name, problem)
	}
}

// problems are the parts of an error that stand for themselves, each in a line.
func problems(err error) (lines []string) {
	if list, ok := err.(config.Problems); ok {
		for _, p := range list {
			lines = append(lines, p.Setting+" "+p.Text)
		}
		return lines
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, part := range joined.Unwrap() {
			lines = append(lines, problems(part)...)
		}
		return lines
	}
	return []string{strings.Join(strings.Fields(err.Error()), " ")}
}

func oneLine(err error) string { return strings.Join(problems(err), "; ") }

func (p *program) do(ctx context.Context, c command, args []string) int {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // what is wrong is said below, in the words of the program
	run := c.prepare(flags)
	words, err := parse(flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		p.helpOn(c, flags)
		return exitOK
	case err != nil:
		err = usageError{err}
	default:
		err = run(ctx, words)
	}
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(p.err, "%s %s: %v\n", p.name, c.name, err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(p.err, "usage: %s\n", p.usage(c))
		return exitUsage
	}
	return exitFailed
}

// parse reads flags wherever they stand, and returns the other arguments.
func parse(flags *flag.FlagSet, args []string) (words []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if args = flags.Args(); len(args) == 0 {
			return words, nil
		}
		words, args = append(words, args[0]), args[1:]
	}
}

func (p *program) usage(c command) string {
	return strings.TrimSpace(strings.Join([]string{p.name, c.name, c.args}, " "))
}

func (p *program) help() {
	fmt.Fprintf(p.out, "%s\nSettings are environment variables; docs/settings.md (/usr/share/doc/faena-cli) lists them.\n\n", p.about)
	fmt.Fprintf(p.out, "  %s\n      Run the daemon.\n  %s --check-config\n      Check the settings, and the files that they name.\n"+
		"  %s --version\n      Print the version.\n", p.name, p.name, p.name)
	for _, c := range p.commands {
		first, _, _ := strings.Cut(c.about, "\n")
		fmt.Fprintf(p.out, "  %s\n      %s\n", p.usage(c), first)
	}
}

func (p *program) helpOn(c command, flags *flag.FlagSet) {
	fmt.Fprintf(p.out, "usage: %s\n\n%s\n", p.usage(c), c.about)
	flags.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		fmt.Fprintf(p.out, "\n  %s\n      %s", strings.TrimSpace("--"+f.Name+" "+value), text)
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(p.out, " Default: %s.", f.DefValue)
		}
	})
	fmt.Fprintln(p.out)
}
