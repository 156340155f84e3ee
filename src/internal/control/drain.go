package control

import (
	"context"
	"fmt"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// drainWithin is how long a worker may take to say that it does as it was told, drainAgain how often it is told: what is
	// told may be lost. drainLook is how often its heartbeat is looked at.
	drainWithin = 5 * time.Second
	drainAgain  = 500 * time.Millisecond
	drainLook   = 50 * time.Millisecond
)

// DrainWorker tells a worker to take nothing more, or to take activations again, and returns it as soon as its heartbeat says so.
// KindNotFound where there is none with the id; KindUnavailable with the reason worker_does_not_answer where it does not say so
// within drainWithin: it may have heard it all the same.
func (c *Control) DrainWorker(ctx context.Context, id string, drain bool) (faena.Worker, error) {
	if _, err := c.workerCalled(ctx, id); err != nil {
		return faena.Worker{}, err
	}
	told := time.Time{}
	for began := time.Now(); time.Since(began) < drainWithin; {
		if time.Since(told) >= drainAgain {
			if err := c.o.Bus.RequestDrain(ctx, id, drain); err != nil {
				return faena.Worker{}, queueError(err)
			}
			told = time.Now()
		}
		if err := sleep(ctx, drainLook); err != nil {
			return faena.Worker{}, err
		}
		w, err := c.workerCalled(ctx, id)
		if err == nil && w.Draining == drain {
			return w, nil
		}
		if err != nil && !faena.IsKind(err, faena.KindNotFound) { // it may be between two heartbeats
			return faena.Worker{}, err
		}
	}
	what := "takes activations again"
	if drain {
		what = "takes nothing more"
	}
	return faena.Worker{}, faena.Unavailable(faena.ComponentWorker, "worker_does_not_answer",
		fmt.Sprintf("Worker %s has not said within %s that it %s. Look at `faena workers`, and at its log.", id, drainWithin, what), nil)
}

func (c *Control) workerCalled(ctx context.Context, id string) (faena.Worker, error) {
	list, err := c.Workers(ctx)
	for _, w := range list {
		if w.ID == id && err == nil {
			return w, nil
		}
	}
	if err == nil {
		err = faena.NotFound("worker", id)
	}
	return faena.Worker{}, err
}
