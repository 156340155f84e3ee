// Command faena is Faena's command line: `faena up` runs the whole appliance in this process, everything else is a client
// of a running one. Data goes to standard output, everything said to a person to standard error.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes; exitCodes says what they mean.
const (
	exitOK              = 0
	exitFailed          = 1
	exitUsage           = 2
	exitFunctionFailed  = 3
	exitNotFound        = 4
	exitUnauthenticated = 5
	exitLimit           = 6
	exitUnavailable     = 7
	exitInvalid         = 8
	exitUnknown         = 9
	exitInterrupted     = 130
)

// exitCodes are listed by faena --help, for scripts.
var exitCodes = []struct {
	code          int
	name, meaning string
}{
	{exitOK, "ok", "done; of invoke: the function succeeded"},
	{exitFailed, "failed", "anything without a code of its own"},
	{exitUsage, "usage", "the command line, or a setting of faena up, is wrong"},
	{exitFunctionFailed, "function failed", "the activation ended, without success"},
	{exitNotFound, "not found", "no such function, activation, dead letter, user, group or worker"},
	{exitUnauthenticated, "unauthenticated", "credentials are missing, wrong, or not enough"},
	{exitLimit, "limit", "at the user's limit"},
	{exitUnavailable, "unavailable", "the appliance, or a part of it, does not answer"},
	{exitInvalid, "invalid", "refused: it breaks a rule"},
	{exitUnknown, "unknown", "the activation may have been accepted, or not"},
	{exitInterrupted, "interrupted", "Ctrl-C"},
}

func main() {
	signalled, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	context.AfterFunc(signalled, func() {
		stop() // before anybody learns of the first signal: a second one ends the process at once, as it does without us
		cancel()
	})
	os.Exit(run(ctx, os.Args[1:], newTerminal(os.Stdin, os.Stdout, os.Stderr), os.Environ()))
}
