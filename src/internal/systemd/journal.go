package systemd

import (
	"os"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/journal"
)

// identifier is who the entries are of. Without it the journal takes what the process was called when it looked first, which may have been
// before systemd had begun the program.
var identifier = filepath.Base(os.Args[0])

// Journal writes an entry to the host's journal, with fields besides its message by which journalctl finds it. priority is as syslog has
// it: 3 is an error, 7 the least. A name of a field is upper-case letters, digits and _, and does not begin with _; values may be of any
// length and may have line breaks. The name of the program is added to fields, which is not nil. It fails where there is no journal, and
// is safe for concurrent use.
func Journal(message string, priority int, fields map[string]string) error {
	fields["SYSLOG_IDENTIFIER"] = identifier
	return journal.Send(message, journal.Priority(priority), fields)
}
