package queue

import (
	"context"
	"slices"
	"time"

	"faena.dev/faena/internal/tools/bench/installation"
)

// Course is the memory of one process while a piece of work goes on.
type Course struct{ points []point }

type point struct {
	done float64 // share of the work, 0 to 1
	installation.Usage
}

// Early is the memory when a tenth was done, Late at the end: medians of what was seen from 10 to 20 %, and from 90 % on.
// A collector makes memory go up and down, so one look says little.
func (c *Course) Early() installation.Usage { return c.median(.1, .2) }

// Late is described at Early.
func (c *Course) Late() installation.Usage { return c.median(.9, 1.1) }

// Peak is the most that was seen.
func (c *Course) Peak() (most installation.Usage) {
	for _, p := range c.points {
		most.Resident, most.Private = max(most.Resident, p.Resident), max(most.Private, p.Private)
	}
	return most
}

// Growth is how many bytes of private memory there were more at the end than when a tenth was done.
func (c *Course) Growth() int64 { return c.Late().Private - c.Early().Private }

// median is of what was seen in a span of the work; where that was nothing, of what was seen next.
func (c *Course) median(from, to float64) (u installation.Usage) {
	var resident, private []int64
	for _, p := range c.points {
		if p.done >= from && (p.done < to || len(resident) == 0) {
			resident, private = append(resident, p.Resident), append(private, p.Private)
		}
	}
	if len(resident) == 0 {
		return u
	}
	slices.Sort(resident)
	slices.Sort(private)
	u.Resident, u.Private = resident[len(resident)/2], private[len(private)/2]
	return u
}

// watcher notes the memory of processes, with how much is done, until it is stopped.
type watcher struct {
	courses map[string]*Course // by the name of the part; to be read when ended is closed
	ended   chan struct{}
	end     chan struct{}
	err     error
}

func watch(ctx context.Context, parts map[string]*installation.Process, done func(context.Context) (float64, error)) *watcher {
	w := &watcher{courses: make(map[string]*Course, len(parts)), ended: make(chan struct{}), end: make(chan struct{})}
	for name := range parts {
		w.courses[name] = &Course{}
	}
	go func() {
		defer close(w.ended)
		for {
			if w.err = w.look(ctx, parts, done); w.err != nil {
				return
			}
			select {
			case <-w.end:
				return
			case <-time.After(lookEvery):
			}
		}
	}()
	return w
}

func (w *watcher) look(ctx context.Context, parts map[string]*installation.Process, done func(context.Context) (float64, error)) error {
	share, err := done(ctx)
	if err != nil {
		return err
	}
	for name, p := range parts {
		u, err := installation.UsageOf(p.PID())
		if err != nil {
			return err
		}
		w.courses[name].points = append(w.courses[name].points, point{share, u})
	}
	return nil
}

// stop ends the watch and returns the error that it has ended with before, if any.
func (w *watcher) stop() error {
	close(w.end)
	<-w.ended
	return w.err
}
