package control

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
)

// halt stops every call of an API to its bus and its store while it is shut, as if the process were paused. The clocks go on.
type halt struct {
	mu   sync.Mutex
	open chan struct{} // nil: open
}

func (h *halt) shut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = make(chan struct{})
	}
}

func (h *halt) reopen() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open != nil {
		close(h.open)
		h.open = nil
	}
}

func (h *halt) pass() {
	h.mu.Lock()
	open := h.open
	h.mu.Unlock()
	if open != nil {
		<-open
	}
}

// hooks are asked before calls, by the name of the method.
type hooks struct {
	mu    sync.Mutex
	fns   map[string]func() error
	calls map[string]int
}

// on makes fn be asked before each call of a method; where it returns an error the call returns that. nil: no more.
func (h *hooks) on(method string, fn func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fns == nil {
		h.fns = make(map[string]func() error)
	}
	h.fns[method] = fn
}

// count is how often a method was called.
func (h *hooks) count(method string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls[method]
}

func (h *hooks) ask(method string) error {
	h.mu.Lock()
	if h.calls == nil {
		h.calls = make(map[string]int)
	}
	h.calls[method]++
	fn := h.fns[method]
	h.mu.Unlock()
	if fn == nil {
		return nil
	}
	return fn()
}

// faultyBus is the bus with faults put in: each hook, where set, is asked before a call. Where onPublish or onCreate returns an
// error the call returns that; after it says whether the call is made all the same, so that only its answer is lost.
type faultyBus struct {
	*natsbus.Bus
	hooks
	gate    halt
	created atomic.Int64
	full    atomic.Bool  // Fill says so
	patient atomic.Bool  // what is read is asked for again where the server takes longer than it may: the machine is busy
	older   atomic.Int64 // claims are by so much, a time.Duration
	faults  sync.Mutex
	publish func(m *faena.Message) (err error, after bool)
	create  func(r *faena.Record) (err error, after bool)
}

func newFaultyBus(b *natsbus.Bus) *faultyBus { return &faultyBus{Bus: b} }

func (b *faultyBus) meet(method string) error {
	err := b.ask(method)
	b.gate.pass()
	return err
}

// again reports whether a read is to be made again.
func (b *faultyBus) again(ctx context.Context, err error) bool {
	return b.patient.Load() && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded)
}

func (b *faultyBus) onPublish(fn func(m *faena.Message) (err error, after bool)) {
	b.faults.Lock()
	b.publish = fn
	b.faults.Unlock()
}

func (b *faultyBus) onCreate(fn func(r *faena.Record) (err error, after bool)) {
	b.faults.Lock()
	b.create = fn
	b.faults.Unlock()
}

func (b *faultyBus) Publish(ctx context.Context, user, group string, slot, publication int, m *faena.Message) (uint64, bool, error) {
	if err := b.meet("Publish"); err != nil {
		return 0, false, err
	}
	b.faults.Lock()
	fn := b.publish
	b.faults.Unlock()
	if fn != nil {
		if err, after := fn(m); err != nil {
			if after {
				_, _, _ = b.Bus.Publish(ctx, user, group, slot, publication, m)
			}
			return 0, false, err
		}
	}
	return b.Bus.Publish(ctx, user, group, slot, publication, m)
}

func (b *faultyBus) CreateRecord(ctx context.Context, r *faena.Record) (uint64, error) {
	b.created.Add(1)
	if err := b.meet("CreateRecord"); err != nil {
		return 0, err
	}
	b.faults.Lock()
	fn := b.create
	b.faults.Unlock()
	if fn != nil {
		if err, after := fn(r); err != nil {
			if after {
				_, _ = b.Bus.CreateRecord(ctx, r)
			}
			return 0, err
		}
	}
	return b.Bus.CreateRecord(ctx, r)
}

func (b *faultyBus) ClaimKey(ctx context.Context, user, hash string, claim *faena.IdempotencyClaim) (faena.IdempotencyClaim, bool, uint64, time.Duration, error) {
	if err := b.meet("ClaimKey"); err != nil {
		return faena.IdempotencyClaim{}, false, 0, 0, err
	}
	there, mine, rev, age, err := b.Bus.ClaimKey(ctx, user, hash, claim)
	return there, mine, rev, age + time.Duration(b.older.Load()), err
}

func (b *faultyBus) DropKey(ctx context.Context, user, hash string, rev uint64) error {
	if err := b.meet("DropKey"); err != nil {
		return err
	}
	return b.Bus.DropKey(ctx, user, hash, rev)
}

func (b *faultyBus) DeleteDeadLetter(ctx context.Context, group string, seq uint64) error {
	if err := b.meet("DeleteDeadLetter"); err != nil {
		return err
	}
	return b.Bus.DeleteDeadLetter(ctx, group, seq)
}

func (b *faultyBus) DeadLetterIDs(ctx context.Context, group, user string) (map[string][]string, error) {
	if err := b.meet("DeadLetterIDs"); err != nil {
		return nil, err
	}
	return b.Bus.DeadLetterIDs(ctx, group, user)
}

func (b *faultyBus) ReplaceDeadLetter(ctx context.Context, d *faena.DeadLetter, seq uint64) (uint64, error) {
	if err := b.meet("ReplaceDeadLetter"); err != nil {
		return 0, err
	}
	next, err := b.Bus.ReplaceDeadLetter(ctx, d, seq)
	if lost := b.ask("ReplacedDeadLetter"); lost != nil {
		return 0, lost
	}
	return next, err
}

func (b *faultyBus) PutDeadLetter(ctx context.Context, d *faena.DeadLetter) error {
	if err := b.meet("PutDeadLetter"); err != nil {
		return err
	}
	return b.Bus.PutDeadLetter(ctx, d)
}

func (b *faultyBus) Fill(ctx context.Context, group string) (float64, string, uint64, error) {
	if err := b.meet("Fill"); err != nil {
		return 0, "", 0, err
	}
	fraction, what, records, err := b.Bus.Fill(ctx, group)
	if b.full.Load() {
		fraction, what = 0.85, "the object store of group "+group
	}
	return fraction, what, records, err
}

func (b *faultyBus) Record(ctx context.Context, group, user, id string) (*faena.Record, uint64, error) {
	if err := b.meet("Record"); err != nil {
		return nil, 0, err
	}
	r, rev, err := b.Bus.Record(ctx, group, user, id)
	for b.again(ctx, err) {
		r, rev, err = b.Bus.Record(ctx, group, user, id)
	}
	return r, rev, err
}

func (b *faultyBus) RecordAge(ctx context.Context, group, user, id string) (*faena.Record, uint64, time.Duration, error) {
	if err := b.meet("RecordAge"); err != nil {
		return nil, 0, 0, err
	}
	r, rev, age, err := b.Bus.RecordAge(ctx, group, user, id)
	for b.again(ctx, err) {
		r, rev, age, err = b.Bus.RecordAge(ctx, group, user, id)
	}
	return r, rev, age, err
}

func (b *faultyBus) UpdateRecord(ctx context.Context, r *faena.Record, rev uint64) (uint64, error) {
	if err := b.meet("UpdateRecord"); err != nil {
		return 0, err
	}
	return b.Bus.UpdateRecord(ctx, r, rev)
}

func (b *faultyBus) LiveIDs(ctx context.Context, group string) (map[string][]string, error) {
	if err := b.meet("LiveIDs"); err != nil {
		return nil, err
	}
	return b.Bus.LiveIDs(ctx, group)
}

func (b *faultyBus) BusySlots(ctx context.Context, group, user string) (map[int]struct{}, error) {
	if err := b.meet("BusySlots"); err != nil {
		return nil, err
	}
	return b.Bus.BusySlots(ctx, group, user)
}

func (b *faultyBus) ActiveByUser(ctx context.Context, group string) (map[string]int, error) {
	if err := b.meet("ActiveByUser"); err != nil {
		return nil, err
	}
	return b.Bus.ActiveByUser(ctx, group)
}

func (b *faultyBus) SlotMessage(ctx context.Context, group, user string, slot int) (string, uint64, error) {
	if err := b.meet("SlotMessage"); err != nil {
		return "", 0, err
	}
	id, seq, err := b.Bus.SlotMessage(ctx, group, user, slot)
	for b.again(ctx, err) {
		id, seq, err = b.Bus.SlotMessage(ctx, group, user, slot)
	}
	return id, seq, err
}

func (b *faultyBus) DeleteMessage(ctx context.Context, group string, seq uint64) error {
	if err := b.meet("DeleteMessage"); err != nil {
		return err
	}
	return b.Bus.DeleteMessage(ctx, group, seq)
}

func (b *faultyBus) DeleteObject(ctx context.Context, group, name string) error {
	if err := b.meet("DeleteObject"); err != nil {
		return err
	}
	return b.Bus.DeleteObject(ctx, group, name)
}

func (b *faultyBus) Complete(ctx context.Context, r *faena.Record) error {
	if err := b.meet("Complete"); err != nil {
		return err
	}
	return b.Bus.Complete(ctx, r)
}

func (b *faultyBus) PublishChanged(kind, user, name string) error {
	if err := b.meet("PublishChanged " + kind); err != nil {
		return err
	}
	return b.Bus.PublishChanged(kind, user, name)
}

func (b *faultyBus) Workers(ctx context.Context) ([]faena.Worker, error) {
	if err := b.meet("Workers"); err != nil {
		return nil, err
	}
	return b.Bus.Workers(ctx)
}

func (b *faultyBus) PutCounter(ctx context.Context, user, name string, n int64) error {
	if err := b.meet("PutCounter"); err != nil {
		return err
	}
	return b.Bus.PutCounter(ctx, user, name, n)
}

func (b *faultyBus) HoldLease(ctx context.Context, name, holder string, rev uint64) (uint64, bool, error) {
	if err := b.meet("HoldLease"); err != nil {
		return 0, false, err
	}
	return b.Bus.HoldLease(ctx, name, holder, rev)
}

func (b *faultyBus) DropLease(ctx context.Context, name string, rev uint64) error {
	if err := b.meet("DropLease"); err != nil {
		return err
	}
	return b.Bus.DropLease(ctx, name, rev)
}

func (b *faultyBus) DeclareGroup(ctx context.Context, group string) error {
	if err := b.meet("DeclareGroup"); err != nil {
		return err
	}
	return b.Bus.DeclareGroup(ctx, group)
}

func (b *faultyBus) RemoveGroup(ctx context.Context, group string) error {
	if err := b.meet("RemoveGroup"); err != nil {
		return err
	}
	return b.Bus.RemoveGroup(ctx, group)
}

func (b *faultyBus) Terminal(ctx context.Context, group string, batch int, wait time.Duration, fn func(context.Context, []faena.Record) error,
	put func(context.Context, *faena.Record) error) error {
	if err := b.meet("Terminal"); err != nil {
		return err
	}
	return b.Bus.Terminal(ctx, group, batch, wait, fn, put)
}

// faultyDocuments is a document store that can be away, and whose inserts can fail.
type faultyDocuments struct {
	faena.Documents
	hooks
	gate    *halt // of the API's bus
	away    atomic.Bool
	inserts atomic.Int64
	insert  func(n int64) (err error, after bool) // asked before the n-th Insert; as in faultyBus
}

var errAway = faena.Unavailable(faena.ComponentStore, "store_unavailable", "The document store is away.", nil)

func (d *faultyDocuments) meet(method string) error {
	err := d.ask(method)
	d.gate.pass()
	if d.away.Load() {
		return errAway
	}
	return err
}

func (d *faultyDocuments) Insert(ctx context.Context, records []faena.Record) error {
	if err := d.meet("Insert"); err != nil {
		return err
	}
	n := d.inserts.Add(1)
	if d.insert != nil {
		if err, after := d.insert(n); err != nil {
			if after {
				_ = d.Documents.Insert(ctx, records)
			}
			return err
		}
	}
	return d.Documents.Insert(ctx, records)
}

func (d *faultyDocuments) Function(ctx context.Context, user, name string) (faena.Function, error) {
	if err := d.meet("Function"); err != nil {
		return faena.Function{}, err
	}
	return d.Documents.Function(ctx, user, name)
}

func (d *faultyDocuments) User(ctx context.Context, name string) (faena.User, error) {
	if err := d.meet("User"); err != nil {
		return faena.User{}, err
	}
	return d.Documents.User(ctx, name)
}

func (d *faultyDocuments) Users(ctx context.Context, after string, limit int) ([]faena.User, error) {
	if err := d.meet("Users"); err != nil {
		return nil, err
	}
	return d.Documents.Users(ctx, after, limit)
}

func (d *faultyDocuments) PutUser(ctx context.Context, u faena.User) (bool, error) {
	if err := d.meet("PutUser"); err != nil {
		return false, err
	}
	return d.Documents.PutUser(ctx, u)
}

func (d *faultyDocuments) UserUsage(ctx context.Context, user string) (faena.Usage, error) {
	if err := d.meet("UserUsage"); err != nil {
		return faena.Usage{}, err
	}
	return d.Documents.UserUsage(ctx, user)
}

func (d *faultyDocuments) Activation(ctx context.Context, user, id string) (faena.Record, error) {
	if err := d.meet("Activation"); err != nil {
		return faena.Record{}, err
	}
	return d.Documents.Activation(ctx, user, id)
}

func (d *faultyDocuments) Recorded(ctx context.Context, user string, ids []string) ([]string, error) {
	if err := d.meet("Recorded"); err != nil {
		return nil, err
	}
	return d.Documents.Recorded(ctx, user, ids)
}

func (d *faultyDocuments) Groups(ctx context.Context) ([]faena.Group, error) {
	if err := d.meet("Groups"); err != nil {
		return nil, err
	}
	return d.Documents.Groups(ctx)
}

func (d *faultyDocuments) Group(ctx context.Context, name string) (faena.Group, error) {
	if err := d.meet("Group"); err != nil {
		return faena.Group{}, err
	}
	return d.Documents.Group(ctx, name)
}

func (d *faultyDocuments) DeleteGroup(ctx context.Context, name string) error {
	if err := d.meet("DeleteGroup"); err != nil {
		return err
	}
	return d.Documents.DeleteGroup(ctx, name)
}

func (d *faultyDocuments) ConnectGroup(ctx context.Context, name string, at time.Time) error {
	if err := d.meet("ConnectGroup"); err != nil {
		return err
	}
	return d.Documents.ConnectGroup(ctx, name, at)
}

func (d *faultyDocuments) Prune(ctx context.Context, before time.Time, limit int) ([]faena.Record, error) {
	if err := d.meet("Prune"); err != nil {
		return nil, err
	}
	return d.Documents.Prune(ctx, before, limit)
}

func (d *faultyDocuments) HistoryStats(ctx context.Context) (faena.HistoryStats, error) {
	if err := d.meet("HistoryStats"); err != nil {
		return faena.HistoryStats{}, err
	}
	return d.Documents.HistoryStats(ctx)
}

func (d *faultyDocuments) Ping(ctx context.Context) error {
	if err := d.meet("Ping"); err != nil {
		return err
	}
	return d.Documents.Ping(ctx)
}
