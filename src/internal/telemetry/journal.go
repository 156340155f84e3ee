package telemetry

import (
	"context"
	"encoding"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Journal writes an entry to the journal: systemd.Journal does.
type Journal func(message string, priority int, fields map[string]string) error

// Priorities of syslog.
const (
	priorityError   = 3
	priorityWarning = 4
	priorityInfo    = 6
	priorityDebug   = 7
)

const (
	// maxShown bounds what the message repeats of one attribute. Its field has all of it.
	maxShown = 1024
	// maxField is how long the name of a field may be.
	maxField = 64
)

// ownFields are names of fields that mean something to the journal, or to who reads it. An attribute of such a name has FAENA_ before it.
var ownFields = []string{"CODE_FILE", "CODE_FUNC", "CODE_LINE", "DOCUMENTATION", "ERRNO", "INVOCATION_ID", "MESSAGE", "MESSAGE_ID", "OBJECT_PID",
	"PRIORITY", "SYSLOG_FACILITY", "SYSLOG_IDENTIFIER", "SYSLOG_PID", "SYSLOG_RAW", "SYSLOG_TIMESTAMP", "TID", "UNIT", "USER_INVOCATION_ID", "USER_UNIT"}

// journalHandler writes records to the journal. Every attribute is a field of its own, named in capital letters: activation_id is
// ACTIVATION_ID, and code of the group exit EXIT_CODE. The message has them too, since that is all that journalctl shows. What the
// journal does not take goes to the fallback.
type journalHandler struct {
	send     Journal
	fallback slog.Handler
	level    slog.Leveler
	group    string  // "exit." within that group, as it is shown
	with     []field // of WithAttrs
}

// field is an attribute as it is shown, and as the journal has it.
type field struct{ key, name, value string }

// NewJournalHandler returns a handler that writes records of at least level to the journal, and to fallback what it does not take.
func NewJournalHandler(send Journal, fallback slog.Handler, level slog.Leveler) slog.Handler {
	return &journalHandler{send: send, fallback: fallback, level: level}
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	fields := make([]field, len(h.with), len(h.with)+r.NumAttrs())
	copy(fields, h.with)
	r.Attrs(func(a slog.Attr) bool {
		fields = flatten(fields, h.group, a)
		return true
	})
	var message strings.Builder
	message.WriteString(r.Message)
	named := make(map[string]string, len(fields))
	for _, f := range fields {
		message.WriteByte(' ')
		message.WriteString(f.key)
		message.WriteByte('=')
		message.WriteString(shown(f.value))
		named[f.name] = f.value
	}
	if err := h.send(message.String(), priorityOf(r.Level), named); err != nil {
		return h.fallback.Handle(ctx, r)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	next := *h
	next.fallback, next.with = h.fallback.WithAttrs(attrs), slices.Clone(h.with)
	for _, a := range attrs {
		next.with = flatten(next.with, h.group, a)
	}
	return &next
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.fallback, next.group = h.fallback.WithGroup(name), h.group+name+"."
	return &next
}

// flatten adds an attribute to the fields, or those in it where it is a group.
func flatten(fields []field, group string, a slog.Attr) []field {
	value := a.Value.Resolve()
	if a.Equal(slog.Attr{}) { // a handler leaves it out
		return fields
	}
	if value.Kind() != slog.KindGroup {
		key := group + a.Key
		return append(fields, field{key, fieldName(key), text(value)})
	}
	if a.Key != "" { // one without a name is no group of its own
		group += a.Key + "."
	}
	for _, inner := range value.Group() {
		fields = flatten(fields, group, inner)
	}
	return fields
}

// fieldName is the name of an attribute as the journal takes it.
func fieldName(key string) string {
	var b strings.Builder
	for _, r := range key {
		switch {
		case r >= 'a' && r <= 'z':
			b.WriteByte(byte(r) - 'a' + 'A')
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			b.WriteByte(byte(r))
		default:
			b.WriteByte('_')
		}
	}
	name := strings.TrimLeft(b.String(), "_") // with one before it the name is the journal's
	if name == "" || name[0] <= '9' || slices.Contains(ownFields, name) {
		name = strings.TrimSuffix("FAENA_"+name, "_")
	}
	return name[:min(len(name), maxField)]
}

// text is a value as text, whatever its methods do.
func text(v slog.Value) (s string) {
	defer func() {
		if p := recover(); p != nil {
			s = fmt.Sprintf("!PANIC: %v", p)
		}
	}()
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().Format(time.RFC3339Nano)
	case slog.KindAny:
		switch x := v.Any().(type) {
		case error:
			return x.Error()
		case encoding.TextMarshaler:
			b, err := x.MarshalText()
			if err != nil {
				return "!ERROR: " + err.Error()
			}
			return string(b)
		case []byte:
			return string(x)
		}
		return fmt.Sprintf("%+v", v.Any())
	}
	return v.String()
}

// shown is a value on the line of the message.
func shown(value string) string {
	if len(value) > maxShown {
		value = strings.ToValidUTF8(value[:maxShown], "") + "…"
	}
	plain := value != "" && !strings.ContainsFunc(value, func(r rune) bool {
		return r == '"' || r == '=' || r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r)
	})
	if plain {
		return value
	}
	return strconv.Quote(value)
}

func priorityOf(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return priorityError
	case level >= slog.LevelWarn:
		return priorityWarning
	case level >= slog.LevelInfo:
		return priorityInfo
	}
	return priorityDebug
}
