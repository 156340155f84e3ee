package systemd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	_ "unsafe" // for go:linkname

	"faena.dev/faena/internal/telemetry"
)

// journalSocket is where the library finds the journal. The host that tests run on may have one, which is left alone.
//
//go:linkname journalSocket github.com/coreos/go-systemd/v22/journal.journalSocket
var journalSocket string

// journalServer is a socket such as the journal's.
type journalServer struct{ conn *net.UnixConn }

func listenAsJournal(tb testing.TB) journalServer {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		tb.Fatal(err)
	}
	before := journalSocket
	journalSocket = path
	tb.Cleanup(func() {
		journalSocket = before
		_ = conn.Close()
	})
	return journalServer{conn}
}

// entry reads the next entry, as the journal's protocol has it.
func (j journalServer) entry(t *testing.T) map[string]string {
	t.Helper()
	buf, oob := make([]byte, 1<<20), make([]byte, 128)
	if err := j.conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, oobn, _, _, err := j.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	text := buf[:n]
	if oobn > 0 { // a large one is in a file
		text = passedFile(t, oob[:oobn])
	}
	fields := map[string]string{}
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		if name, value, ok := bytes.Cut(line, []byte("=")); ok {
			fields[string(name)], text = string(value), rest
			continue
		}
		if len(rest) < 8 || binary.LittleEndian.Uint64(rest)+9 > uint64(len(rest)) {
			t.Fatalf("the entry ends within %s", line)
		}
		size := binary.LittleEndian.Uint64(rest)
		fields[string(line)], text = string(rest[8:8+size]), rest[9+size:]
	}
	return fields
}

func passedFile(t *testing.T, oob []byte) []byte {
	t.Helper()
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		t.Fatal(len(messages), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "entry")
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// key is a secret: how it prints is its own matter.
type key struct{ bytes string }

func (key) MarshalText() ([]byte, error) { return []byte("**redacted**"), nil }

// broken is an error whose method fails.
type broken struct{ text *string }

func (b *broken) Error() string { return *b.text }

type lazy struct{}

func (lazy) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("code", 3), slog.String("name", "x"))
}

func TestJournal(t *testing.T) {
	j := listenAsJournal(t)
	var fallback bytes.Buffer
	log := slog.New(telemetry.NewJournalHandler(Journal, slog.NewTextHandler(&fallback, nil), slog.LevelDebug))
	long := strings.Repeat("long ", 200_000)
	for _, c := range []struct {
		name string
		log  func()
		want map[string]string // "" is a field that is not there
	}{
		{"attributes are fields", func() {
			log.With("activation_id", "0190", "trace_id", "4bf9").Warn("an activation was given up", "user", "ada", "function", "resize", "worker", "w1", "attempt", 2)
		}, map[string]string{"MESSAGE": "an activation was given up activation_id=0190 trace_id=4bf9 user=ada function=resize worker=w1 attempt=2", "PRIORITY": "4",
			"ACTIVATION_ID": "0190", "TRACE_ID": "4bf9", "USER": "ada", "FUNCTION": "resize", "WORKER": "w1", "ATTEMPT": "2"}},
		{"debug", func() { log.Debug("x") }, map[string]string{"MESSAGE": "x", "PRIORITY": "7"}},
		{"info", func() { log.Info("x") }, map[string]string{"PRIORITY": "6"}},
		{"error", func() { log.Error("x", "error", errors.New("not there")) }, map[string]string{"MESSAGE": `x error="not there"`, "PRIORITY": "3", "ERROR": "not there"}},
		{"groups", func() {
			log.WithGroup("exit").With("signal", 9).WithGroup("of").Info("x", "code", 137, slog.Group("main", "pid", 1), slog.Group("", "inline", true))
		}, map[string]string{"EXIT_SIGNAL": "9", "EXIT_OF_CODE": "137", "EXIT_OF_MAIN_PID": "1", "EXIT_OF_INLINE": "true",
			"MESSAGE": "x exit.signal=9 exit.of.code=137 exit.of.main.pid=1 exit.of.inline=true"}},
		{"of two with one key the last", func() { log.With("user", "ada").Info("x", "user", "bob") }, map[string]string{"USER": "bob", "MESSAGE": "x user=ada user=bob"}},
		{"names that are the journal's", func() { log.Info("x", "message", "m", "priority", 0, "unit", "u", "_pid", 7, "syslog_identifier", "i") },
			map[string]string{"MESSAGE": "x message=m priority=0 unit=u _pid=7 syslog_identifier=i", "PRIORITY": "6", "FAENA_MESSAGE": "m", "FAENA_PRIORITY": "0",
				"FAENA_UNIT": "u", "UNIT": "", "_PID": "", "PID": "7", "FAENA_SYSLOG_IDENTIFIER": "i", "SYSLOG_IDENTIFIER": filepath.Base(os.Args[0])}},
		{"names that are none", func() { log.Info("x", "größe in-MiB", 1, "2nd", 2, "", 3, "___", 4, strings.Repeat("n", 100), 5) },
			map[string]string{"GR__E_IN_MIB": "1", "FAENA_2ND": "2", "FAENA": "4", strings.Repeat("N", 64): "5"}},
		{"line breaks", func() { log.Info("two\nlines", "error", "one\ntwo\nPRIORITY=0\n") },
			map[string]string{"MESSAGE": "two\nlines error=\"one\\ntwo\\nPRIORITY=0\\n\"", "ERROR": "one\ntwo\nPRIORITY=0\n", "PRIORITY": "6"}},
		{"long values", func() { log.Info("x", "output", long) }, map[string]string{"OUTPUT": long, "MESSAGE": `x output="` + long[:1024] + `…"`}},
		{"values with methods", func() {
			log.Info("x", "key", key{"secret"}, "nil", nil, "broken", &broken{}, "raw", []byte("raw"), "lazy", lazy{}, "took", 1500*time.Millisecond,
				"at", time.Unix(0, 0).UTC(), "list", []string{"a", "b"})
		}, map[string]string{"KEY": "**redacted**", "NIL": "<nil>", "BROKEN": "!PANIC: runtime error: invalid memory address or nil pointer dereference", "RAW": "raw",
			"LAZY_CODE": "3", "LAZY_NAME": "x", "TOOK": "1.5s", "AT": "1970-01-01T00:00:00Z", "LIST": "[a b]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.log()
			entry := j.entry(t)
			for name, want := range c.want {
				if got, ok := entry[name]; got != want || ok != (want != "") {
					t.Errorf("%s is %.200q, want %.200q", name, got, want)
				}
			}
		})
	}
	if fallback.Len() > 0 {
		t.Errorf("the fallback has %.200q", fallback.String())
	}
	t.Run("below the level nothing is written", func(t *testing.T) {
		h := telemetry.NewJournalHandler(Journal, slog.DiscardHandler, slog.LevelWarn)
		if h.Enabled(t.Context(), slog.LevelInfo) || !h.Enabled(t.Context(), slog.LevelWarn) {
			t.Error("the level is not kept")
		}
	})
	t.Run("without the journal nothing is lost, and afterwards it has the rest", func(t *testing.T) {
		path := journalSocket
		journalSocket = filepath.Join(t.TempDir(), "none")
		log.With("user", "ada").WithGroup("g").Info("while it is away", "n", 1)
		journalSocket = path
		if !strings.HasSuffix(fallback.String(), "level=INFO msg=\"while it is away\" user=ada g.n=1\n") {
			t.Errorf("the fallback has %q", fallback.String())
		}
		log.Info("it is back")
		if got := j.entry(t)["MESSAGE"]; got != "it is back" {
			t.Errorf("the journal has %q", got)
		}
	})
}

// BenchmarkJournal compares an entry with a line of JSON, both to a socket that somebody reads: it takes about four times as long.
func BenchmarkJournal(b *testing.B) {
	line := func(b *testing.B, log *slog.Logger) {
		log = log.With("activation_id", "01932b5c-7b1e-7c3a-9c0e-3f1d2a4b5c6d", "trace_id", "01932b5c7b1e7c3a9c0e3f1d2a4b5c6d")
		b.ReportAllocs()
		for b.Loop() {
			log.LogAttrs(context.Background(), slog.LevelInfo, "request", slog.String("method", "POST"), slog.String("user", "ada"), slog.Int("status", 200), slog.Int64("took_us", 1234))
		}
	}
	b.Run("journal", func(b *testing.B) {
		j := listenAsJournal(b)
		go func() { _, _ = io.Copy(io.Discard, j.conn) }()
		line(b, slog.New(telemetry.NewJournalHandler(Journal, slog.DiscardHandler, slog.LevelInfo)))
	})
	b.Run("json", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "stdout") // a stream is what systemd makes standard error
		l, err := net.Listen("unix", path)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		w, err := net.Dial("unix", path)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = w.Close() }()
		r, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, r) }()
		line(b, telemetry.NewLogger(w, true, slog.LevelInfo))
	})
}
