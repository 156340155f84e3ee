package faenatest

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// Run runs a package's tests with so many at once, which may be more than there are cores: they wait more than they compute.
// It is for a TestMain, and returns the exit code.
func Run(m *testing.M, parallel int) int {
	flag.Parse()
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" {
		return m.Run() // there the number is that of processes, and the caller's
	}
	if err := flag.Set("test.parallel", fmt.Sprint(parallel)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
