package control

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// writesEvery is how often the queue is written to, only to see whether it takes that.
	writesEvery = 10 * time.Second
	// writesAgain is how soon after that has failed.
	writesAgain = 2 * time.Second
	// unwritten is how many tries in a row have failed before it counts: a change of a stream's leader is over by then.
	unwritten = 4
)

// takesNoWrites is what is said of a queue that answers and stores nothing. A server (2.15) that could not write once answers no write to
// that stream any more, until it is started again.
const takesNoWrites = "queue: it takes no writes: the disk of a NATS server is full, or was (make room there, then restart that server), " +
	"or a majority of the servers is away"

// writes knows whether the queue takes writes. It is looked at since nothing that is read of it tells.
type writes struct {
	bus    Bus
	groups func() []string
	failed atomic.Int32 // tries in a row
}

// probe writes now and then until ctx ends.
func (c *Control) probe(ctx context.Context) error {
	w := &c.writes
	for pause := writesEvery; ; {
		if err := sleep(ctx, pause); err != nil {
			return nil
		}
		err := w.try(ctx)
		pause = writesEvery
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			pause = writesAgain
			if w.failed.Add(1) == unwritten {
				c.log.Warn("the queue takes no writes", "error", err, "problem", takesNoWrites)
			}
		case w.failed.Swap(0) >= unwritten:
			c.log.Info("the queue takes writes again")
		}
	}
}

// try writes to the groups' queues until one takes it. A queue that is not there, or refuses, is somebody else's to tell: see diagnose.
func (w *writes) try(ctx context.Context) (err error) {
	for _, group := range w.groups() {
		if !w.bus.Connected() {
			return nil
		}
		if err = w.bus.TakesWrites(ctx, group); !errors.Is(err, faena.ErrUnknown) {
			return nil
		}
	}
	return err
}

// none reports whether it takes none.
func (w *writes) none() bool { return w.failed.Load() >= unwritten }
