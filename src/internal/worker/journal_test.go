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

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
)

// receipt is a delivery that nobody has made.
type receipt string

func (r receipt) Receipt() string               { return string(r) }
func (receipt) Confirm(context.Context) error   { panic("not delivered") }
func (receipt) DoubleAck(context.Context) error { panic("not delivered") }
func (receipt) Nak(context.Context) error       { panic("not delivered") }
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
		if age := clock.SinceBoot() - held[i].confirmed; age < 0 || age > time.Minute {
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
	e[0].hold(&old, clock.SinceBoot())
	e[0].hold(&first, clock.SinceBoot()) // in its place
	e[1].hold(&second, clock.SinceBoot())
	e[1].confirmed(second.Sequence, clock.SinceBoot())
	e[2].hold(&old, clock.SinceBoot())
	e[2].clear()
	e[2].confirmed(old.Sequence, clock.SinceBoot()) // late
	e[3].hold(&old, clock.SinceBoot())
	long := delivered("ana", strings.Repeat("x", entryBytes), 3)
	e[3].hold(&long, clock.SinceBoot()) // does not fit
	e[4].hold(&old, clock.SinceBoot())
	e[4].hold(&Delivery{Acker: receipt("nameless"), User: "ana"}, clock.SinceBoot())
	want := []heldMessage{heldOf(first), heldOf(second)}
	j, held = reopened(t, dir, 1)
	if !reflect.DeepEqual(held, want) {
		t.Errorf("it holds %v, want %v", held, want)
	}
	j.entry(0).hold(&second, clock.SinceBoot())
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
			j.entry(0).hold(&d, clock.SinceBoot())
			j.entry(1).hold(&next, clock.SinceBoot())
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
		j.entry(0).hold(&d, clock.SinceBoot())
		if _, held := reopened(t, dir, 2); len(held) != 0 {
			t.Errorf("it holds %v", held)
		}
	})
	t.Run("cut off", func(t *testing.T) {
		dir := t.TempDir()
		j, _ := reopened(t, dir, 2)
		j.entry(0).hold(&d, clock.SinceBoot())
		j.entry(1).hold(&next, clock.SinceBoot())
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
		e.hold(&d, clock.SinceBoot()) // goes on without
		e.confirmed(d.Sequence, clock.SinceBoot())
		e.clear()
		j.close()
		if j != nil || held != nil {
			t.Errorf("%v, %v", j, held)
		}
	})
}

// TestJournal_spareEntry: what waits to be handed back stands behind what the places hold, each message once.
func TestJournal_spareEntry(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopened(t, dir, 1)
	placed, waits, next := delivered("ana", ack, 5), delivered("bob", "waits", 6), delivered("ana", "next", 7)
	place, spare := j.entry(0), j.spareEntry()
	place.hold(&waits, clock.SinceBoot()-3*time.Second)
	spare.hold(&waits, clock.SinceBoot()-2*time.Second) // it is on its way from one to the other
	late := waits
	late.Acker = receipt("a copy")
	j.spareEntry().hold(&late, clock.SinceBoot()-time.Second)
	if _, held := openJournal(dir, 1, slog.New(slog.DiscardHandler)); len(held) != 1 || held[0].receipt != "a copy" {
		t.Errorf("what stands there more than once is %v", held)
	}
	j, held := reopened(t, dir, 1)
	if len(held) != 1 {
		t.Errorf("the next one to start finds %v", held)
	}

	place, spare = j.entry(0), j.spareEntry()
	spare.hold(&waits, clock.SinceBoot())
	place.hold(&placed, clock.SinceBoot()-time.Hour)
	place.confirmed(waits.Sequence, clock.SinceBoot()) // late: it has left the place
	spare.clear()
	again := j.spareEntry()
	if again.at != spare.at {
		t.Errorf("an entry that is free is not used again: %d, %d", spare.at, again.at)
	}
	again.hold(&next, clock.SinceBoot())
	spare.clear()
	spare.confirmed(waits.Sequence, 0)
	_, held = openJournal(dir, 1, slog.New(slog.DiscardHandler))
	if len(held) != 2 || held[0].id != placed.ID || clock.SinceBoot()-held[0].confirmed < time.Hour || held[1].id != next.ID || clock.SinceBoot()-held[1].confirmed > time.Minute {
		t.Errorf("it holds %+v", held)
	}
	n := 2
	for j.spareEntry() != nil {
		n++
	}
	if n != maxEntries {
		t.Errorf("there are %d entries", n)
	}
	(*journal)(nil).spareEntry().hold(&next, 0) // goes on without
}

// TestWorker_leftOf: only what nobody else can have been given is handed back.
func TestWorker_leftOf(t *testing.T) {
	w := &Worker{o: Options{ID: "w1"}}
	running := faena.Record{State: faena.StateRunning, Worker: "w1", Sequence: 7, Attempt: 1}
	queued := faena.Record{State: faena.StateQueued}
	with := func(r faena.Record, change func(*faena.Record)) *faena.Record { change(&r); return &r }
	for name, c := range map[string]struct {
		rec  *faena.Record
		age  time.Duration
		want remainder
	}{
		"running here":                 {&running, 0, itsRun},
		"running here, confirmed late": {&running, handBackWithin - time.Second, itsRun},
		"running here, not any more":   {&running, handBackWithin + time.Second, nothing},
		"from another start's time":    {&running, -time.Minute, nothing},
		"running elsewhere":            {with(running, func(r *faena.Record) { r.Worker = "w2" }), 0, nothing},
		"running by another message":   {with(running, func(r *faena.Record) { r.Sequence = 8 }), 0, itsEnd},
		"queued":                       {&queued, 0, itsTurn},
		"queued, not any more here":    {&queued, time.Hour, nothing},
		"queued again":                 {with(queued, func(r *faena.Record) { r.Attempt = 1 }), 0, itsTurn},
		"in the backlog":               {with(queued, func(r *faena.Record) { r.Backlogged = true }), 0, itsEnd},
		"absent":                       {nil, 0, itsEnd},
		"absent, not any more here":    {nil, time.Hour, nothing},
		"ended":                        {with(running, func(r *faena.Record) { r.State = faena.StateFailed }), 0, itsEnd},
	} {
		t.Run(name, func(t *testing.T) {
			if got := w.leftOf(c.rec, heldMessage{sequence: 7, confirmed: clock.SinceBoot() - c.age}); got != c.want {
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
				e.hold(&d, clock.SinceBoot())
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
	w.progress.vigil.last.Store(int64(clock.SinceBoot() - w.every.stall))
	w.handle(t.Context(), t.Context(), j.entry(0), d)
	if _, held := reopened(t, dir, 1); len(held) != 0 {
		t.Errorf("it holds %v", held)
	}
	if w.every.stall > faena.AckWait-handBackWithin {
		t.Errorf("a hold of %v more is believed", w.every.stall)
	}
}
