package systemd

import (
	"github.com/coreos/go-systemd/v22/journal"
)

// Journal writes an entry to the host's journal, with fields besides its message by which journalctl finds it. priority is as syslog has
// it: 3 is an error, 7 the least. A name of a field is upper-case letters, digits and _, and does not begin with _; values may be of any
// length and may have line breaks. It fails where there is no journal, and is safe for concurrent use.
func Journal(message string, priority int, fields map[string]string) error {
	return journal.Send(message, journal.Priority(priority), fields)
}
