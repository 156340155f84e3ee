package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"faena.dev/faena/internal/buildinfo"
	"faena.dev/faena/internal/client"
)

// terminal is where a command reads and writes.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	// inTTY, outTTY and errTTY say whether a person is at the other end.
	inTTY, outTTY, errTTY bool
}

func newTerminal(in, out, errs *os.File) *terminal {
	is := func(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
	return &terminal{in: in, out: out, err: errs, inTTY: is(in), outTTY: is(out), errTTY: is(errs)}
}

// say writes a line to the person.
func (t *terminal) say(format string, args ...any) { fmt.Fprintf(t.err, format+"\n", args...) }

// app is one call of the command.
type app struct {
	*terminal
	environ []string
	profile string // name of the profile
	output  string // json or table
}

func (a *app) env(name string) string {
	for _, kv := range a.environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// run is the whole program but for the process around it. It returns the exit code.
func run(ctx context.Context, args []string, t *terminal, environ []string) int {
	a := &app{terminal: t, environ: environ}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := codeOf(ctx, err)
	var quiet silent
	if !errors.As(err, &quiet) {
		a.say("faena: %s", describe(err))
		if code == exitUsage {
			a.say("See faena --help.")
		}
	}
	return code
}

// more are commands of a build with a tag. A released program has none.
var more []func(*app) *cobra.Command

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "faena", Short: "Run container images as functions", Long: longHelp(), Version: buildinfo.Read().Text("faena"),
		SilenceErrors: true, SilenceUsage: true,
	}
	onlyCommands(root)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	root.PersistentFlags().StringVar(&a.profile, "profile", or(a.env("FAENA_PROFILE"), "default"), "which login to use")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.output != "table" && !a.json() {
			return usage{fmt.Errorf("--output is %q, must be table or json", a.output)}
		}
		return nil
	}
	a.output = "table" // of a command that has no other form
	root.AddCommand(a.upCommand(), a.loginCommand(), a.deployCommand(), a.invokeCommand(), a.activationsCommand(), a.getCommand(),
		a.resultCommand(), a.logsCommand(), a.cancelCommand(), a.functionsCommand(), a.rollbackCommand(), a.deleteCommand(),
		a.deadLettersCommand(), a.usersCommand(), a.groupsCommand(), a.workersCommand(), a.doctorCommand(), a.backupCommand(), a.restoreCommand())
	for _, command := range more {
		root.AddCommand(command(a))
	}
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		onlyCommands(completion)
	}
	return root
}

func longHelp() string {
	var b strings.Builder
	b.WriteString("Run container images as functions. Data goes to standard output, everything said to a person to standard error.\n\nExit codes:\n")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "  %3d  %-15s  %s\n", e.code, e.name, e.meaning)
	}
	return b.String()
}

// onlyCommands makes a command that has others, and does nothing itself, refuse what is none of them: the library would
// show the help, with exit code 0.
func onlyCommands(c *cobra.Command) {
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage{fmt.Errorf("%s has no command %q", c.CommandPath(), args[0])}
		}
		return nil
	}
	c.RunE = func(*cobra.Command, []string) error { return c.Help() }
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// usage is a wrong command line.
type usage struct{ error }

// noLogin is a profile that is not there, or that must not be used.
type noLogin struct{ error }

// unknown is an activation of which nobody knows whether it was accepted.
type unknown struct {
	cause error
	key   string // the call's Idempotency-Key
}

func (u unknown) Error() string {
	what := "See `faena activations` before trying again."
	if u.key != "" {
		what = "The same call with the same --idempotency-key gives it, or makes it."
	}
	return fmt.Sprintf("The connection broke before the answer came: the activation may have been accepted and may run. %s (%v)", what, u.cause)
}

func (u unknown) Unwrap() error { return u.cause }

// silent is an error of which all has been said already.
type silent struct{ code int }

func (silent) Error() string { return "failed" }

// exactly is cobra.ExactArgs with an error of ours.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage{errors.New(wrongCount(cmd, n, len(args)))}
		}
		return nil
	}
}

// wrongCount says which argument is missing, or what is taken where there are too many: those are not repeated, since a
// password may be among them.
func wrongCount(cmd *cobra.Command, most, given int) string {
	words := strings.Fields(cmd.Use)[1:] // what stands after the command's name in its line of usage
	switch line := strings.Join(words, " "); {
	case given < most:
		return fmt.Sprintf("%s is missing: %s %s", words[given], cmd.CommandPath(), line)
	case most == 0:
		return cmd.CommandPath() + " takes no arguments"
	default:
		return fmt.Sprintf("%s takes %s and nothing more, %d arguments are given", cmd.CommandPath(), line, given)
	}
}

// atMost is cobra.MaximumNArgs with an error of ours.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usage{errors.New(wrongCount(cmd, n, len(args)))}
		}
		return nil
	}
}

// codeOf is the exit code of an error.
func codeOf(ctx context.Context, err error) int {
	var quiet silent
	if errors.As(err, &quiet) {
		return quiet.code
	}
	if ctx.Err() != nil {
		return exitInterrupted
	}
	var wrong usage
	if errors.As(err, &wrong) {
		return exitUsage
	}
	var no refused
	if errors.As(err, &no) {
		return exitInvalid
	}
	var none noLogin
	if errors.As(err, &none) {
		return exitUnauthenticated
	}
	if _, ok := errors.AsType[unknown](err); ok {
		return exitUnknown
	}
	p, ok := errors.AsType[*client.Failure](err)
	if !ok {
		if errors.Is(err, client.ErrAway) {
			return exitUnavailable
		}
		return exitFailed
	}
	if p.OutcomeUnknown {
		return exitUnknown
	}
	if p.ActivationID != "" && p.State != "" { // not every 502 is a function's: a gateway has its own
		return exitFunctionFailed
	}
	switch p.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitUnauthenticated
	case http.StatusNotFound, http.StatusGone:
		return exitNotFound
	case http.StatusTooManyRequests:
		return exitLimit
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return exitUnavailable
	}
	if p.Status >= 400 && p.Status < 500 {
		return exitInvalid
	}
	return exitFailed
}

// describe says what happened, in which part, and where to look.
func describe(err error) string {
	p, ok := errors.AsType[*client.Failure](err)
	if !ok {
		return describeOwn(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)", or(p.Detail, p.Title), p.Reason)
	for _, f := range p.Errors {
		if !strings.Contains(p.Detail, f.Message) {
			fmt.Fprintf(&b, "\n  %s: %s", f.Field, f.Message)
		}
	}
	if p.LogTail != "" {
		fmt.Fprintf(&b, "\nThe end of its log:\n%s", indent(p.LogTail))
	}
	if p.ActivationID != "" {
		fmt.Fprintf(&b, "\nActivation %s", p.ActivationID)
	}
	if p.Status >= 500 && p.Status != http.StatusBadGateway {
		fmt.Fprintf(&b, "\nRequest %s, component %s", p.RequestID, p.Component)
	}
	return b.String()
}

// describeOwn describes what has not come as an answer of the API.
func describeOwn(err error) string {
	text := err.Error()
	if errors.Is(err, client.ErrAway) && !errors.Is(err, client.ErrBroken) {
		return text + "\n" + whereToLook(err)
	}
	return text
}

// whereToLook says what to do where no answer has come.
func whereToLook(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "Log in again with --cacert FILE, the CA of its certificate (with the packages /etc/faena/tls/ca.pem of its host), and at an address that the certificate has."
	}
	return "Is it running (of the packages: systemctl status faena-api; without them: faena up), and is the address right?"
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ")
}
