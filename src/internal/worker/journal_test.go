package worker

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/faena"
)

// receipt is a delivery that nobody has made.
type receipt string

func (r receipt) Receipt() string                        { return string(r) }
func (receipt) Confirm(context.Context) error            { panic("not delivered") }
func (receipt) DoubleAck(context.Context) error          { panic("not delivered") }
func (receipt) Nak(context.Context, time.Duration) error { panic("not delivered") }
func delivered(user, r string, sequence uint64) Delivery {
	return Delivery{Acker: receipt(r), User: user, ID: uuid.Must(uuid.NewV7()).String(), Sequence: sequence}
}

// ack is a receipt as long as the server makes them, with the longest names.
var ack = "$JS.ACK." + strings.Repeat("D", 32) + ".AbCdEfGh.ACTIVATIONS-" + strings.Repeat("g", 63) + ".workers.1000.18446744073709551615.18446744073709551615." +
	"1764137000000000000.100000.AbCdEfGh"

func reopened(t *testing.T, dir string, places int) (*journal, []heldMessage) {
	t.Helper()
	j, held := openJournal(dir, places, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if j == nil {
		t.Fatal("it cannot be written")
	}
	t.Cleanup(j.close)
	if _, again := openJournal(dir, places, slog.New(slog.DiscardHandler)); !reflect.DeepEqual(again, held) {
		t.Errorf("who starts and is killed leaves %v of %v", again, held)
	}
	j.begin()
	for i := range held {
		if age := sinceBoot() - held[i].confirmed; age < 0 || age > time.Minute {
			t.Errorf("%s was confirmed %v ago", held[i].id, age)
		}
		held[i].confirmed, held[i].at = 0, 0
	}
	return j, held
}

func heldOf(d Delivery) heldMessage {
	return heldMessage{id: d.ID, user: d.User, receipt: d.Receipt(), sequence: d.Sequence}
}

// TestJournal: what is held when a process ends is what its next life reads, and reads once.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	j, held := reopened(t, dir, 5)
	if len(held) != 0 {
		t.Errorf("a new one holds %v", held)
	}
	first, second := delivered("ana", "short", 1), delivered(strings.Repeat("u", 63), ack, 1<<63)
	e := []*entry{j.entry(0), j.entry(1), j.entry(2), j.entry(3), j.entry(4)}
	old := delivered("before", ack, 7)
	e[0].hold(&old)
	e[0].hold(&first) // in its place
	e[1].hold(&second)
	e[1].confirmed(time.Now())
	e[2].hold(&old)
	e[2].clear()
	e[2].confirmed(time.Now()) // late
	e[3].hold(&old)
	long := delivered("ana", strings.Repeat("x", entryBytes), 3)
	e[3].hold(&long) // does not fit
	e[4].hold(&old)
	e[4].hold(&Delivery{Acker: receipt("nameless"), User: "ana"})
	want := []heldMessage{heldOf(first), heldOf(second)}
	j, held = reopened(t, dir, 1)
	if !reflect.DeepEqual(held, want) {
		t.Errorf("it holds %v, want %v", held, want)
	}
	j.entry(0).hold(&second)
	if _, held = reopened(t, dir, 8); !reflect.DeepEqual(held, want[1:]) {
		t.Errorf("with fewer places it holds %v, want %v", held, want[1:])
	}
	if _, held = reopened(t, dir, 8); len(held) != 0 {
		t.Errorf("read once, it holds %v", held)
	}
}

// TestJournal_Damaged: what was not written as it is read is skipped.
func TestJournal_Damaged(t *testing.T) {
	d, next := delivered("ana", ack, 5), delivered("bob", "next", 6)
	for name, damage := range map[string]func([]byte) []byte{
		"a bit":           func(b []byte) []byte { b[entryHeader+3] ^= 1; return b },
		"the length":      func(b []byte) []byte { b[12] = 200; return b },
		"no length":       func(b []byte) []byte { b[12], b[13] = 0, 0; return b },
		"a great length":  func(b []byte) []byte { b[16], b[17] = 255, 255; return b },
		"the sequence":    func(b []byte) []byte { b[18]++; return b },
		"another's bytes": func(b []byte) []byte { copy(b, strings.Repeat("nothing of ours ", 100)[:entryBytes]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j, _ := reopened(t, dir, 2)
			j.entry(0).hold(&d)
			j.entry(1).hold(&next)
			path := filepath.Join(dir, "held")
			b, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, damage(b), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, held := reopened(t, dir, 2); !reflect.DeepEqual(held, []heldMessage{heldOf(next)}) {
				t.Errorf("it holds %v", held)
			}
		})
	}
	t.Run("of another start of the host", func(t *testing.T) {
		dir := t.TempDir()
		j, _ := reopened(t, dir, 2)
		j.boot++
		j.entry(0).hold(&d)
		if _, held := reopened(t, dir, 2); len(held) != 0 {
			t.Errorf("it holds %v", held)
		}
	})
	t.Run("cut off", func(t *testing.T) {
		dir := t.TempDir()
		j, _ := reopened(t, dir, 2)
		j.entry(0).hold(&d)
		j.entry(1).hold(&next)
		if err := os.Truncate(filepath.Join(dir, "held"), entryBytes+30); err != nil {
			t.Fatal(err)
		}
		if _, held := reopened(t, dir, 2); !reflect.DeepEqual(held, []heldMessage{heldOf(d)}) {
			t.Errorf("it holds %v", held)
		}
	})
	t.Run("that cannot be opened", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "held"), 0o700); err != nil {
			t.Fatal(err)
		}
		j, held := openJournal(dir, 2, slog.New(slog.DiscardHandler))
		e := j.entry(0)
		e.hold(&d) // goes on without
		e.confirmed(time.Now())
		e.clear()
		j.close()
		if j != nil || held != nil {
			t.Errorf("%v, %v", j, held)
		}
	})
}

// TestWorker_stillOf: only what nobody else can have been given is handed back.
func TestWorker_stillOf(t *testing.T) {
	w := &Worker{o: Options{ID: "w1"}}
	running := faena.Record{State: faena.StateRunning, Worker: "w1", Sequence: 7, Attempt: 1}
	queued := faena.Record{State: faena.StateQueued}
	with := func(r faena.Record, change func(*faena.Record)) *faena.Record { change(&r); return &r }
	for name, c := range map[string]struct {
		rec  *faena.Record
		age  time.Duration
		want bool
	}{
		"running here":                 {&running, 0, true},
		"running here, confirmed late": {&running, handBackWithin - time.Second, true},
		"running here, not any more":   {&running, handBackWithin + time.Second, false},
		"from another start's time":    {&running, -time.Minute, false},
		"running elsewhere":            {with(running, func(r *faena.Record) { r.Worker = "w2" }), 0, false},
		"running by another message":   {with(running, func(r *faena.Record) { r.Sequence = 8 }), 0, false},
		"queued":                       {&queued, 0, true},
		"queued, not any more here":    {&queued, time.Hour, false},
		"queued again":                 {with(queued, func(r *faena.Record) { r.Attempt = 1 }), 0, true},
		"in the backlog":               {with(queued, func(r *faena.Record) { r.Backlogged = true }), 0, false},
		"absent":                       {nil, 0, false},
		"ended":                        {with(running, func(r *faena.Record) { r.State = faena.StateFailed }), 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := w.stillOf(c.rec, heldMessage{sequence: 7, confirmed: sinceBoot() - c.age}); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// BenchmarkEntry is what the journal costs an activation: one entry, since what has ended stays until the next one.
func BenchmarkEntry(b *testing.B) {
	j, _ := openJournal(b.TempDir(), 1, slog.New(slog.DiscardHandler))
	defer j.close()
	e := j.entry(0)
	for name, d := range map[string]Delivery{"usual": delivered("jorgeSD", "$JS.ACK.ACTIVATIONS-default.workers.1.123456.123456.1764137000000000000.3", 123456),
		"longest": delivered(strings.Repeat("u", 63), ack, 1<<63)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e.hold(&d)
			}
		})
	}
}

// TestWorker_handle_Doubtful: what may be somebody else's by now is neither written down nor answered for, also where it is a copy of
// what is held here.
func TestWorker_handle_Doubtful(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopened(t, dir, 1)
	d := delivered("ana", ack, 5) // which panics when it is answered
	w := &Worker{o: Options{Observer: noObserver{}}, log: slog.New(slog.NewTextHandler(t.Output(), nil)), every: defaultPeriods(),
		held: holds{byID: map[string]*activation{d.ID: {id: d.ID}}}}
	w.progress = &progress{w: w}
	w.progress.vigil.last.Store(int64(sinceBoot() - w.every.stall))
	w.handle(t.Context(), t.Context(), j.entry(0), d)
	if _, held := reopened(t, dir, 1); len(held) != 0 {
		t.Errorf("it holds %v", held)
	}
	if w.every.stall > faena.AckWait-handBackWithin {
		t.Errorf("a hold of %v more is believed", w.every.stall)
	}
}
