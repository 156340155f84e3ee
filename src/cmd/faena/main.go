// Command faena is Faena's command line: `faena up` runs the whole appliance in this process, everything else is a client
// of a running one. Data goes to standard output, everything said to a person to standard error.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitOK              = 0
	exitFailed          = 1   // anything without a code of its own
	exitUsage           = 2   // the command line, or a setting of `faena up`, is wrong
	exitFunctionFailed  = 3   // the activation ended, without success
	exitNotFound        = 4   // no such function, activation or user
	exitUnauthenticated = 5   // credentials are missing, wrong, or not enough
	exitLimit           = 6   // at the user's limit
	exitUnavailable     = 7   // the appliance, or a part of it, does not answer
	exitInvalid         = 8   // refused: it breaks a rule
	exitUnknown         = 9   // the activation may have been accepted, or not
	exitInterrupted     = 130 // Ctrl-C
)

func main() {
	signalled, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	context.AfterFunc(signalled, func() {
		stop() // before anybody learns of the first signal: a second one ends the process at once, as it does without us
		cancel()
	})
	os.Exit(run(ctx, os.Args[1:], newTerminal(os.Stdin, os.Stdout, os.Stderr), os.Environ()))
}
