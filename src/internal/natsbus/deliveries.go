package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// pullFor is how long one pull stays with the server. Whoever leads the consumer next knows nothing of it, and nobody says so: short, since
	// after the loss of a leader, which the others notice within 4 to 9 s, a place is idle until its pull counts as lost.
	pullFor = 2 * time.Second
	// pullLost is how much later the server's word that a pull has expired may come; after that the pull counts as lost.
	pullLost = 2 * time.Second
	// doubtFor is how long after that its answer may come yet: what has waited for a process that has stood still.
	doubtFor = 5 * time.Second
	// closeFor bounds the wait of Close.
	closeFor = 2 * time.Second
	// pullAgain is how long a place waits after the server has refused a pull.
	pullAgain = 100 * time.Millisecond
)

// errClosed is what Next returns after Close.
var errClosed = errors.New("the deliveries are closed")

// Deliveries is a group's shared consumer of activations. For each place that waits in Next one pull of one message is
// with the server, and all are answered on one subscription: what nobody here can run stays in the queue for others. A
// push of batches would hoard (design section 3, step 3).
type Deliveries struct {
	b       *Bus
	pull    string // subject of a pull
	inbox   string
	sub     *nats.Subscription
	ended   <-chan struct{} // closed when the last message has been taken or handed back
	stopped func()          // forgets the reconnect callback
	body    []byte

	mu      sync.Mutex
	waiting []chan *nats.Msg // places, who came first is served first; each of capacity one
	pulls   []time.Time      // with the server: when each counts as lost. The server answers them in order
	doubt   time.Time        // until when the answer to a pull that counts as lost may come yet
	timer   *time.Timer      // of the first of pulls, or of pulling again
	closed  bool
	calmed  sync.Once
	quiet   chan struct{} // closed by calmed when no pull is with the server any more, after Close
}

// Deliveries opens the consumer of a group.
func (b *Bus) Deliveries(group string) (*Deliveries, error) {
	d := &Deliveries{b: b, pull: b.asked(pullSubject(queueStream(group), workersConsumer)), inbox: b.nc.NewInbox(),
		body: []byte(`{"batch":1,"expires":` + strconv.FormatInt(int64(pullFor), 10) + `}`), quiet: make(chan struct{})}
	var err error
	if d.sub, err = b.nc.Subscribe(d.inbox, d.arrived); err != nil {
		return nil, fmt.Errorf("subscribe to the queue of group %s: %w", group, err)
	}
	d.ended = b.own(d.sub)
	d.timer = time.AfterFunc(time.Hour, d.expired)
	d.stopped = b.OnReconnect(d.lostAll)
	return d, nil
}

// Close ends every Next, and waits until what was on its way has been handed back: for at most closeFor, and before that, with
// a worker's identity, until the last pull has been answered.
func (d *Deliveries) Close() error {
	d.stopped()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	for _, w := range d.waiting {
		close(w)
	}
	d.waiting = nil
	d.timer.Stop()
	d.calm()
	d.mu.Unlock()
	if d.b.o.confined() && d.b.Connected() {
		// In a cluster the server that leads the consumer knows nothing of inboxes in another account on another server: it
		// would go on sending to one that is gone.
		select {
		case <-d.quiet:
		case <-time.After(pullFor + pullLost):
		case <-d.ended:
		}
	}
	// The server gives nothing more to an inbox without a subscription; what it has sent before comes in the meantime.
	err := d.sub.Drain()
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unsubscribe from the queue: %w", err)
	}
	select {
	case <-d.ended:
		return nil
	case <-time.After(closeFor):
		return errors.New("unsubscribe from the queue: the server does not answer")
	}
}

// Next waits for one message until ctx ends. What it was given in that moment it returns.
func (d *Deliveries) Next(ctx context.Context) (Delivery, error) {
	w := make(chan *nats.Msg, 1)
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return Delivery{}, errClosed
	}
	d.waiting = append(d.waiting, w)
	d.fill()
	d.mu.Unlock()
	select {
	case m, ok := <-w:
		return d.delivery(m, ok)
	case <-ctx.Done():
	}
	d.mu.Lock()
	for i, other := range d.waiting {
		if other == w {
			d.waiting = append(d.waiting[:i], d.waiting[i+1:]...)
			break
		}
	}
	d.mu.Unlock()
	select {
	case m, ok := <-w:
		return d.delivery(m, ok)
	default:
		return Delivery{}, ctx.Err()
	}
}

// Waiting is how many wait in Next. That it returns at all says that none of them is stuck.
func (d *Deliveries) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting)
}

// fill sends pulls until there is one for each place that waits. The caller holds mu.
func (d *Deliveries) fill() {
	for len(d.pulls) < len(d.waiting) && !d.closed {
		if err := d.b.nc.PublishRequest(d.pull, d.inbox, d.body); err != nil {
			d.timer.Reset(pullAgain) // no connection: tried again then, and when it is back
			return
		}
		d.pulls = append(d.pulls, time.Now().Add(pullFor+pullLost))
		if len(d.pulls) == 1 {
			d.timer.Reset(pullFor + pullLost)
		}
	}
}

// arrived takes a message for the first place that waits, or the server's word on a pull.
func (d *Deliveries) arrived(m *nats.Msg) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	late := len(d.pulls) == 0 || d.pulls[0].Before(now)
	if len(d.pulls) > 0 {
		d.pulls = d.pulls[1:]
	}
	d.calm()
	if status := m.Header.Get(headerStatus); status != "" && len(m.Data) == 0 {
		switch status {
		case "404", "408": // it has expired
			d.fill()
		default: // the consumer or its leader is away
			d.timer.Reset(pullAgain)
		}
		return
	}
	if late || len(d.waiting) == 0 && now.Before(d.doubt) {
		// This process has stood still, and the message has waited for it: by now it may be somebody else's, whom an answer would hurt.
		// It comes again by itself.
		d.b.log.Warn("a message came so late that it is left for its redelivery")
		d.fill()
		return
	}
	if len(d.waiting) == 0 {
		// Its place has gone meanwhile. It goes back at once, to whoever can run it.
		if err := m.Nak(); err != nil {
			d.b.log.Debug("a message that nobody waits for could not be handed back", "error", err)
		}
		return
	}
	d.waiting[0] <- m
	d.waiting = d.waiting[1:]
}

// calm tells Close when there is nothing more to come. The caller holds mu.
func (d *Deliveries) calm() {
	if d.closed && len(d.pulls) == 0 {
		d.calmed.Do(func() { close(d.quiet) })
	}
}

// expired forgets pulls that the server never answered, and pulls again.
func (d *Deliveries) expired() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for len(d.pulls) > 0 && !d.pulls[0].After(now) {
		d.pulls, d.doubt = d.pulls[1:], now.Add(doubtFor)
	}
	d.fill()
	if len(d.pulls) > 0 {
		d.timer.Reset(time.Until(d.pulls[0]))
	}
}

// lostAll forgets every pull: they went with the connection.
func (d *Deliveries) lostAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pulls = nil
	d.fill()
}

func (d *Deliveries) delivery(m *nats.Msg, ok bool) (Delivery, error) {
	if !ok {
		return Delivery{}, errClosed
	}
	out := Delivery{b: d.b, reply: m.Reply}
	meta, err := m.Metadata()
	if err != nil {
		return Delivery{}, fmt.Errorf("read a delivery: %w", err)
	}
	out.Sequence, out.Published, out.Redelivered = meta.Sequence.Stream, meta.Timestamp, meta.NumDelivered > 1
	out.User, out.Slot, _ = slotOf(m.Subject)
	out.ID, _ = activationOf(m.Header.Get(headerMsgID))
	if out.Message, err = d.b.code.decode(m.Data); err != nil {
		out.Err, out.Raw = unknownSchema(out.ID, err), m.Data
	}
	return out, nil
}
