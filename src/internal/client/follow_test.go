package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// lines is a log as it comes, in parts; one is no text.
var lines = []string{"first\n", "\xff\x00", "third line\n"}

// events is the log as the API sends it to a caller who has the bytes before an offset.
func events(t *testing.T, from int) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(": \n\n")
	write := func(id int, event string, data any) {
		p, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		if id > 0 {
			fmt.Fprintf(&b, "id: %d\n", id)
		}
		fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", event, p)
	}
	offset := 0
	for _, l := range lines {
		if offset >= from {
			write(offset+len(l), "log", LogEvent{Offset: int64(offset), Data: []byte(l)})
			b.WriteString(": \n\n")
		}
		offset += len(l)
	}
	write(0, "end", EndEvent{ActivationID: "id", State: StateFailed, Reason: "exit_nonzero"})
	return b.String()
}

// from is the offset that a request asks for.
func from(t *testing.T, r *http.Request) int {
	t.Helper()
	n, err := strconv.Atoi(r.Header.Get("Last-Event-ID"))
	if err != nil {
		t.Errorf("Last-Event-ID is %q", r.Header.Get("Last-Event-ID"))
	}
	return n
}

func follow(t *testing.T, c *Client) (log string, end EndEvent, err error) {
	t.Helper()
	var b strings.Builder
	end, err = c.FollowLogs(t.Context(), "id", 0, func(p []byte) error { b.Write(p); return nil })
	return b.String(), end, err
}

// Wherever the connection is cut, each byte of the log is given once, in order.
func TestFollowLogs_CutAnywhere(t *testing.T) {
	whole := events(t, 0)
	for cut := range len(whole) + 1 {
		var calls atomic.Int64
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			text := events(t, from(t, r))
			if calls.Add(1) > 1 {
				_, _ = io.WriteString(w, text)
				return
			}
			_, _ = io.WriteString(w, text[:cut])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		log, end, err := follow(t, connect(t, s.URL))
		if err != nil || log != strings.Join(lines, "") || end.State != StateFailed || end.Reason != "exit_nonzero" {
			t.Fatalf("cut after %q: %v, log %q, end %+v", whole[:cut], err, log, end)
		}
		s.Close()
	}
}

func TestFollowLogs(t *testing.T) {
	unavailable := func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"reason":"queue_unavailable","status":503,"retryable":true,"title":"Unavailable"}`)
	}
	t.Run("an appliance that is away for a moment", func(t *testing.T) {
		var calls atomic.Int64
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch n := calls.Add(1); {
			case n <= 3:
				unavailable(w)
			case n <= 4:
				panic(http.ErrAbortHandler)
			default:
				_, _ = io.WriteString(w, events(t, from(t, r)))
			}
		})
		if log, _, err := follow(t, connect(t, s.URL)); err != nil || log != strings.Join(lines, "") {
			t.Errorf("%v, log %q", err, log)
		}
	})
	t.Run("an appliance that stays away", func(t *testing.T) {
		var calls atomic.Int64
		s := serve(t, func(http.ResponseWriter, *http.Request) { calls.Add(1); panic(http.ErrAbortHandler) })
		if _, _, err := follow(t, connect(t, s.URL)); !errors.Is(err, ErrAway) || calls.Load() != followTries+1 {
			t.Errorf("after %d calls: %v", calls.Load(), err)
		}
	})
	t.Run("a connection that is lost often, but gives something each time", func(t *testing.T) {
		var calls atomic.Int64
		const parts = 4 * followTries
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			n := from(t, r)
			if n == parts {
				_, _ = io.WriteString(w, "event: end\ndata: {\"state\":\"succeeded\"}\n\n")
				return
			}
			fmt.Fprintf(w, "event: log\ndata: {\"offset\":%d,\"data\":\"eA==\"}\n\n", n) // the caller sees a short answer
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		log, end, err := follow(t, connect(t, s.URL))
		if err != nil || log != strings.Repeat("x", parts) || end.State != StateSucceeded {
			t.Errorf("%v after %d calls, log %q, end %+v", err, calls.Load(), log, end)
		}
	})
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		want   string
	}{
		"an activation that is not there": {func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"reason":"activation_not_found","status":404,"detail":"It is not there."}`)
		}, "It is not there. (activation_not_found)"},
		"an error on the way": {func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "event: error\ndata: {\"reason\":\"internal\",\"status\":500,\"detail\":\"It broke.\"}\n\n")
		}, "It broke. (internal)"},
		"an event that is none": {func(w http.ResponseWriter) { _, _ = io.WriteString(w, "event: log\ndata: {\n\n") }, "read a log event: unexpected end of JSON input"},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int64
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) { calls.Add(1); c.answer(w) })
			if _, _, err := follow(t, connect(t, s.URL)); err == nil || err.Error() != c.want || calls.Load() != 1 {
				t.Errorf("after %d calls: %v, want %s", calls.Load(), err, c.want)
			}
		})
	}
}

// Who follows may stop at any time, at once.
func TestFollowLogs_Stops(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "event: log\ndata: {\"offset\":0,\"data\":\"eA==\"}\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	t.Run("by an error", func(t *testing.T) {
		stop := errors.New("the pipe is closed")
		if _, err := connect(t, s.URL).FollowLogs(t.Context(), "id", 0, func([]byte) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("by the context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := connect(t, s.URL).FollowLogs(ctx, "id", 0, func([]byte) error { cancel(); return nil }); err == nil {
			t.Error("no error")
		}
	})
}
