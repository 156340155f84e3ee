package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// DiskOptions say when the disk counts as full. The zero value of a field means its default.
type DiskOptions struct {
	Path         string  // on the file system of the engine's data; default StateDir
	MinFreeBytes int64   // below this nothing is claimed; default 1 GiB
	High, Low    float64 // above High, images are removed until Low; fractions of the disk in use; default 0.85 and 0.75
	// Usage returns free and total bytes of the disk; default asks the file system.
	Usage func() (free, total int64, err error)
}

func (d DiskOptions) withDefaults(stateDir string) DiskOptions {
	if d.Path == "" {
		d.Path = stateDir
	}
	if d.MinFreeBytes == 0 {
		d.MinFreeBytes = 1 << 30
	}
	if d.High == 0 {
		d.High, d.Low = 0.85, 0.75
	}
	if d.Usage == nil {
		path := d.Path
		d.Usage = func() (free, total int64, err error) {
			var st syscall.Statfs_t
			if err := syscall.Statfs(path, &st); err != nil {
				return 0, 0, &os.PathError{Op: "statfs", Path: path, Err: err}
			}
			// What only root may use counts as used, as in df.
			usable := int64(st.Blocks-st.Bfree+st.Bavail) * st.Bsize
			return int64(st.Bavail) * st.Bsize, usable, nil
		}
	}
	return d
}

// full reports whether more than the fraction of the disk is in use.
func (d DiskOptions) full(fraction float64) bool {
	free, total, err := d.Usage()
	return err == nil && total > 0 && float64(total-free) > fraction*float64(total)
}

func hostMemory() int64 {
	var si syscall.Sysinfo_t
	if syscall.Sysinfo(&si) != nil {
		return 1 << 30
	}
	return int64(si.Totalram) * int64(si.Unit)
}

// collects removes unused images when the disk is full, every minute.
func (w *Worker) collects(ctx context.Context) {
	t := time.NewTicker(w.every.images)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			w.images.saveUsed()
			return
		case <-t.C:
		}
		w.images.saveUsed()
		if err := w.images.collect(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("unused images could not be removed", "error", err)
		}
	}
}

// collect removes images while the disk is above its watermark, the least recently used first: only what this
// worker's activations have needed, never one in use, pinned, or being pulled.
func (s *imageStore) collect(ctx context.Context) error {
	if !s.o.Disk.full(s.o.Disk.High) {
		return nil
	}
	var images []Image
	err := within(ctx, removeTimeout, func(ctx context.Context) (err error) {
		images, err = s.o.Engine.Images(ctx)
		return err
	})
	if err != nil {
		return err
	}
	type candidate struct {
		Image
		last time.Time
	}
	var candidates []candidate
	s.mu.Lock()
	for _, im := range images {
		if last, ours := s.lastUsed(im.Refs); ours && !im.InUse {
			candidates = append(candidates, candidate{im, last})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(candidates, func(a, b candidate) int { return cmp.Compare(a.last.UnixNano(), b.last.UnixNano()) })
	var failed error
	for _, c := range candidates {
		if !s.o.Disk.full(s.o.Disk.Low) {
			break
		}
		failed = errors.Join(failed, s.discard(ctx, c.Image))
	}
	return failed
}

// lastUsed is when one of the references was last needed; ours is false where none ever was. The caller holds the lock.
func (s *imageStore) lastUsed(refs []string) (last time.Time, ours bool) {
	for _, ref := range refs {
		if t, ok := s.used[ref]; ok {
			ours = true
			if t.After(last) {
				last = t
			}
		}
	}
	return last, ours
}

// discard removes one image unless somebody needs it now. The lock is held over the engine's call: who wants the
// image in that moment waits, and pulls it.
func (s *imageStore) discard(ctx context.Context, im Image) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ref := range im.Refs {
		if s.pins[ref] > 0 || s.flights[ref] != nil {
			return nil
		}
	}
	if err := within(ctx, removeTimeout, func(ctx context.Context) error { return s.o.Engine.RemoveImage(ctx, im.ID) }); err != nil {
		return err
	}
	for _, ref := range im.Refs {
		delete(s.used, ref)
	}
	s.dirty = true
	s.o.Observer.Removed("image")
	s.log.Info("an unused image was removed", "image", im.ID, "bytes", im.Size)
	return nil
}

func usedFile(stateDir string) string { return filepath.Join(stateDir, "images.json") }

// loadUsed reads when images were last needed. Without the file nothing is known, so nothing is removed.
func loadUsed(stateDir string, log *slog.Logger) map[string]time.Time {
	used := map[string]time.Time{}
	b, err := os.ReadFile(usedFile(stateDir))
	if err == nil {
		err = json.Unmarshal(b, &used)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the list of images cannot be read, a new one is begun", "error", err)
		return map[string]time.Time{}
	}
	return used
}

// saveUsed writes the list where it has changed.
func (s *imageStore) saveUsed() {
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = false
	b, err := json.Marshal(s.used)
	s.mu.Unlock()
	if !dirty {
		return
	}
	file := usedFile(s.o.StateDir)
	if err == nil {
		err = os.WriteFile(file+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		s.log.Warn("the list of images could not be written", "error", err)
	}
}
