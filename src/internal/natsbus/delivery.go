package natsbus

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"faena.dev/faena/internal/faena"
)

// Delivery is one message that is held until it is acknowledged, handed back, or not confirmed any more.
type Delivery struct {
	Message     *faena.Message // nil where Err is set
	Err         error          // why the message could not be decoded; another version's is a *faena.Error of faena.ErrSchema
	Sequence    uint64         // in the stream; a redelivery has the same
	Redelivered bool           // it was delivered before
	Published   time.Time      // by the server's clock
	User        string         // whose slot it is in, also where the message could not be decoded
	Slot        int            // likewise: which of them
	ID          string         // of the activation by the message's header; "" where it has none
	Raw         []byte         // the message where Err is set

	b     *Bus
	reply string
}

// Receipt is what this process, or one that comes after it, hands the message back by: see HandBack.
func (d Delivery) Receipt() string { return d.reply }

// HandBack hands back what was delivered to a process that is gone; it is delivered again at once. The caller has made sure, by
// the record, that nobody else holds the message: an answer takes effect on whoever does. It waits for the server's answer, which
// comes also where the message is not there any more.
func (b *Bus) HandBack(ctx context.Context, receipt string) error {
	if group, ok := receiptOf(receipt); !ok || b.o.Group != "" && group != b.o.Group {
		return fmt.Errorf("hand back a message: %q is no receipt of this daemon's queue", receipt)
	}
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	if _, err := b.nc.RequestWithContext(ctx, receipt, []byte(nakWord)); err != nil {
		return fmt.Errorf("hand back a message: %w", err)
	}
	return nil
}

// nakFlush is how long Nak waits until the server has what it says: a process that ends right after it must not take it along.
const nakFlush = time.Second

var (
	ackWord      = []byte("+ACK")
	progressWord = []byte("+WPI")
	nakWord      = "-NAK"
)

// Confirm says that the message is still being worked on, and waits for the server's answer.
func (d Delivery) Confirm(ctx context.Context) error { return d.answer(ctx, progressWord) }

// DoubleAck removes the message from the stream; when it returns nil the user's slot is free.
func (d Delivery) DoubleAck(ctx context.Context) error { return d.answer(ctx, ackWord) }

func (d Delivery) answer(ctx context.Context, word []byte) error {
	if _, err := d.b.nc.RequestWithContext(ctx, d.reply, word); err != nil {
		return fmt.Errorf("answer delivery %d: %w", d.Sequence, err)
	}
	return nil
}

// Nak hands the message back; it is delivered again after delay. Up to faena.MaxSlotDelay that is waited for here, and the message
// confirmed meanwhile: the server (2.15.2) at times keeps a message that was handed back with a delay for much longer, see
// DESIGN.md. Close ends the wait.
func (d Delivery) Nak(ctx context.Context, delay time.Duration) error {
	if 0 < delay && delay <= faena.MaxSlotDelay {
		d.keep(delay)
		return nil
	}
	word := nakWord
	if delay > 0 {
		word += ` {"delay":` + strconv.FormatInt(int64(delay), 10) + `}`
	}
	if err := d.nak(word); err != nil || !d.b.Connected() {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, nakFlush)
	defer cancel()
	if err := d.b.nc.FlushWithContext(ctx); err != nil { // it may have come, or comes still
		d.b.log.Debug("it is not certain that a message was handed back", "sequence", d.Sequence, "error", err)
	}
	return nil
}

func (d Delivery) nak(word string) error {
	if err := d.b.nc.Publish(d.reply, []byte(word)); err != nil {
		return fmt.Errorf("hand back delivery %d: %w", d.Sequence, err)
	}
	return nil
}

// postponed is a delivery that waits in this process to be handed back. There may be thousands, so no goroutine waits with it.
type postponed struct {
	Delivery
	due    time.Time
	sure   time.Duration // since the host's start, which goes on while that is suspended: until then the server gives the message to nobody else
	forget func() bool   // takes back what is to happen at Close; false where that has begun
}

// keep hands the message back after delay.
func (d Delivery) keep(delay time.Duration) {
	// Who holds a message confirms it at least every third part of AckWait: so much is left.
	p := &postponed{Delivery: d, due: time.Now().Add(delay), sure: d.b.boot() + d.b.o.AckWait/2}
	d.b.naks.Add(1)
	p.wait(p.pause())
}

// pause is how long nothing has to be done.
func (p *postponed) pause() time.Duration { return min(time.Until(p.due), p.b.o.AckWait/3) }

func (p *postponed) wait(pause time.Duration) {
	p.forget = p.b.atStop(p.end)
	time.AfterFunc(pause, func() {
		if p.forget() {
			p.next()
		}
	})
}

// lapsed reports whether somebody else may have been given the message.
func (p *postponed) lapsed() bool { return p.b.boot() >= p.sure }

// next hands the message back where that is due, and otherwise confirms it.
func (p *postponed) next() {
	if !time.Now().Before(p.due) || p.lapsed() {
		p.end()
		return
	}
	ctx, cancel := p.b.within(tryFor)
	defer cancel()
	began := p.b.boot()
	if err := p.Confirm(ctx); err != nil {
		p.wait(min(p.pause(), p.b.o.AckWait/30))
		return
	}
	p.sure = began + p.b.o.AckWait/6*5
	p.wait(p.pause())
}

// end hands the message back, unless somebody else may have been given it: any answer would be taken for his, and no confirmation
// tells who holds it.
func (p *postponed) end() {
	defer p.b.naks.Done()
	if p.lapsed() {
		p.b.log.Debug("a message could not be confirmed, and comes again by itself", "sequence", p.Sequence)
		return
	}
	if err := p.nak(nakWord); err != nil {
		p.b.log.Debug("a message comes again later than it should", "sequence", p.Sequence, "error", err)
	}
}
