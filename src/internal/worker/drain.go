package worker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// A worker drains while it is asked to, over restarts: what runs comes to its end, what has not started is handed back, and nothing
// is taken until it is asked to resume. Unlike Drain, which ends it, this leaves it running and its heartbeat saying so.

// drainFile is there while the worker drains.
func (w *Worker) drainFile() string { return filepath.Join(w.o.StateDir, "draining") }

func (w *Worker) writeDrainFile() error {
	if err := os.WriteFile(w.drainFile(), nil, 0o600); err != nil {
		return err
	}
	return syncFile(w.drainFile())
}

// syncFile makes sure that a file, or what a directory lists, is on the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// toldToDrain reports whether an earlier life of this worker was asked to drain and not to resume. When that cannot be told it was.
func (w *Worker) toldToDrain() bool {
	_, err := os.Stat(w.drainFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.log.Warn("it cannot be told whether this worker is to drain, so it does", "error", err)
	}
	told := !errors.Is(err, fs.ErrNotExist)
	w.o.Observer.Draining(told)
	return told
}

// askedToDrain does as it is asked, at once. Where that cannot be written down it holds until the worker ends.
func (w *Worker) askedToDrain(yes bool) {
	var err error
	if yes {
		err = w.writeDrainFile()
	} else if err = os.Remove(w.drainFile()); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = syncFile(w.o.StateDir) // a power cut must not undo it
	}
	if err != nil {
		w.log.Warn("whether this worker drains could not be written down: a restart forgets it", "draining", yes, "error", err)
	}
	if !w.gate.drain(yes) {
		return
	}
	w.o.Observer.Draining(yes)
	w.log.Info("asked to drain, or to resume", "draining", yes)
	select {
	case w.news <- struct{}{}:
	default: // one is due already
	}
}
