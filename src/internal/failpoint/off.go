//go:build !failpoints

package failpoint

// Hit does nothing: this is not a build for tests of failure.
func Hit(string) {}
