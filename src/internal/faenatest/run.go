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
	if err := flag.Set("test.parallel", fmt.Sprint(parallel)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
