package natsbus

import (
	"context"
	"fmt"
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
	if _, err := b.nc.RequestWithContext(ctx, receipt, nakWord); err != nil {
		return fmt.Errorf("hand back a message: %w", err)
	}
	return nil
}

// nakFlush is how long Nak waits until the server has what it says: a process that ends right after it must not take it along.
const nakFlush = time.Second

var (
	ackWord      = []byte("+ACK")
	progressWord = []byte("+WPI")
	nakWord      = []byte("-NAK")
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

// Nak hands the message back; it is delivered again at once. Who wants that later holds it until then: see DESIGN.md.
func (d Delivery) Nak(ctx context.Context) error {
	if err := d.b.nc.Publish(d.reply, nakWord); err != nil {
		return fmt.Errorf("hand back delivery %d: %w", d.Sequence, err)
	}
	if !d.b.Connected() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, nakFlush)
	defer cancel()
	if err := d.b.nc.FlushWithContext(ctx); err != nil { // it may have come, or comes still
		d.b.log.Debug("it is not certain that a message was handed back", "sequence", d.Sequence, "error", err)
	}
	return nil
}
