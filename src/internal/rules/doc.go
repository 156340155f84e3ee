// Package rules is the rules of the repository as tests: who may import whom, how long a file may be, what is not
// done. It has no code of its own. A rule that stands in the way is changed here, with the reason, not worked around.
package rules
