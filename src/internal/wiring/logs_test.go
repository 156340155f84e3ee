package wiring_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"faena.dev/faena/internal/client"
)

// logs reads what is kept of an activation's log.
func logs(t *testing.T, c *client.Client, id string) (string, http.Header) {
	t.Helper()
	res, err := client.Stream(c.GetLogs(t.Context(), id, &client.GetLogsParams{Follow: client.GetLogsParamsFollowFalse}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), res.Header
}

func testLogs(t *testing.T, i *installation) {
	c := i.user(t, "logger", 20)
	i.deploy(t, c, "tick", nil, "tick", "10", "40")
	i.deploy(t, c, "err", nil, "err")
	i.deploy(t, c, "exit", nil, "exit")
	i.deploy(t, c, "babble", func(s *client.Spec) { s.TimeoutMs = 500 }, "tick", "100000000", "0")
	var ticked string
	t.Run("it is followed while it grows", func(t *testing.T) {
		id := async(t, c, "tick", "")
		var log bytes.Buffer
		end, err := c.FollowLogs(t.Context(), id, 0, func(p []byte) error {
			if log.Len() == 0 {
				if a, err := client.Read[client.Activation](c.GetActivation(t.Context(), id)); err != nil || a.State != client.StateRunning {
					t.Errorf("at its first line it is %s, %v", a.State, err)
				}
			}
			log.Write(p)
			return nil
		})
		ticked = log.String()
		if err != nil || end.State != client.StateSucceeded || strings.Count(ticked, "tick") != 10 || !strings.HasPrefix(ticked, "tick 0\n") {
			t.Errorf("%+v, %v, log %q", end, err, ticked)
		}
		if kept, _ := logs(t, c, id); kept != ticked {
			t.Errorf("%q is kept", kept)
		}
		log.Reset()
		if _, err := c.FollowLogs(t.Context(), id, 14, func(p []byte) error { log.Write(p); return nil }); err != nil || log.String() != ticked[14:] {
			t.Errorf("from byte 14 on it is %q, %v", log.String(), err)
		}
	})
	t.Run("it is there for who comes while it runs", func(t *testing.T) {
		i.deploy(t, c, "stubborn", nil, "stubborn")
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		id := async(t, c, "stubborn", "")
		_, _ = c.FollowLogs(ctx, id, 0, func([]byte) error { stop(); return nil }) // the first piece has come
		if log, h := logs(t, c, id); log != "here" || h.Get("Faena-State") != string(client.StateRunning) {
			t.Errorf("it is %q, %v", log, h)
		}
		if _, err := client.Read[client.Activation](c.CancelActivation(t.Context(), id)); err != nil {
			t.Fatal(err)
		}
		if a := ended(t, c, id); a.Log.Size != int64(len("here")) {
			t.Errorf("of the cancelled one %d bytes are kept", a.Log.Size)
		}
		if log, _ := logs(t, c, id); log != "here" {
			t.Errorf("of the cancelled one %q is kept", log)
		}
	})
	t.Run("of one that failed it is kept", func(t *testing.T) {
		o := outcomeOf(t, c, "exit", "3")
		if log, h := logs(t, c, o.record.ActivationID); log != "err" || h.Get("Faena-State") != string(client.StateFailed) {
			t.Errorf("it is %q, %v", log, h)
		}
	})
	t.Run("the problem shows the last 4 KiB of a long one", func(t *testing.T) {
		o := outcomeOf(t, c, "babble", "")
		if o.failed == nil || o.failed.Reason != "timeout" {
			t.Fatalf("it ended with %v", o.failed)
		}
		log, _ := logs(t, c, o.record.ActivationID)
		if len(log) <= 4096 || o.failed.LogTail != log[len(log)-4096:] || !o.failed.LogTruncated {
			t.Errorf("%d bytes are kept, %d shown, truncated %v: they should be the last", len(log), len(o.failed.LogTail), o.failed.LogTruncated)
		}
	})
	for name, n := range map[string]int{"as much as is kept": 1 << 20, "more than is kept": 3<<20 + 1} {
		t.Run(name, func(t *testing.T) {
			o := outcomeOf(t, c, "err", strconv.Itoa(n))
			dropped := n - 1<<20
			if l := o.record.Log; string(o.result) != "done" || l.Size != 1<<20 || l.Dropped != int64(dropped) || l.Truncated != (dropped > 0) {
				t.Errorf("the result is %q, the log %+v", o.result, l)
			}
			log, h := logs(t, c, o.record.ActivationID)
			if log != string(pattern(n)[dropped:]) {
				t.Errorf("%d bytes are kept, and not the last", len(log))
			}
			if said := h.Get("Faena-Dropped"); dropped > 0 != (said == strconv.Itoa(dropped)) {
				t.Errorf("%q are said to be dropped, want %d", said, dropped)
			}
		})
	}
}
