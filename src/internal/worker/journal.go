package worker

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/failpoint"
)

// journal is a file that says what this worker holds, so that its next life can hand that back at once instead of letting it wait
// for faena.AckWait. It has a fixed entry for each place, and behind those one for each message that waits to be handed back. They are
// written where the page cache keeps them when the process is killed; a power cut may lose one, and then AckWait does. Nothing depends
// on it: what it says is checked against the records.
//
//	entry: confirmed (8 bytes, ns since the host's start) | CRC-32C of the id of that start and all that follows (4) | lengths of id, user, receipt (3 × 2) | sequence (8) | id, user, receipt
//
// Whoever holds a message may have lost it after AckWait, to somebody whom an answer would hurt: so an entry says until when its
// message was certainly this worker's.
type journal struct {
	file   *os.File
	log    *slog.Logger
	size   int64       // of an entry for each place
	boot   uint32      // CRC-32C of the id of the host's start: what an earlier one wrote does not count
	failed atomic.Bool // which is said once

	mu    sync.Mutex
	freed []int64 // entries behind those of the places that are free again
	end   int64   // of all that were ever in use
}

const (
	entryBytes  = 512
	maxEntries  = 4096
	entryHeader = 8 + 4 + 3*2 + 8
	checkedFrom = 8 + 4
	// handBackWithin is how long after its last confirmation a message is certainly nobody else's.
	handBackWithin = faena.AckWait - 5*time.Second
	// handBackFor bounds all that is done about a predecessor's messages before this worker takes any.
	handBackFor = 10 * time.Second
	// sweptWithin is how long what ran waits for the first sweep: an engine that is away must not cost AckWait.
	sweptWithin = 5 * time.Second
	// handBacks is how many are looked at at once.
	handBacks = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// heldMessage is a message that an earlier life of this worker held.
type heldMessage struct {
	id, user, receipt string
	sequence          uint64
	confirmed         time.Duration // since the host's start
	at                int64         // where it stands in the journal
}

// openJournal reads what the predecessor held, which stands there until it was handed back, or begin is called: a process may be
// killed while it starts. Where the file cannot be written the worker goes on without: the journal is nil then.
func openJournal(dir string, places int, log *slog.Logger) (*journal, []heldMessage) {
	path := filepath.Join(dir, "held")
	id, err := bootID()
	if err != nil {
		log.Warn("what is held cannot be written down: after a crash it waits for its redelivery", "error", err)
		return nil, nil
	}
	boot := crc32.Checksum(id, castagnoli)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		log.Warn("what is held cannot be written down: after a crash it waits for its redelivery", "error", err)
		return nil, nil
	}
	old := make([]byte, maxEntries*entryBytes)
	n, _ := f.ReadAt(old, 0) // to the end; what cannot be read was not held
	var held []heldMessage
	for at := 0; at+entryBytes <= n; at += entryBytes {
		if m, ok := parseEntry(boot, old[at:at+entryBytes]); ok {
			m.at = int64(at)
			held = append(held, m)
		}
	}
	j := &journal{file: f, log: log, size: int64(places * entryBytes), boot: boot, end: int64(places * entryBytes)}
	if missing := places*entryBytes - n; missing > 0 { // a full disk is met now, not later
		_, err = f.WriteAt(make([]byte, missing), int64(n))
	}
	if err != nil {
		log.Warn("what is held cannot be written down: after a crash it waits for its redelivery", "error", err)
		_ = f.Close()   // nothing was written
		return nil, nil // what is handed back could not be noted, and would be handed back again
	}
	return j, j.onceEach(held)
}

// onceEach leaves of entries about one message, which was on its way from one to the other or had come twice, the last confirmed: the
// first hand-back gives it to somebody else.
func (j *journal) onceEach(held []heldMessage) []heldMessage {
	slices.SortStableFunc(held, func(a, b heldMessage) int {
		return cmp.Or(cmp.Compare(a.sequence, b.sequence), cmp.Compare(b.confirmed, a.confirmed))
	})
	return slices.CompactFunc(held, func(kept, m heldMessage) bool {
		if kept.sequence != m.sequence {
			return false
		}
		j.write(make([]byte, entryBytes), m.at)
		return true
	})
}

// begin forgets what the predecessor held. It is called before anything is held.
func (j *journal) begin() {
	if j == nil {
		return
	}
	j.write(make([]byte, j.size), 0)
	if err := j.file.Truncate(j.size); err != nil {
		j.log.Warn("what an earlier life of this worker held could not be forgotten; its records tell the next one", "error", err)
	}
}

func (j *journal) write(b []byte, at int64) {
	if _, err := j.file.WriteAt(b, at); err != nil && j.failed.CompareAndSwap(false, true) {
		j.log.Warn("what is held could not be written down", "error", err)
	}
}

func parseEntry(boot uint32, b []byte) (m heldMessage, ok bool) {
	id, user, receipt := int(binary.LittleEndian.Uint16(b[12:])), int(binary.LittleEndian.Uint16(b[14:])), int(binary.LittleEndian.Uint16(b[16:]))
	end := entryHeader + id + user + receipt
	if id == 0 || end > entryBytes || binary.LittleEndian.Uint32(b[8:]) != crc32.Update(boot, castagnoli, b[checkedFrom:end]) {
		return m, false
	}
	text := b[entryHeader:end]
	return heldMessage{id: string(text[:id]), user: string(text[id : id+user]), receipt: string(text[id+user:]),
		sequence: binary.LittleEndian.Uint64(b[18:]), confirmed: time.Duration(binary.LittleEndian.Uint64(b))}, true
}

func (j *journal) close() {
	if j != nil {
		_ = j.file.Close() // what it says does not matter any more
	}
}

// entry is the entry of one place, or of one message that waits. Its methods are safe for concurrent use, and on nil, which writes
// nothing.
type entry struct {
	j     *journal
	at    int64
	spare bool // of a message that waits: it is written once, and free for another when it is cleared

	mu      sync.Mutex
	cleared bool // of a spare one: it may be another's
	buf     [entryBytes]byte
}

// entry returns that of a place.
func (j *journal) entry(place int) *entry {
	if j == nil {
		return nil
	}
	return &entry{j: j, at: int64(place) * entryBytes}
}

// spareEntry returns one for a message that waits, nil where so many wait that the rest is not noted. It is free again when it is cleared.
func (j *journal) spareEntry() *entry {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	e := &entry{j: j, spare: true}
	if n := len(j.freed); n > 0 {
		e.at, j.freed = j.freed[n-1], j.freed[:n-1]
	} else if j.end >= maxEntries*entryBytes {
		return nil
	} else {
		e.at = j.end
		j.end += entryBytes
	}
	return e
}

func (j *journal) free(at int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.freed = append(j.freed, at)
}

// hold notes a delivery that is certainly this worker's from confirmed, since the host's start, on. One without an id, or with a receipt
// that is too long, is not noted: it comes again after AckWait.
func (e *entry) hold(d *Delivery, confirmed time.Duration) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	receipt := d.Receipt()
	end := entryHeader + len(d.ID) + len(d.User) + len(receipt)
	if d.ID == "" || end > entryBytes {
		e.wipe()
		return
	}
	b := &e.buf
	binary.LittleEndian.PutUint64(b[:], uint64(confirmed))
	binary.LittleEndian.PutUint16(b[12:], uint16(len(d.ID)))
	binary.LittleEndian.PutUint16(b[14:], uint16(len(d.User)))
	binary.LittleEndian.PutUint16(b[16:], uint16(len(receipt)))
	binary.LittleEndian.PutUint64(b[18:], d.Sequence)
	n := entryHeader
	for _, s := range [...]string{d.ID, d.User, receipt} {
		n += copy(b[n:], s)
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Update(e.j.boot, castagnoli, b[checkedFrom:n]))
	if e.spare {
		n = entryBytes // the file ends with it, and is read by whole ones
	}
	e.j.write(b[:n], e.at)
}

// clear notes that nothing is held. What has ended may stay: its record says so.
func (e *entry) clear() {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cleared {
		return
	}
	e.wipe()
	if e.spare {
		e.cleared = true
		e.j.free(e.at)
	}
}

// wipe empties it. The caller holds mu.
func (e *entry) wipe() {
	e.buf = [entryBytes]byte{}
	e.j.write(e.buf[:entryHeader], e.at)
}

// confirmed notes when the last successful confirmation of a message left, since the host's start. It may come late, when the place
// holds another one.
func (e *entry) confirmed(sequence uint64, left time.Duration) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cleared || binary.LittleEndian.Uint64(e.buf[18:]) != sequence {
		return
	}
	binary.LittleEndian.PutUint64(e.buf[:], uint64(left))
	e.j.write(e.buf[:8], e.at)
}

// handBackHeld hands back what an earlier life of this worker held, where its record says that nobody else has it. It is called
// before anything is claimed. What ran waits until the containers of that life are gone: it may be run again, and not beside itself.
func (w *Worker) handBackHeld(ctx context.Context, held []heldMessage) {
	ctx, cancel := context.WithTimeout(ctx, handBackFor)
	defer cancel()
	if ran := w.handBackAll(ctx, held, false); len(ran) > 0 {
		patience := time.NewTimer(sweptWithin)
		defer patience.Stop()
		select {
		case <-w.swept:
		case <-patience.C:
		case <-w.draining:
		}
		w.handBackAll(ctx, ran, true)
	}
	w.journal.begin()
}

// handBackAll hands back what did not run, or with ran what did. It returns what did and was not handed back for that.
func (w *Worker) handBackAll(ctx context.Context, held []heldMessage, ran bool) (later []heldMessage) {
	var mu sync.Mutex
	var looking errgroup.Group
	looking.SetLimit(handBacks)
	for _, m := range held {
		looking.Go(func() error {
			log := w.log.With("activation_id", m.id)
			back, wait, err := w.handBackOne(ctx, m, ran)
			switch {
			case err != nil:
				log.Warn("what an earlier life of this worker held was not handed back; it comes again by itself", "error", err)
			case wait:
				mu.Lock()
				defer mu.Unlock()
				later = append(later, m)
			case back:
				w.o.Observer.HandedBack()
				log.Info("what an earlier life of this worker held was handed back")
			}
			return nil
		})
	}
	_ = looking.Wait() // each has told its own
	return later
}

func (w *Worker) handBackOne(ctx context.Context, m heldMessage, ran bool) (back, later bool, err error) {
	if !faena.ValidUser(m.user) || !faena.ValidActivationID(m.id) {
		return false, false, fmt.Errorf("its id is %.40q, its user %.40q", m.id, m.user)
	}
	var rec *faena.Record
	err = retry(ctx, func(ctx context.Context) (err error) {
		rec, _, err = w.o.Bus.Record(ctx, w.o.Group, m.user, m.id)
		if faena.IsKind(err, faena.KindNotFound) {
			rec, err = nil, nil
		}
		if errors.Is(err, faena.ErrSchema) {
			err = permanent{err}
		}
		return err
	})
	left := w.leftOf(rec, m)
	if err != nil || left == nothing {
		return false, false, err
	}
	if left == itsRun && !ran {
		return false, true, nil
	}
	failpoint.Hit("worker/before-hand-back")
	w.journal.write(make([]byte, entryBytes), m.at) // before: a successor must not hand back what somebody else has been given since
	err = once(ctx, func(ctx context.Context) error { return w.o.Bus.HandBack(ctx, m.receipt) })
	return left != itsEnd && err == nil, false, err
}

// remainder is what is left to do of what an earlier life of this worker held.
type remainder int

const (
	nothing remainder = iota // it is, or may be, somebody else's
	itsTurn                  // it waits for its start, or for its next attempt
	itsRun                   // it ran
	itsEnd                   // to acknowledge it, unless that was done: whoever gets it next does, and its slot is free
)

// leftOf says what is left to do of a message that an earlier life of this worker held; rec is nil where its record is absent.
func (w *Worker) leftOf(rec *faena.Record, m heldMessage) remainder {
	switch age := clock.SinceBoot() - m.confirmed; {
	case age < 0 || age > handBackWithin:
		return nothing
	case rec == nil || rec.State.Terminal() || rec.Backlogged:
		return itsEnd
	case rec.State == faena.StateQueued:
		return itsTurn
	case rec.Sequence != m.sequence: // a copy
		return itsEnd
	case rec.Worker == w.o.ID:
		return itsRun
	}
	return nothing
}
