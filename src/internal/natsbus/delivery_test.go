package natsbus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

// none checks that nothing is delivered for a while.
func none(t *testing.T, d *natsbus.Deliveries, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if m, err := d.Next(ctx); err == nil {
		t.Fatalf("%+v was delivered", m)
	}
}

// TestBus_HandBack: what was delivered to one process is handed back by another, and delivered to a third at once.
func TestBus_HandBack(t *testing.T) {
	t.Parallel()
	for name, servers := range map[string]int{"one server": 1, "three": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := install(t, servers)
			worker := func(k int) *natsbus.Bus {
				t.Helper()
				b, err := natsbus.Connect(t.Context(), i.options(group, i.servers.URLs()[k%servers]))
				noError(t, err)
				t.Cleanup(b.Close)
				return b
			}
			lost := worker(0)
			seq := publish(t, i.api, record("ana", 0))
			d, err := lost.Deliveries(group)
			noError(t, err)
			held := next(t, d)
			receipt := held.Receipt()
			noError(t, d.Close())
			lost.Close()

			noError(t, worker(1).HandBack(t.Context(), receipt)) // AckWait is an hour
			third := worker(2)
			again := next(t, deliveries(t, third))
			if again.Sequence != seq || !again.Redelivered || again.Message.ID != held.Message.ID {
				t.Errorf("got %+v, want %d", again, seq)
			}
			noError(t, again.DoubleAck(t.Context()))
			noError(t, third.HandBack(t.Context(), receipt)) // it is gone: nothing happens
			none(t, deliveries(t, third), 300*time.Millisecond)
		})
	}
}

// TestBus_HandBack_Forged: a receipt is kept in a file. Nothing is sent to what is none.
func TestBus_HandBack_Forged(t *testing.T) {
	t.Parallel()
	i := install(t, 1)
	w := i.connect(t, group)
	js := i.servers.JetStream(t)
	theirs := i.fill(t, otherGroup)
	before := i.state(t, js)
	for _, receipt := range []string{
		"", "x", "$JS.ACK.", "$JS.ACK.>", "$JS.ACK.ACTIVATIONS-" + group + ".workers.>", "$JS.API.STREAM.DELETE.ACTIVATIONS-" + group,
		"$JS.ACK.ACTIVATIONS-" + group + ".workers.1.2.3.4", "$JS.ACK.ACTIVATIONS-" + group + ".workers.1.2.3.4.x", "$JS.ACK.ACTIVATIONS-" + group + ".workers.1.2.3.4.5.6",
		"$JS.ACK.ACTIVATIONS-" + group + ".recorder.1.2.3.4.5", "$JS.ACK.KV_activations-" + group + ".recorder.1.2.3.4.5", "$JS.ACK.ACTIVATIONS-.workers.1.2.3.4.5",
		"$JS.ACK.ACTIVATIONS-" + group + ".workers.1.2.3.4.-5", "$JS.ACK.ACTIVATIONS-A*.workers.1.2.3.4.5", theirs,
	} {
		t.Run(strings.TrimPrefix(receipt, "$JS."), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := w.HandBack(ctx, receipt); err == nil || !strings.Contains(err.Error(), "no receipt") {
				t.Errorf("got %v", err)
			}
			before = i.unchanged(t, js, before)
		})
	}
}

// TestBus_Outcomes: what became of a try is told as it is, and a try that is repeated is stored once.
func TestBus_Outcomes(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	b := join(t, c, natsbus.Options{})
	declared(t, b)
	ctx := t.Context()
	r := record("ana", 0)
	tries := map[string]func() error{
		"into the backlog": func() error { return b.PublishBacklog(ctx, "ana", group, 1, message(r)) },
		"a dead letter":    func() error { return b.PutDeadLetter(ctx, deadLetter("ana", r.ID)) },
		"a claim": func() error {
			_, mine, _, _, err := b.ClaimKey(ctx, "ana", "k", claim(r.ID))
			if err == nil && !mine {
				err = errors.New("it is another's")
			}
			return err
		},
	}
	c.StopAll()
	for name, try := range tries {
		if err := try(); !errors.Is(err, faena.ErrRetry) && !errors.Is(err, faena.ErrUnknown) {
			t.Errorf("%s, without a server: %v", name, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.PublishBacklog(ended, "ana", group, 1, message(record("ana", 1))); !errors.Is(err, faena.ErrRetry) {
		t.Errorf("of a call that has ended: %v", err)
	}
	c.StartAll(t)
	faenatest.Eventually(t, 20*time.Second, "it is connected again", b.Connected)
	for name, try := range tries {
		faenatest.EventuallyNil(t, 20*time.Second, name+" is stored", func() error { return errors.Join(try(), try()) })
	}
	if n, err := b.BacklogSize(ctx, group, "ana"); err != nil || n != 1 {
		t.Errorf("%d wait, %v", n, err)
	}
	for _, read := range []func() error{
		func() error { _, err := b.BacklogMessage(ctx, group, "ana", r.ID); return err },
		func() error { _, _, err := b.DeadLetter(ctx, group, "ana", r.ID); return err },
	} {
		noError(t, read())
		c.StopAll()
		if err := read(); err == nil || faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("without a server it is read: %v", err)
		}
		c.StartAll(t)
		faenatest.Eventually(t, 20*time.Second, "it is connected again", b.Connected)
		faenatest.EventuallyNil(t, 20*time.Second, "it is read again", func() error {
			if err := read(); err != nil {
				return fmt.Errorf("got %w", err)
			}
			return nil
		})
	}
}
