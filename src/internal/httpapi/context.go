package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"strings"
	"time"

	"faena.dev/faena/internal/faena"
)

type callKey struct{}

// call is what is known of a request while it is answered.
type call struct {
	requestID   string
	traceparent string
	route       string // the path's template, once matched
	head        bool   // answered without the body
	bodyRead    bool   // to its end
	user        faena.User
	began       time.Time
}

func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// RequestID returns the id of the request that ctx belongs to, or "".
func RequestID(ctx context.Context) string { return callOf(ctx).requestID }

// Traceparent returns the W3C trace context of the request that ctx belongs to, or "".
func Traceparent(ctx context.Context) string { return callOf(ctx).traceparent }

// Attrs returns what every log line of a request carries: request_id and trace_id. It is nil outside of a request.
func Attrs(ctx context.Context) []slog.Attr {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return nil
	}
	return []slog.Attr{slog.String("request_id", c.requestID), slog.String("trace_id", c.traceparent[3:35])}
}

// report logs a line of the request that ctx belongs to.
func (a *API) report(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	a.log.LogAttrs(ctx, level, message, append(Attrs(ctx), attrs...)...)
}

// requestID keeps an id of the caller's that is safe in headers, logs and documents, and makes one otherwise.
func requestID(given string) string {
	if len(given) < 1 || len(given) > 128 {
		return rand.Text()
	}
	for i := range len(given) {
		if c := given[i]; !isAlphanumeric(c) && strings.IndexByte("-._:/+=@", c) < 0 {
			return rand.Text()
		}
	}
	return given
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// traceparent keeps a valid trace context as it came, since this package makes no span of its own, and begins a new
// trace otherwise.
func traceparent(given []string) string {
	if len(given) == 1 && validTraceparent(given[0]) {
		return given[0][:55]
	}
	var id [24]byte
	_, _ = rand.Read(id[:]) // never fails
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, id[:16])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[16:])
	return string(append(b, "-00"...))
}

// validTraceparent checks a header against W3C Trace Context, section 3.2. A version above 00 may carry more after
// the part that version 00 knows.
func validTraceparent(s string) bool {
	if len(s) < 55 || s[:2] == "00" && len(s) != 55 || s[:2] == "ff" || len(s) > 55 && s[55] != '-' || len(s) > 512 {
		return false
	}
	for i := range 55 {
		c, dash := s[i], i == 2 || i == 35 || i == 52
		if dash && c != '-' || !dash && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != ""
}
