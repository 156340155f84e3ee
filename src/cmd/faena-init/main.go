// Command faena-init is the first process of every function container. It runs one process after the other for the
// worker at the other end of its socket (package sandbox has the protocol), reports what each wrote and how it ended,
// and kills everything that a process leaves behind. When the worker is gone it kills everything and exits, and the
// container with it.
//
// All is done by one goroutine with plain system calls: a container has few resources, and they are the function's.
package main

import (
	"fmt"
	"os"
)

// Exit codes. Whoever looks at a dead container finds them there.
const (
	exitGone  = 0 // the worker has closed the connection
	exitSetup = 1 // no connection could be made
	exitBroke = 2 // the connection broke, or what a function left could not be cleaned up
)

func main() { os.Exit(run()) }

func run() int {
	i, err := prepare()
	if err != nil {
		fmt.Fprintln(os.Stderr, "faena-init:", err)
		return exitSetup
	}
	if err := i.serve(); err != nil {
		fmt.Fprintln(os.Stderr, "faena-init:", err)
		return exitBroke // and with it the kernel kills whatever is left, whoever it runs as
	}
	return exitGone
}
