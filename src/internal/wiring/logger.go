package wiring

import (
	"io"
	"log/slog"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/systemd"
	"faena.dev/faena/internal/telemetry"
)

// NewLogger returns the logger that the settings ask for. Lines go to w, also those that the journal does not take.
func NewLogger(w io.Writer, c config.Log) *slog.Logger {
	lines := telemetry.NewLogger(w, c.Format != config.LogText, c.Level)
	if c.Format != config.LogJournal {
		return lines
	}
	return slog.New(telemetry.NewJournalHandler(systemd.Journal, lines.Handler(), c.Level))
}
