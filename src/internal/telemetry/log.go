package telemetry

import (
	"io"
	"log/slog"
)

// NewLogger returns a logger that writes one line for each record of at least level to w: as JSON, or for people where
// json is false.
func NewLogger(w io.Writer, json bool, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
